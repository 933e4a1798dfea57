"""Each defect that `check_env` must name: worlds that have it and nothing else, written in different ways.

The first is a corridor that defines `step` (`test_testing.py`), the second a world of tools.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agentrl.testing import check_env
from agentrl.world import StepResult, Task, TextEnv, tool
from tests.agentrl.test_testing import (
    Corridor,
    Endless,
    Forgetful,
    Global,
    Informing,
    Judging,
    Leaking,
    Ranged,
    Telling,
    Tensors,
    Unseeded,
    Whispering,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

WORDS = ("harbour", "meadow", "lantern")


class Drawers(TextEnv):
    """A word lies in one of three drawers; keeps the whole contract."""

    def num_tasks(self, split: str) -> int | None:
        self._check_split(split)
        return 3

    def get_task(self, split: str, index: int) -> Task:
        words = [WORDS[(index + drawer) % 3] for drawer in range(3)]
        return Task(split, index, f"Which word lies in drawer {index + 1}?", {"words": words})

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        observation, info = super().reset(seed=seed, options=options)
        self.opened: list[int] = []
        self.stack = self.words()
        return observation, info

    def words(self) -> list[str]:
        words = self.task.data["words"]
        assert isinstance(words, list)
        return list(words)

    @tool
    def open_drawer(self, number: int) -> str:
        """Open a drawer and read what lies in it.

        Args:
            number: of the drawer.
        """
        if number not in {1, 2, 3}:
            raise ValueError(f"there is no drawer {number}")
        self.opened.append(number)
        return f"Drawer {number}: {self.found(number)}. Opened so far: {self.opened}."

    @tool
    def answer(self, word: str) -> str:
        """Say the word; this ends the episode.

        Args:
            word: that lies there.
        """
        right = word == self.gold()
        self.finish(reward=self.worth(right), success=right)
        return "Right." if right else "Wrong."

    def found(self, number: int) -> str:
        return str(self.stack[number - 1])

    def worth(self, right: bool) -> float:
        return float(right)

    def gold(self) -> str:
        return str(self.stack[self.task.index])

    def state_key(self) -> Hashable:
        return (self.task.index, tuple(self.opened))


class SeedsGlobally(Drawers):
    """Seeds numpy's global generator, so that its episodes repeat."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        result = super().reset(seed=seed, options=options)
        np.random.seed(seed)  # noqa: NPY002  # the fault that is looked for
        return result


class KeepsTasks(Drawers):
    """Its tasks are made once for each instance, and playing wears them out."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, list[str]] = {}

    def found(self, number: int) -> str:
        words = self.made.setdefault(self.task.index, self.words())
        word, words[number - 1] = words[number - 1], "dust"
        return word


class StepsOn(Corridor):
    """Its step is put into the class from outside, where nothing guards it."""


def _unguarded(self: Corridor, action: str) -> StepResult:
    moved = {"forward": 1, "back": -1}.get(action)
    if moved is None:
        return "Nothing happens.", 0.0, False, False, {"valid": False}
    self.place = max(0, self.place + moved)
    return self.describe(), 0.0, self.place >= self.length, False, {}


StepsOn.step = _unguarded  # type: ignore[method-assign]  # the fault that is looked for


class Spells(Drawers):
    """The answer stands in the rules of the game, in capitals."""

    def system_text(self) -> str:
        return f"{super().system_text()}\nHint: {self.gold().upper()}"


class Nests(Drawers):
    """The answer lies deep in the info of reset."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        observation, info = super().reset(seed=seed, options=options)
        return observation, {**info, "debug": {"target": [f"the {self.gold()}"]}}


class Traces(Drawers):
    """The answer lies in the info of each step, in an object that prints it."""

    def step(self, action: str) -> StepResult:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "task": self.task, "word": [self.gold()]}


class Coaches(Drawers):
    """Says whether an answer was right, and takes another one."""

    @tool
    def answer(self, word: str) -> str:
        """Say the word.

        Args:
            word: that lies there.
        """
        if word != self.gold():
            return "Not quite. Try again."
        self.finish(reward=1.0, success=True)
        return "Right."


class ListKeys(Drawers):
    """A list is its key."""

    def state_key(self) -> Hashable:
        return list(self.opened)  # type: ignore[return-value]  # the fault that is looked for


class ArrayKeys(Drawers):
    """An array is its key for what the agent saw."""

    def observation_key(self) -> Hashable:
        return np.array(self.opened)  # type: ignore[return-value]  # the fault that is looked for


class Ignores(Drawers):
    """Takes a snapshot and never looks at it."""

    def restore(self, state: object) -> None:
        """Nothing comes back."""


class Shares(Drawers):
    """Its snapshot is the living list, and not a copy of it."""

    def snapshot(self) -> object:
        return (super().snapshot(), self.opened)

    def restore(self, state: object) -> None:
        assert isinstance(state, tuple)
        super().restore(state[0])
        self.opened = state[1]


class Fines(Drawers):
    """Takes more than it says that it would."""

    reward_range = (0.0, 1.0)

    def worth(self, right: bool) -> float:
        return 1.0 if right else -0.5


class Greets(Drawers):
    """Each member of a group is told other rules."""

    def __init__(self) -> None:
        super().__init__()
        self.name = secrets.token_hex(4)

    def system_text(self) -> str:
        return f"You are agent {self.name}. {super().system_text()}"


class Shuffles(Drawers):
    """Where things lie depends on the instance, whatever the seed."""

    def __init__(self) -> None:
        super().__init__()
        self.order = np.random.default_rng()

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        observation, info = super().reset(seed=seed, options=options)
        return f"{observation} (round {self.order.integers(2**40)})", info


WALK = ("forward",)
ASK = (
    "<open_drawer>1</open_drawer>", "<open_drawer>2</open_drawer>", "<open_drawer>1</open_drawer>",
    "<open_drawer>3</open_drawer>", "<answer>zyx</answer>",
)  # fmt: skip
MUTANTS: dict[str, tuple[str, tuple[type[TextEnv], ...]]] = {
    "a global generator": ("global_random", (Global, SeedsGlobally)),
    "state leaking between episodes": ("isolation", (Leaking, KeepsTasks)),
    "observations after the end": ("order", (Endless, StepsOn)),
    "the answer in the prompt": ("gold", (Telling, Spells)),
    "the answer in info": ("gold", (Informing, Nests)),
    "the answer in the info of a step": ("leak", (Whispering, Traces)),
    "correctness in observations": ("leak", (Judging, Coaches)),
    "keys that cannot be compared": ("keys", (Tensors, ListKeys, ArrayKeys)),
    "restore that does not restore": ("snapshot", (Forgetful, Ignores, Shares)),
    "rewards out of range": ("types", (Ranged, Fines)),
    "unequal starts in a group": ("determinism", (Unseeded, Greets, Shuffles)),
}
"""A defect, the check that names it, and worlds that have it."""


def test_the_worlds_without_a_defect_pass() -> None:
    for world, actions in ((Corridor, WALK), (Drawers, ASK)):
        assert check_env(world, actions=actions).findings == ()


@pytest.mark.parametrize(
    ("world", "check"),
    [
        pytest.param(world, check, id=f"{defect}: {world.__name__}")
        for defect, (check, worlds) in MUTANTS.items()
        for world in worlds
    ],
)
def test_a_defect_is_named_and_nothing_else(world: type[TextEnv], check: str) -> None:
    report = check_env(world, actions=ASK if issubclass(world, Drawers) else WALK)
    assert {finding.check for finding in report.findings if finding.severity != "note"} == {check}, str(
        report
    )

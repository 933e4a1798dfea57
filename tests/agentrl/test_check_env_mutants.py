"""Each defect that `check_env` must name: worlds that have it and nothing else, written in different ways.

The first is a corridor that defines `step` (`test_testing.py`), the second a world of tools.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest

from agentrl.errors import EnvironmentUsageError
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
    from collections.abc import Hashable, Sequence

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

    def restore(self, snapshot: object) -> None:
        """Nothing comes back."""


class Shares(Drawers):
    """Its snapshot is the living list, and not a copy of it."""

    def snapshot(self) -> object:
        return (super().snapshot(), self.opened)

    def restore(self, snapshot: object) -> None:
        assert isinstance(snapshot, tuple)
        super().restore(snapshot[0])
        self.opened = snapshot[1]


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


class Owns(Drawers):
    """What it keeps in reset belongs to the thread of reset."""

    blocks = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        self.connection = sqlite3.connect(":memory:")
        return super().reset(seed=seed, options=options)

    def found(self, number: int) -> str:
        self.connection.execute("select 1")
        return super().found(number)

    def snapshot(self) -> object:
        raise EnvironmentUsageError("a connection cannot be copied")

    def close(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()


class Remembers(Drawers):
    """The same with threading.local."""

    blocks = True
    local: ClassVar[threading.local] = threading.local()

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        self.local.begun = True
        return super().reset(seed=seed, options=options)

    def found(self, number: int) -> str:
        assert self.local.begun
        return super().found(number)


class KeyTurns(Drawers):
    """Looking at its key turns the drawers."""

    def state_key(self) -> Hashable:
        self.opened.append(0)
        return super().state_key()


class ListTurns(Drawers):
    """Asking what may be done turns the drawers."""

    def admissible(self) -> list[str]:
        self.opened.append(0)
        return list(ASK[:2])


class LooseTexts(Drawers):
    """One text in place of a list of texts."""

    def admissible(self) -> Sequence[str]:
        return ASK[0]


class Jams(Drawers):
    """Cannot be closed."""

    def close(self) -> None:
        raise RuntimeError("the drawer jams")


class Leaves(Drawers):
    """Ends the process, if it is let."""

    def found(self, number: int) -> str:
        raise SystemExit(number)


class Awaited(Corridor):
    """Its step is a coroutine."""

    async def step(self, action: str) -> StepResult:  # type: ignore[override]  # the fault that is looked for
        return super().step(action)


class Short(Corridor):
    """It returns four things."""

    def step(self, action: str) -> StepResult:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info  # type: ignore[return-value]  # the fault


class Silent(Corridor):
    """Its info is None."""

    def step(self, action: str) -> StepResult:
        return *super().step(action)[:4], None  # type: ignore[return-value]  # the fault that is looked for


class Recurses(Drawers):
    """It calls itself."""

    def found(self, number: int) -> str:
        return self.found(number)


class Surrogate(Drawers):
    """What it says cannot be written as UTF-8."""

    def found(self, number: int) -> str:
        return super().found(number) + "\ud800"


class Unread(Drawers):
    """Its snapshot holds nothing of the drawers."""

    def snapshot(self) -> object:
        return self.task

    def restore(self, snapshot: object) -> None:
        assert isinstance(snapshot, Task)
        self.task = snapshot


class NumpyEnds(Corridor):
    """Its ends are truths of numpy."""

    def step(self, action: str) -> StepResult:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, np.bool_(terminated), truncated, info  # type: ignore[return-value]  # the fault


class Unpaid(Corridor):
    """Its reward is no number."""

    def step(self, action: str) -> StepResult:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float("nan"), terminated, truncated, info


class Empty(Drawers):
    """A split without tasks."""

    def num_tasks(self, split: str) -> int | None:
        self._check_split(split)
        return 0


class Uncounted(Drawers):
    """Its tasks cannot be counted."""

    def num_tasks(self, split: str) -> int | None:
        raise RuntimeError("the database is down")


class Reversed(Drawers):
    """Success is the opposite of what is paid."""

    def worth(self, right: bool) -> float:
        return 1.0 - right


@pytest.mark.parametrize(
    ("world", "said"),
    [
        (
            Owns,
            "[threads] train/0: reset and step of a blocking world run in different threads, and there",
        ),
        (Remembers, "threading.local or a connection of sqlite3 without check_same_thread=False"),
        (KeyTurns, "[hooks] train/0: reading state_key() twice more changes the episode"),
        (ListTurns, "[hooks] train/0: reading admissible() twice more changes the episode"),
        (LooseTexts, "[admissible] train/0: admissible() must return a list of texts; got '<open_drawer>1"),
        (Jams, "[close] close() raised RuntimeError: the drawer jams"),
        (Leaves, "raised SystemExit: 1 (in"),
        (Awaited, "raised TypeError: step() of Awaited is `async def`; write `def step`, or derive it from"),
        (
            Short,
            "step() of Short returned (str, float, bool, dict); return (observation,",
        ),
        (
            Silent,
            "step() of Silent returned (str, float, bool, bool, NoneType); return (observation,",
        ),
        (Recurses, "raised RecursionError: maximum recursion depth exceeded"),
        (Surrogate, r"has the lone surrogate '\ud800', which UTF-8 cannot hold; replace it"),
        (
            Unread,
            "[snapshot] train/0, restored in the same instance after turn 0: observation after",
        ),
        (NumpyEnds, "terminated must be bool; got numpy.bool"),
        (Unpaid, "the reward must be a finite number; got nan"),
        (Empty, "num_tasks('train') is 0; a split has at least one task, and None stands for no end"),
        (Uncounted, "[tasks] raised RuntimeError: the database is down"),
    ],
)
def test_a_fault_is_told_once(world: type[TextEnv], said: str) -> None:
    report = check_env(world, actions=ASK if issubclass(world, Drawers) else WALK)
    found = [str(finding) for finding in report.findings if finding.severity != "note"]
    assert len(found) == 1, str(report)
    assert said in found[0]
    assert not any("episodes were compared" in str(finding) for finding in report.findings)


def test_a_fault_that_other_processes_meet_is_told_once() -> None:
    report = check_env(Recurses, actions=ASK, processes=True)
    assert len(report.findings) == 1, str(report)


def test_success_that_is_the_opposite_of_the_reward_is_suspected() -> None:
    report = check_env(Reversed, actions=("<answer>harbour</answer>",))
    (finding,) = report.findings
    assert finding.severity == "warning"
    assert "the reward 1 has success False, and none with success True has more than 0" in finding.message


class Streams(Drawers):
    """Keeps the whole contract; what it holds cannot be copied."""

    def reset(self, **rest: object) -> tuple[str, dict[str, object]]:
        self.words_left = (word for word in WORDS * 9)
        return super().reset(**rest)  # type: ignore[arg-type]  # passed on

    def found(self, number: int) -> str:
        return f"{super().found(number)} and {next(self.words_left)}"


class Plain(Drawers):
    """Says that it has no snapshots, in one of two ways."""

    def snapshot(self) -> object:
        return None


@pytest.mark.parametrize("world", [Streams, Plain])
def test_a_world_may_have_no_snapshots(world: type[TextEnv]) -> None:
    report = check_env(world, actions=ASK)
    assert [(finding.severity, finding.check) for finding in report.findings] == [("note", "snapshot")]
    assert "rollouts that branch replay its actions instead" in report.findings[0].message


class Bare(Drawers):
    """Its snapshot holds what is its own and nothing of ours."""

    def snapshot(self) -> object:
        return self.task, tuple(self.opened), tuple(self.stack)

    def restore(self, snapshot: object) -> None:
        assert isinstance(snapshot, tuple)
        self.task, opened, stack = snapshot
        self.opened, self.stack = list(opened), list(stack)


def test_an_own_snapshot_need_not_know_that_the_episode_runs() -> None:
    assert check_env(Bare, actions=ASK).findings == ()

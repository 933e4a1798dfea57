"""The contract of environments: order, tasks, keys, tools, snapshots, and Gymnasium's own checkers."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env as gymnasium_check_env

from agentrl.errors import EnvironmentUsageError
from agentrl.trajectory import TurnKind
from agentrl.world import JsonCalls, StepResult, Task, TextEnv, TextSpace, ToolResult, tool

if TYPE_CHECKING:
    from collections.abc import Callable


class Guess(TextEnv):
    """A world of tools: guess a number."""

    splits = ("train", "test")

    def num_tasks(self, split: str) -> int | None:
        self._check_split(split)
        return 4 if split == "test" else None

    def get_task(self, split: str, index: int) -> Task:
        return Task(split, index, prompt=f"Guess 1-9 (game {index}).", data={"number": 1 + index % 9})

    @tool
    def guess(self, number: int) -> str:
        """Guess.

        Args:
            number: your guess
        """
        if number == self.task.data["number"]:
            self.finish(1.0)
            return "Correct."
        return "Wrong."

    @tool
    def bet(self) -> ToolResult:
        """Bet."""
        return ToolResult("You bet.", reward=-0.25, metrics={"bets": 1.0})


class Stairs(TextEnv):
    """A text world that overrides `reset` and `step`."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        super().reset(seed=seed, options=options)
        self.height = int(self.rng.integers(3))
        return f"You are on stair {self.height}.", {}

    def step(self, action: str) -> StepResult:
        if action not in {"up", "down"}:
            return "Nothing happens.", 0.0, False, False, {"valid": False}
        self.height += 1 if action == "up" else -1
        self.seen = self.height
        return f"You are on stair {self.height}.", 0.0, self.height == 5, False, {}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("world", [Guess, Stairs])
def test_gymnasium_accepts_it_without_a_warning(world: type[TextEnv]) -> None:
    spec = EnvSpec("contract/World-v0", entry_point=f"{__name__}:{world.__name__}")
    env = gymnasium.make(spec)
    env.reset(seed=1)
    env.step("up")
    gymnasium_check_env(env.unwrapped)


def test_text_space_holds_every_text() -> None:
    space = TextSpace(seed=1)
    assert "Où est\nle chat? 🐈" in space
    assert 3 not in space
    assert space.sample() in space
    assert TextSpace(seed=1).sample() == TextSpace(seed=1).sample()
    assert space == TextSpace()


@pytest.mark.parametrize("world", [Guess, Stairs])
def test_order_is_enforced(world: Callable[[], TextEnv]) -> None:
    env = world()
    with pytest.raises(EnvironmentUsageError, match=r"before reset\(\); call reset\(\) first"):
        env.step("up")
    env.reset(seed=0, options={"index": 0})
    action = "up" if isinstance(env, Stairs) else "<guess>1</guess>"
    while not env.step(action)[2]:
        pass
    with pytest.raises(EnvironmentUsageError, match="after its episode ended"):
        env.step(action)
    env.reset()
    env.step(action)


def test_a_failed_reset_is_no_reset() -> None:
    env = Stairs()
    env.reset(seed=0)
    with pytest.raises(EnvironmentUsageError):
        env.reset(options={"index": 99})
    with pytest.raises(EnvironmentUsageError, match="before reset"):
        env.step("up")


def test_a_subclass_that_forgets_super_init_still_gets_a_sentence() -> None:
    class Forgetful(Stairs):
        def __init__(self) -> None:
            self.depth = 1

    with pytest.raises(EnvironmentUsageError, match="before reset"):
        Forgetful().step("up")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tran"}, r"has no split 'tran'; its splits are train, test"),
        ({"split": "test", "index": 4}, r"split 'test' has 4 tasks; index 4 is outside"),
        ({"index": -1}, r"integer >= 0"),
        ({"index": "3"}, r"integer >= 0"),
        ({"task": 3}, r"reset options may be 'split' and 'index'; got \['task'\]"),
    ],
)
def test_wrong_options_are_sentences(options: dict[str, object], message: str) -> None:
    with pytest.raises(EnvironmentUsageError, match=message):
        Guess().reset(options=options)


def test_tasks_have_addresses_and_are_drawn_from_the_seed() -> None:
    env = Guess()
    assert env.reset(options={"split": "test", "index": 2})[0] == "Guess 1-9 (game 2)."
    assert env.task.id == "test/2"
    env.reset(seed=5)
    first = env.task
    env.reset(seed=5)
    assert env.task == first


def test_tools_are_dispatched_and_finish_ends() -> None:
    env = Guess()
    env.reset(options={"index": 2})
    observation, reward, terminated, truncated, info = env.step("<bet></bet><guess>3</guess><guess>9</guess>")
    assert observation == "[1] bet: You bet.\n[2] guess: Correct."
    assert (reward, terminated, truncated) == (0.75, True, False)
    assert (info["success"], info["turn_kind"], info["metrics"]) == (True, TurnKind.OK, {"bets": 1.0})


def test_the_protocol_is_exchangeable() -> None:
    env = Guess()
    env.protocol = JsonCalls()
    env.reset(options={"index": 2})
    assert "<tools>" in env.system_text()
    call = '<tool_call>{"name": "guess", "arguments": {"number": 3}}</tool_call>'
    assert env.step(call)[1:3] == (1.0, True)


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("hello", TurnKind.PARSE_ERROR),
        ("<gess>1</gess>", TurnKind.TOOL_ERROR),
        ("<guess>x</guess>", TurnKind.TOOL_ERROR),
    ],
)
def test_mistakes_are_answered_and_make_no_key(action: str, kind: TurnKind) -> None:
    env = Guess()
    env.reset(options={"index": 2})
    env.step("<guess>1</guess>")
    before = env.observation_key()
    observation, reward, terminated, _, info = env.step(action)
    assert (reward, terminated, info["valid"], info["turn_kind"]) == (0.0, False, False, kind)
    assert observation
    assert env.observation_key() == before == "Wrong."


def test_refusals_make_no_key_in_text_worlds() -> None:
    env = Stairs()
    env.reset(seed=0)
    before = env.observation_key()
    env.step("jump")
    assert env.observation_key() == before
    env.step("up")
    assert env.observation_key() != before


def test_a_wrapper_by_inheritance_keeps_refusals_out_of_the_key() -> None:
    class Polite(Guess):
        def step(self, action: str) -> StepResult:
            observation, *rest = super().step(action)
            return f"{observation} Please go on.", *rest  # type: ignore[return-value]  # a tuple taken apart

    env = Polite()
    env.reset(options={"index": 2})
    before = env.observation_key()
    env.step("nonsense")
    assert env.observation_key() == before


def through_pickle(env: Guess) -> Guess:
    twin = pickle.loads(pickle.dumps(env))
    assert isinstance(twin, Guess)
    return twin


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle])
def test_copies_are_independent_also_in_their_tools(copied: Callable[[Guess], Guess]) -> None:
    env = Guess()
    env.reset(options={"index": 2})
    env.step("<guess>1</guess>")
    twin = copied(env)
    assert twin.step("<guess>3</guess>")[2]
    assert not env.step("<guess>1</guess>")[2]


def test_snapshot_restores_behaviour_here_and_elsewhere() -> None:
    env, other = Stairs(), Stairs()
    env.reset(seed=2)
    saved = env.snapshot()
    first = [env.step(action) for action in ("up", "up", "jump")]
    other.reset(seed=9)
    other.step("up")
    for target in (env, other):
        target.restore(saved)
        assert not hasattr(target, "seen")
        assert [target.step(action) for action in ("up", "up", "jump")] == first


def test_restore_refuses_other_things() -> None:
    with pytest.raises(EnvironmentUsageError, match="restore needs what snapshot"):
        Stairs().restore(3)


def test_render_shows_the_last_observation() -> None:
    env = Stairs(render_mode="ansi")
    observation, _ = env.reset(seed=1)
    assert env.render() == observation

"""What ships for users' tests: each check finds the fault it is there for, and passes where there is none."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest

from agentrl.errors import CheckError, EnvironmentFault
from agentrl.testing import Faults, FaultyEnv, FaultyTool, check_env, check_tool
from agentrl.world import AsyncTextEnv, StepResult, Task, TextEnv, Toolbox, register, tool
from agentrl.world.protocol import Call, Parsed

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from pathlib import Path


class Corridor(TextEnv):
    """Walk to the end of a corridor; keeps the whole contract."""

    length: ClassVar[int] = 4

    def num_tasks(self, split: str) -> int | None:
        self._check_split(split)
        return 3

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        super().reset(seed=seed, options=options)
        self.place = int(self.rng.integers(2))
        return self.describe(), {}

    def step(self, action: str) -> StepResult:
        if action not in {"forward", "back"}:
            return "Nothing happens.", 0.0, False, False, {"valid": False}
        self.place = max(0, self.place + (1 if action == "forward" else -1))
        done = self.place >= self.length
        return self.describe(), float(done), done, False, {"success": done} if done else {}

    def describe(self) -> str:
        return f"Task {self.task.index}: you are at {self.place} of {self.length}."

    def state_key(self) -> Hashable:
        return (self.task.index, self.place)

    def admissible(self) -> Sequence[str]:
        return ("forward", "back")

    def gold(self) -> str:
        return "lighthouse"


def found(env: type[TextEnv], check: str, actions: Sequence[str] = ("forward",), turns: int = 12) -> str:
    report = check_env(env, actions=actions, turns=turns)
    assert not report
    assert {finding.check for finding in report.errors} >= {check}, str(report)
    return " ".join(finding.message for finding in report.errors if finding.check == check)


@pytest.mark.parametrize("actions", [(), ("forward",), ("forward", "dance")])
def test_a_good_world_passes(actions: tuple[str, ...]) -> None:
    report = check_env(Corridor, actions=actions, turns=40)
    assert report.findings == (), str(report)
    assert len(report.checks) == 15
    report.raise_if_failed()


def test_instances_and_ids_can_be_checked() -> None:
    assert check_env(Corridor(), actions=["forward"])
    register("checked/Corridor-v0", Corridor)
    assert check_env("checked/Corridor-v0", actions=["forward"]).subject == "checked/Corridor-v0"


def test_an_episode_without_end_is_noted() -> None:
    report = check_env(Corridor, actions=["back"])
    assert [(f.severity, f.check) for f in report.findings] == [("note", "order")]


def test_other_things_are_refused() -> None:
    for thing in (AsyncTextEnv, AsyncTextEnv()):
        with pytest.raises(CheckError, match="cannot check an AsyncTextEnv"):
            check_env(thing)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(CheckError, match="made a list"):
        check_env(list)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(CheckError, match="there is no check"):
        check_env(Corridor, skip=["gymnasum"])


def test_skipped_checks_do_not_run() -> None:
    assert "gold" not in check_env(Corridor, actions=["forward"], skip=["gold"]).checks


class Global(Corridor):
    def step(self, action: str) -> StepResult:
        random.random()
        np.random.rand()  # noqa: NPY002  # the fault that is looked for
        return super().step(action)


class Counting(Corridor):
    ids: ClassVar[itertools.count[int]] = itertools.count()

    def describe(self) -> str:
        return f"{super().describe()} ({next(self.ids)})"


class Leaking(Corridor):
    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def step(self, action: str) -> StepResult:
        self.steps += 1
        return super().step(action)

    def describe(self) -> str:
        return f"{super().describe()} {self.steps} steps."


class Sharing(Corridor):
    board: ClassVar[dict[str, int]] = {}

    def step(self, action: str) -> StepResult:
        result = super().step(action)
        self.board["place"] = self.place
        return result

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        self.board.clear()
        return super().reset(seed=seed, options=options)

    def state_key(self) -> Hashable:
        return tuple(sorted(self.board.items()))


class Unseeded(Corridor):
    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        super().reset(seed=None, options=options)
        return f"{self.describe()} It smells of {self.rng.integers(2**40)}.", {}


class Tensors(Corridor):
    def state_key(self) -> Hashable:
        return (self.place, object())


class Chatty(Corridor):
    def step(self, action: str) -> StepResult:
        observation, reward, terminated, truncated, info = super().step(action)
        info.pop("valid", None)
        return observation, reward, terminated, truncated, info


class Eager(Corridor):
    def observation_key(self) -> Hashable:
        return self._last_observation


class Forgetful(Corridor):
    def snapshot(self) -> object:
        state = super().snapshot()
        assert isinstance(state, dict)
        return {**state, "place": -1}


class Telling(Corridor):
    def describe(self) -> str:
        return f"{super().describe()} (Psst: Lighthouse.)"


class Informing(Corridor):
    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        observation, _ = super().reset(seed=seed, options=options)
        return observation, {"answer": "lighthouse"}


class Judging(Corridor):
    """Tells whether a guess is right, and lets the agent guess again."""

    def step(self, action: str) -> StepResult:
        observation, reward, terminated, truncated, info = super().step(action)
        if info.get("valid", True):
            return observation, reward, terminated, truncated, info
        return "Sorry, your answer is incorrect. Please try again.", 0.0, False, False, {"valid": False}


class Asking(TextEnv):
    """A world of tools that says of an answer what it was, and takes another."""

    def gold(self) -> str:
        return "lighthouse"

    @tool
    def answer(self, name: str) -> str:
        """Answer.

        Args:
            name: of the place.
        """
        return "Wrong, try again." if name != "lighthouse" else "Go on."


class Wordy(Corridor):
    """Its texts speak of what is correct, and judge nobody."""

    def describe(self) -> str:
        return f"{super().describe()} The fuse is wired correctly, on the right. Which plan is correct?"


class Mute(Corridor):
    """Never says that it was a success, or says it in a word that nobody reads."""

    word: ClassVar[str] = ""

    def step(self, action: str) -> StepResult:
        *rest, info = super().step(action)
        said = {self.word: True} if self.word else {}
        return *rest, said if "success" in info else info  # type: ignore[return-value]  # the same five


class Misspelt(Mute):
    word = "sucess"


@pytest.mark.parametrize(
    ("world", "severity", "said"),
    [
        (Mute, "note", "set it to True or False where the episode ends"),
        (Misspelt, "warning", "info has 'sucess', which nobody reads"),
    ],
)
def test_an_end_without_a_word_on_success_is_told_once(world: type[Mute], severity: str, said: str) -> None:
    report = check_env(world, actions=["forward"] * 5)
    (found,) = (item for item in report.findings if "success" in item.message)
    assert (found.severity, found.check) == (severity, "types")
    assert found.message.startswith("train/0 ended without info['success'], so success is unknown")
    assert found.message.endswith(said)


class Paying(Corridor):
    def step(self, action: str) -> StepResult:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, 10 * reward, terminated, truncated, info


class Whispering(Corridor):
    """Its info holds the answer, from the first step on."""

    def step(self, action: str) -> StepResult:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "target": "The lighthouse"}


class Promising(Corridor):
    def admissible(self) -> Sequence[str]:
        return ("forward", "fly")


class Infinite(Corridor):
    def step(self, action: str) -> StepResult:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float("nan"), terminated, truncated, info


class Numpy(Corridor):
    def step(self, action: str) -> StepResult:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, np.bool_(terminated), truncated, {**info, "success": "yes"}  # type: ignore[return-value]  # the fault that is looked for


class Ranged(Corridor):
    reward_range = (-1.0, 0.5)


class Misplaced(Corridor):
    def get_task(self, split: str, index: int) -> Task:
        return Task(split, 0)


class Endless(Corridor):
    def _check_running(self) -> None:
        """Nothing is refused."""


class Negligent(Corridor):
    """Its default seed and options are not Gymnasium's."""

    def reset(
        self, *, seed: int | None = 3, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        return super().reset(seed=seed, options=options)


@pytest.mark.parametrize(
    ("world", "check", "message"),
    [
        (Global, "global_random", "global generator of random; use self.rng.*numpy.random"),
        (Counting, "determinism", "train/0, same seed: observation after 0 actions"),
        (Unseeded, "determinism", "same seed"),
        (Leaking, "isolation", "after another episode: observation"),
        (Sharing, "isolation", "beside another instance: state_key"),
        (Tensors, "keys", "a key must be made of"),
        (Chatty, "keys", "'Nothing happens.' looks like a refusal and makes a key"),
        (Eager, "keys", "the refused action .* changed observation_key"),
        (Forgetful, "snapshot", "restored in"),
        (Telling, "gold", "the prompt contains the answer 'lighthouse'"),
        (Informing, "gold", "info contains the answer 'lighthouse'"),
        (Judging, "leak", "'Sorry, your answer is incorrect.*the episode went on; an agent can try"),
        (Asking, "leak", "'<answer> zyx </answer>' was judged .'Wrong, try again.'"),
        (Whispering, "leak", "info of step 0 has the answer 'lighthouse'"),
        (Promising, "admissible", "'fly' is listed as admissible and was refused"),
        (Infinite, "types", "finite number; got nan"),
        (Numpy, "types", r"terminated must be bool.*|info\['success'\] must be bool"),
        (Ranged, "types", r"the reward 1.0 is outside of \(-1.0, 0.5\)"),
        (Misplaced, "tasks", r"get_task\('train', 1\) returned train/0"),
        (Endless, "order", "before reset.*after the end"),
        (Negligent, "gymnasium", "default seed"),
    ],
)
def test_each_check_finds_its_fault(world: type[TextEnv], check: str, message: str) -> None:
    assert re.search(message, found(world, check)), found(world, check)


def test_a_large_reward_that_nobody_declared_is_a_warning() -> None:
    (warning,) = check_env(Paying, actions=("forward",), tasks=[("train", 0)]).findings
    assert warning.severity == "warning"
    assert "the reward 10.0 is outside of -1 to 1; set reward_range" in warning.message


class Tipping(Corridor):
    """Pays too much at every step, each time something else."""

    def step(self, action: str) -> StepResult:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, 2.5 * self.place, terminated, truncated, info


def test_what_is_found_at_every_step_is_told_once() -> None:
    (warning,) = check_env(Tipping, actions=("forward",), tasks=[("train", 0)]).findings
    # It begins at place 0 or 1 and ends at 4: three or four steps.
    assert re.search(r"step 0: the reward (2.5|5.0) .*\(and [23] more like it\)", warning.message)


def test_a_world_that_does_not_repeat_itself_is_told_so_once() -> None:
    report = check_env(Unseeded, actions=("forward",))
    assert [(finding.severity, finding.check) for finding in report.findings] == [
        ("error", "determinism"),
        ("note", "determinism"),
    ]
    assert "compared in gymnasium, hooks, isolation" in report.findings[1].message


def test_words_that_judge_nobody_are_no_leak() -> None:
    assert check_env(Wordy, actions=("forward",)).findings == ()


def test_what_depends_on_the_order_of_a_set_is_found_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unordered_worlds.py").write_text(
        "from agentrl.testing import WordWorld\n"
        "class Unordered(WordWorld):\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        text, info = super().reset(seed=seed, options=options)\n"
        "        return text + ' '.join({'lamp', 'mug', 'key', 'bun', 'tea'}), info\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    report = check_env("unordered_worlds:Unordered", processes=True, tasks=[("train", 0)])
    assert [finding.check for finding in report.errors] == ["processes"], str(report)
    assert "train/0, in another process: observation after 0 actions" in report.errors[0].message


def test_a_world_that_cannot_be_sent_away_is_noted() -> None:
    class Local(Corridor):
        """No other process can import it."""

    (note,) = check_env(Local, actions=("forward",), processes=True).findings
    assert (note.severity, note.check) == ("note", "processes")


def test_a_failed_report_raises_all_its_errors() -> None:
    report = check_env(Telling, actions=["forward"])
    with pytest.raises(
        CheckError, match=r": 1 error \(15 checks\)\n  error: \[gold\].*\(and 2 more like it\)"
    ):
        report.raise_if_failed()


@tool
def double(number: int) -> str:
    """Double a number.

    Args:
        number: what to double
    """
    if number < 0:
        raise ValueError("it is negative")
    return str(2 * number)


@tool
def roll() -> str:
    """Roll dice."""
    return str(random.random())


def test_a_good_tool_passes() -> None:
    report = check_tool(double, arguments=[{"number": 2}])
    assert (report.findings, len(report.checks)) == ((), 4)


def test_a_tool_that_was_not_executed_is_noted() -> None:
    assert [(f.severity, f.check) for f in check_tool(double).findings] == [("note", "calls")]


def test_tool_faults_are_found() -> None:
    failed = check_tool(double, arguments=[{"number": -1}])
    assert "it is negative" in failed.errors[0].message
    rolled = check_tool(roll)
    assert [(f.severity, f.check) for f in rolled.findings] == [
        ("warning", "calls"),
        ("error", "global_random"),
    ]


def test_check_tool_takes_one_tool() -> None:
    with pytest.raises(CheckError, match=r"has 0 \(none\)"):
        check_tool(len)


def outcomes(env: TextEnv, steps: int) -> list[str]:
    seen = []
    for _ in range(steps):
        try:
            env.step("back")
            seen.append("ok")
        except (RuntimeError, EnvironmentFault) as error:
            seen.append(type(error).__name__)
    return seen


def faulty(p: float, kinds: Sequence[str], seed: int = 0, **settings: float) -> FaultyEnv:
    faults = Faults(0.0, kinds, seed, **settings)  # type: ignore[arg-type]  # kinds are literals
    env = FaultyEnv(Corridor(), faults=faults)
    env.reset(seed=1)
    faults.p = p
    return env


def test_faults_strike_as_often_as_asked_and_repeat() -> None:
    first, again = (outcomes(faulty(0.3, ["raise", "fault"], seed=4), 300) for _ in range(2))
    assert first == again
    assert set(first) == {"ok", "RuntimeError", "EnvironmentFault"}
    # 300 draws at 0.3: 90 expected, standard deviation 8.
    assert 55 < 300 - first.count("ok") < 125
    assert outcomes(faulty(0.0, ["raise"]), 20) == ["ok"] * 20


def test_without_faults_the_wrapper_is_the_world() -> None:
    report = check_env(lambda: FaultyEnv(Corridor(), p=0.0), actions=["forward"])
    assert report.errors == (), str(report)


async def test_a_hang_can_be_released() -> None:
    env = faulty(1.0, ["hang"])
    waiting = asyncio.create_task(asyncio.to_thread(env.step, "back"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    env.faults.release()
    assert (await asyncio.wait_for(waiting, 5))[0].startswith("Task")
    assert env.faults.count == 1


def test_slow_calls_take_their_time() -> None:
    env = faulty(1.0, ["slow"], slow_seconds=0.05)
    begin = time.perf_counter()
    env.step("back")
    assert time.perf_counter() - begin >= 0.05


def test_impossible_faults_are_refused() -> None:
    with pytest.raises(CheckError, match=r"p must be within \[0, 1\]"):
        Faults(1.5)


def test_a_faulty_tool_fails_as_the_tool_would() -> None:
    parsed = Parsed("", (Call("double", "2"),))
    with pytest.raises(EnvironmentFault, match="injected fault of double"):
        Toolbox([FaultyTool(double, p=1.0, kinds=["fault"])]).run(parsed)
    assert Toolbox([FaultyTool(double, p=0.0)]).run(parsed).text == "4"

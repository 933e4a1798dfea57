"""Rollouts that go wrong: deadlines, faults, replays, and the bias of what is left out."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
import torch

from agentrl.errors import EnvironmentFault, PolicyError, RolloutError
from agentrl.policy.base import Request, Sample
from agentrl.policy.hf import HfPolicy
from agentrl.policy.scripted import RandomPolicy, ScriptedPolicy
from agentrl.rollout import (
    Stock,
    check_invalid_share,
    collect,
    complete_groups,
)
from agentrl.rollout.deadline import Patience
from agentrl.testing import Faults, FaultyEnv, WordWorld
from agentrl.trajectory import (
    Invalid,
    InvalidReason,
    StopReason,
    Trajectory,
    same,
)
from agentrl.world import AsyncTextEnv
from tests.agentrl.rollouts import groups, play, small_model, small_renderer, timeless, valid

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    from agentrl.policy.render import Markup, Renderer
    from agentrl.rollout.stage import AnyEnv
    from agentrl.world import StepResult

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def renderer() -> Markup:
    return small_renderer()


@pytest.fixture(scope="module")
def model(renderer: Markup) -> PreTrainedModel:
    return small_model(renderer)


# -- deadlines ---------------------------------------------------------------------------------------------


class Sleeper(WordWorld):
    blocks: bool = True
    woken: ClassVar[threading.Event] = threading.Event()

    def step(self, action: str) -> StepResult:
        if self.task.index == 0:
            self.woken.wait(60)
        return super().step(action)


class StubbornAsync(AsyncTextEnv):
    """Sleeps in `step`; ignores that it is cancelled if asked to."""

    stubborn = False

    async def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        self.index = (options or {}).get("index")
        return "Say lamp.", {}

    async def step(self, action: str) -> StepResult:
        while self.index == 0:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise
        return "It is over.", 1.0, True, False, {"success": True}


class Stubborn(StubbornAsync):
    stubborn = True


@pytest.mark.parametrize("world", [Sleeper, StubbornAsync, Stubborn])
def test_a_hanging_world_is_a_wall_clock_failure_and_holds_nobody_up(world: Callable[[], AnyEnv]) -> None:
    began = time.monotonic()
    policy = ScriptedPolicy(["lamp"] * 9)
    results = collect(Stock(world), play(policy, step_seconds=0.1), groups(3, 8), concurrency=4)
    assert time.monotonic() - began < 10
    for item in results:
        if item.task == "train/0":
            assert isinstance(item, Invalid)
            assert item.reason is InvalidReason.WALL_CLOCK
            assert "0.1 s" in item.detail
        else:
            assert isinstance(item, Trajectory)
    Sleeper.woken.set()


def test_a_trajectory_has_a_bound_of_its_own() -> None:
    world = play(ScriptedPolicy(["lamp"] * 9), step_seconds=50.0, trajectory_seconds=0.1)
    Sleeper.woken.clear()
    for make in (Sleeper, Stubborn):
        (item,) = collect(Stock(make), world, groups(1, 1), retries=0)
        assert isinstance(item, Invalid)
        assert item.reason is InvalidReason.WALL_CLOCK
    Sleeper.woken.set()


@dataclass(eq=False)
class Moody:
    """A policy that does one thing at turn 1 of task 0 and says "lamp" otherwise."""

    act: Callable[[], object]
    name: str = "moody"
    renderer: Renderer | None = None
    finished: list[str] = field(default_factory=list)

    async def generate(self, request: Request) -> Sample:
        if request.turn == 1 and ":train/0:" in request.trajectory:
            outcome = self.act()
            if asyncio.iscoroutine(outcome):
                await outcome
            if isinstance(outcome, Sample):
                return outcome
        return Sample("lamp")

    def finish(self, trajectory: str) -> None:
        self.finished.append(trajectory)


def fail(error: Exception) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


def test_a_policy_that_never_answers_is_a_wall_clock_failure() -> None:
    policy = Moody(lambda: asyncio.sleep(60))
    results = collect(Stock(WordWorld), play(policy, step_seconds=0.1), groups(2, 2))
    assert [type(item) for item in results] == [Invalid, Invalid, Trajectory, Trajectory]
    assert isinstance(results[0], Invalid)
    assert results[0].reason is InvalidReason.WALL_CLOCK
    assert (results[0].turns_done, "policy" in results[0].detail) == (1, True)
    # Retried once under another name; each name was finished, so caches are freed.
    assert sorted(policy.finished) == sorted(
        [f"0:train/0:{m}{a}" for m in (0, 1) for a in ("", "~1")] + ["0:train/1:0", "0:train/1:1"]
    )


async def shrug() -> None:
    """Wait, and go on although it is cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)


def test_a_policy_that_answers_after_its_time_was_up_is_late_nevertheless() -> None:
    (item,) = collect(Stock(WordWorld), play(Moody(shrug), step_seconds=0.1), groups(1, 1), retries=0)
    assert isinstance(item, Invalid)
    assert (item.reason, item.turns_done) == (InvalidReason.WALL_CLOCK, 1)


class PausedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still until somebody sets it."""

    now = 0.0

    def time(self) -> float:
        return self.now


def test_each_of_many_waits_has_its_own_time_although_one_timer_looks_after_them() -> None:
    loop = PausedLoop()
    late: list[bool] = []

    async def work() -> None:
        async with asyncio.timeout(None) as scope:
            patience = Patience(scope, 10.0)
            for moment in (0.0, 6.0, 12.0):  # together longer than the bound of each
                loop.now = moment
                with patience:
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                late.append(patience.late)
            with patience:
                loop.now = 23.0
                await asyncio.sleep(60)

    with contextlib.closing(loop), pytest.raises(TimeoutError):
        loop.run_until_complete(work())
    assert late == [False, False, False]


@pytest.mark.parametrize(
    "error", [TimeoutError("their own"), ConnectionError("refused"), RuntimeError("cuda"), ValueError("x")]
)
def test_infrastructure_of_the_policy_is_contained(error: Exception) -> None:
    results = collect(Stock(WordWorld), play(Moody(fail(error))), groups(2, 1))
    assert isinstance(results[0], Invalid)
    assert results[0].reason is InvalidReason.POLICY_ERROR
    assert str(error) in results[0].detail
    assert isinstance(results[1], Trajectory)


def test_a_wrong_programme_raises() -> None:
    with pytest.raises(PolicyError, match="script of 1 turns"):
        collect(Stock(WordWorld), play(ScriptedPolicy(["lamp"])), groups(2, 2))
    with pytest.raises(KeyError):
        collect(Stock(WordWorld), play(Moody(fail(KeyError("typo")))), groups(2, 2))


@pytest.mark.parametrize(
    ("sample", "word"),
    [
        (Sample("lamp", np.array([5], np.int32), np.array([np.nan], np.float32)), "not finite"),
        (Sample("lamp", np.array([5], np.int32), np.array([-np.inf], np.float32)), "not finite"),
        (Sample("lamp", np.array([5], np.int32), None), "one log-probability for each"),
        (Sample("lamp", finish="invalid"), "not finite"),
    ],
)
def test_samples_without_usable_numbers_are_no_trajectory(sample: Sample, word: str) -> None:
    results = collect(Stock(WordWorld), play(Moody(lambda: sample)), groups(2, 1))
    assert isinstance(results[0], Invalid)
    assert results[0].reason is InvalidReason.POLICY_ERROR
    assert word in results[0].detail


def test_a_cancelled_turn_leaves_the_engine_usable(renderer: Markup, model: PreTrainedModel) -> None:
    policy = HfPolicy(model, renderer, slots=2, context=128)
    world = play(policy, turn_tokens=60, trajectory_seconds=1e-4)
    failed = collect(Stock(WordWorld), world, groups(2, 2), retries=0)
    assert {type(item) for item in failed} == {Invalid}
    again = valid(collect(Stock(WordWorld), play(policy, turn_tokens=4), groups(2, 2)))
    fresh = HfPolicy(model, renderer, slots=2, context=128)
    expected = valid(collect(Stock(WordWorld), play(fresh, turn_tokens=4), groups(2, 2)))
    assert all(same(timeless(a), timeless(b)) for a, b in zip(again, expected, strict=True))
    assert policy.engine.idle
    assert not policy._waiting


# -- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["raise", "fault"])
@pytest.mark.parametrize("p", [0.05, 0.5, 1.0])
def test_faults_touch_no_other_trajectory(p: float, kind: str) -> None:
    assignments = groups(12, 4)
    world = play(RandomPolicy())
    clean = collect(Stock(WordWorld), world, assignments)
    faults = Faults(p, (kind,), seed=3)  # type: ignore[arg-type]  # one of the kinds
    results = collect(Stock(lambda: FaultyEnv(WordWorld(), faults=faults)), world, assignments, retries=1)
    assert [(item.group, item.member) for item in results] == [(a.group, a.member) for a in assignments]
    good = [(a, b) for a, b in zip(clean, results, strict=True) if isinstance(b, Trajectory)]
    assert all(same(timeless(a), timeless(b)) for a, b in good)
    assert faults.count > 0
    assert (len(good) == 0) if p == 1 else (len(good) > 0)
    if p == 0.05:
        assert len(good) >= 44  # one replay and one retry each: hardly anything is lost
    harvest = complete_groups(results)
    failed = {item.group for item in harvest.invalid}
    assert len(harvest.trajectories) + len(harvest.invalid) + harvest.dropped == len(assignments)
    assert all(item.group not in failed for item in harvest.trajectories)
    if p == 1:
        reason = InvalidReason.ENVIRONMENT_ERROR if kind == "raise" else InvalidReason.ENVIRONMENT_FAULT
        assert {item.reason for item in harvest.invalid} == {reason}
        with pytest.raises(RolloutError, match=r"100% of the rollouts failed.*10%.*48x.*injected.*resumable"):
            check_invalid_share(harvest, 0.1)


class Counting(WordWorld):
    """Fails at its second step as often as `left` says; counts what was made, reset, stepped and closed."""

    left = 0
    error: ClassVar[Exception] = RuntimeError("boom")
    log: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.log.append("make")

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        self.log.append("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action: str) -> StepResult:
        self.log.append("step")
        if self.turn == 1 and type(self).left > 0:
            type(self).left -= 1
            raise self.error
        return super().step(action)

    def close(self) -> None:
        self.log.append("close")


@pytest.mark.parametrize(
    ("failures", "error", "reason", "log"),
    [
        # A replay in a fresh environment, and on it goes.
        (1, RuntimeError("boom"), None, "make reset step step close make reset step step step"),
        # The same actions failed again: a bug of the environment on these actions, not retried.
        (2, RuntimeError("boom"), InvalidReason.ENVIRONMENT_ERROR,
         "make reset step step close make reset step step close"),
        # Infrastructure says so itself: retried, which replays once as well.
        (2, EnvironmentFault("server"), None,
         "make reset step step close make reset step step close make reset step step step"),
        (4, EnvironmentFault("server"), InvalidReason.ENVIRONMENT_FAULT, " ".join(
            ["make reset step step close"] * 4)),
    ],
)  # fmt: skip
def test_replay_once_then_retry(
    failures: int, error: Exception, reason: InvalidReason | None, log: str
) -> None:
    Counting.left, Counting.error = failures, error
    Counting.log.clear()
    stock = Stock(Counting)
    (item,) = collect(stock, play(ScriptedPolicy(["lamp"] * 3)), groups(1, 1))
    assert (item.reason if isinstance(item, Invalid) else None) is reason
    assert " ".join(Counting.log) == log
    assert len(stock.idle) == (reason is None)
    (reference,) = collect(Stock(WordWorld), play(ScriptedPolicy(["lamp"] * 3)), groups(1, 1))
    if reason is None:
        assert same(timeless(item), timeless(reference))


def test_a_world_that_draws_elsewhere_is_found_out_by_its_replay() -> None:
    class Random(Counting):
        def _show(self) -> str:
            return f"Say {len(self.log)}."

    Random.left, Random.error = 1, RuntimeError("boom")
    (item,) = collect(Stock(Random), play(ScriptedPolicy(["lamp"] * 3)), groups(1, 1))
    assert isinstance(item, Invalid)
    assert item.reason is InvalidReason.ENVIRONMENT_ERROR
    assert "not deterministic" in item.detail


GOOD: StepResult = ("Say lamp.", 0.0, False, False, {})


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (("Say lamp.", 0.0, False, {}), "returned (str, float, bool, dict); return"),
        ((7, 0.0, False, False, {}), "return a text"),
        (("x", "1.0", False, False, {}), "return a number"),
        (("x", float("nan"), False, False, {}), "finite"),
        (("x", 0.0, None, False, {}), "no boolean"),
        (("x", 0.0, False, False, ["a"]), "list"),
        (("x", 0.0, False, False, {"turn_kind": "odd"}), "odd"),
        (("x", 0.0, False, False, {"rewards": {"a": float("inf")}}), "finite"),
        (("x", 0.0, False, False, {"metrics": 3}), "names with numbers"),
        (("x", 0.0, False, False, {"tool_calls": ["search"]}), "tuple of ToolCall"),
    ],
)
def test_what_a_world_returns_is_checked_at_the_door(result: object, word: str) -> None:
    class Wrong(WordWorld):
        def step(self, action: str) -> StepResult:
            super().step(action)
            return result if self.task.index == 0 else GOOD  # type: ignore[return-value]  # on purpose

    results = collect(Stock(Wrong), play(ScriptedPolicy(["lamp"] * 30), turns=3), groups(2, 1))
    assert isinstance(results[0], Invalid)
    assert results[0].reason is InvalidReason.ENVIRONMENT_ERROR
    assert word in results[0].detail
    assert isinstance(results[1], Trajectory)


@pytest.mark.parametrize("hook", ["observation_key", "state_key", "admissible", "system_text"])
def test_a_hook_that_raises_costs_its_own_trajectory_only(hook: str) -> None:
    def broken(self: WordWorld) -> object:
        if self.task.index == 0:
            raise KeyError("left out")
        return getattr(WordWorld, hook)(self)

    class Broken(WordWorld):
        pass

    setattr(Broken, hook, broken)
    results = collect(Stock(Broken), play(RandomPolicy()), groups(2, 1))
    assert isinstance(results[0], Invalid)
    assert (results[0].reason, hook in results[0].detail) == (InvalidReason.ENVIRONMENT_ERROR, True)
    assert isinstance(results[1], Trajectory)


def test_dropping_groups_leaves_the_mean_where_it_is() -> None:
    # Members succeed with probability p; the environment fails with probability q on a step of a success and
    # never on a failure. Leaving out single failures would estimate p (1 - q) / (1 - p q); groups of which
    # all members are kept only when none failed are biased too, but failures independent of the outcome are
    # not: there the mean over complete groups is p.
    rng = np.random.default_rng(0)
    p, q, members, count = 0.3, 0.15, 4, 4000
    results: list[Trajectory | Invalid] = []
    for group in range(count):
        for member in range(members):
            if rng.random() < q:
                results.append(Invalid(InvalidReason.ENVIRONMENT_FAULT, "", "e", "t", f"{group}", member))
                continue
            success = bool(rng.random() < p)
            results.append(
                Trajectory("a", "e", "t", f"{group}", (), StopReason.TERMINATED, member, success=success)
            )
    harvest = complete_groups(results)
    mean = float(np.mean([bool(item.success) for item in harvest.trajectories]))
    kept = len(harvest.trajectories) / members / count
    assert abs(kept - (1 - q) ** members) < 4 * 0.008  # sqrt(0.52 * 0.48 / 4000) = 0.0079
    assert abs(mean - p) < 4 * 0.005  # sqrt(0.3 * 0.7 / 8352) = 0.0050
    # The spread within groups is that of whole groups, p (1 - p) (unbiased), never of thinned ones.
    by_group: dict[str, list[float]] = {}
    for item in harvest.trajectories:
        by_group.setdefault(item.group, []).append(float(bool(item.success)))
    assert {len(rewards) for rewards in by_group.values()} == {members}
    variance = float(np.mean([np.var(rewards, ddof=1) for rewards in by_group.values()]))
    assert abs(variance - p * (1 - p)) < 0.01


def test_environments_are_used_again_and_closed_in_the_end() -> None:
    Counting.left = 0
    Counting.log.clear()
    stock = Stock(Counting)
    collect(stock, play(ScriptedPolicy(["lamp"] * 3)), groups(5, 2), concurrency=2)
    stock.close()
    assert Counting.log.count("make") == Counting.log.count("close") <= 2

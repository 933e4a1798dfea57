"""Branches: they share their parent's turns and state exactly, and grow the same trees every time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch

from agentrl.errors import EnvironmentFault, RolloutError
from agentrl.plan import BalancedForks, EntropyForks, Expand, MonteCarlo, Segments, Window
from agentrl.policy.base import Sampling
from agentrl.policy.hf import HfPolicy
from agentrl.policy.scripted import RandomPolicy
from agentrl.rollout import Play, Stock, collect
from agentrl.rollout.branch import Fork
from agentrl.testing import WordWorld
from agentrl.trajectory import Invalid, InvalidReason, Trajectory, digest, same
from agentrl.trajectory.builder import stream_tokens
from agentrl.trajectory.pack import pack, unpack
from tests.agentrl.rollouts import groups, play, small_model, small_renderer, timeless, valid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentrl.rollout.branch import Brancher, Growth
    from agentrl.world import StepResult

torch.set_num_threads(1)

TURNS, MEMBERS = 5, 6


class Echo(WordWorld):
    """A world in which everything that was said stays: later observations tell one past from another."""

    def __init__(self) -> None:
        super().__init__(length=TURNS)
        self.said: tuple[str, ...] = ()

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        self.said = ()
        return super().reset(seed=seed, options=options)

    def step(self, action: str) -> StepResult:
        self.said = (*self.said, action)
        observation, reward, terminated, truncated, info = super().step(action)
        return f"{observation} {digest(self.said) % 1000}", reward, terminated, truncated, info


BRANCHERS: dict[str, Brancher] = {
    "entropy": EntropyForks(chance=0.6),
    "balanced": BalancedForks(),
    "expand": Expand(trees=2, nodes=1),
    "segments": Segments(turns=2),
    "monte_carlo": MonteCarlo(samples=2),
}
EVERY = pytest.mark.parametrize("name", BRANCHERS)


@pytest.fixture(scope="module")
def policy() -> HfPolicy:
    renderer = small_renderer()
    return HfPolicy(small_model(renderer), renderer, slots=8, context=256)


def branching(policy: HfPolicy, brancher: Brancher, **changes: object) -> Play:
    drawn = Sampling(max_tokens=6, entropy=True)
    return replace(play(policy, turn_tokens=6), sampling=drawn, brancher=brancher, **changes)  # type: ignore[arg-type]  # a test's keywords


def grown(
    play_: Play, world: type[WordWorld] = Echo, count: int = 3, concurrency: int = 64
) -> list[Trajectory]:
    stock = Stock(world)
    return valid(collect(stock, play_, groups(count, MEMBERS), concurrency=concurrency))


def told(found: Sequence[Trajectory]) -> list[object]:
    """All but times and the last bits of log-probabilities, which depend on who shares a forward pass."""
    bare = [timeless(item) for item in found]
    return [
        replace(item, turns=tuple(replace(turn, logprobs=None, token_measures={}) for turn in item.turns))
        for item in bare
        if isinstance(item, Trajectory)
    ]


def equal(left: Sequence[Trajectory], right: Sequence[Trajectory]) -> bool:
    return same(told(left), told(right))


@EVERY
def test_a_branch_shares_turns_and_state_with_its_parent(policy: HfPolicy, name: str) -> None:
    found = grown(branching(policy, BRANCHERS[name]))
    by_id = {item.id: item for item in found}
    assert [item.member for item in found] == list(range(MEMBERS)) * 3
    branches = [item for item in found if item.parent is not None]
    assert branches
    for branch in branches:
        parent, turn = by_id[cast("str", branch.parent)], cast("int", branch.branch_turn)
        assert branch.group == parent.group
        assert same(branch.turns[:turn], parent.turns[:turn])
        assert branch.turns[turn].observation == parent.turns[turn].observation
        assert np.array_equal(branch.turns[turn].prompt_tokens, parent.turns[turn].prompt_tokens)
        # The world went on from the parent's state: playing the branch's actions from the start agrees.
        env = Echo()
        split, index = branch.task.split("/")
        env.reset(seed=branch.seed, options={"split": split, "index": int(index)})
        assert [env.step(step.action)[0] for step in branch.turns] == [
            *(step.observation for step in branch.turns[1:]), branch.final_observation,
        ]  # fmt: skip
    assert len({tuple(stream_tokens(item)[0].tolist()) for item in found}) == len(found)


@EVERY
def test_logprobs_of_a_branch_are_those_of_its_whole_stream(policy: HfPolicy, name: str) -> None:
    for item in grown(branching(policy, BRANCHERS[name]), count=1):
        (stream,) = stream_tokens(item)
        with torch.no_grad():
            logits = policy.model(input_ids=torch.from_numpy(stream.astype(np.int64))[None]).logits[0]
        every = torch.log_softmax(logits.double(), -1)
        place = 0
        for turn in item.turns:
            assert turn.tokens is not None and turn.logprobs is not None  # noqa: PT018  # narrows both
            place += len(turn.prompt_tokens)
            for token, logprob, entropy in zip(
                turn.tokens.tolist(), turn.logprobs, turn.token_measures["entropy"], strict=True
            ):
                said = every[place - 1]
                assert float(said[token]) == pytest.approx(float(logprob), abs=2e-5)
                assert float(-(said.exp() * said).sum()) == pytest.approx(float(entropy), abs=2e-5)
                place += 1


@EVERY
def test_the_same_trees_grow_whatever_the_order_of_events(policy: HfPolicy, name: str) -> None:
    first = grown(branching(policy, BRANCHERS[name]))
    again = grown(branching(policy, BRANCHERS[name]), concurrency=2)
    assert equal(first, again)


def test_packed_trees_are_unpacked_as_they_were(policy: HfPolicy) -> None:
    found = grown(branching(policy, Expand()))
    assert same(unpack(pack(found)), found)


def test_branches_of_windows_are_exact_too(policy: HfPolicy) -> None:
    found = grown(branching(policy, Segments(), memory=Window(1)))
    by_id = {item.id: item for item in found}
    for branch in (item for item in found if item.parent is not None):
        turn = cast("int", branch.branch_turn)
        ours, theirs = branch.turns[turn], by_id[cast("str", branch.parent)].turns[turn]
        assert (ours.fresh, ours.prompt_tokens.tolist()) == (theirs.fresh, theirs.prompt_tokens.tolist())
    assert any(turn.fresh for item in found for turn in item.turns)


# -- snapshots that are lost, and faults -------------------------------------------------------------------


class Lost(Echo):
    def restore(self, state: object) -> None:
        raise RuntimeError("the snapshot is gone")


class Unmarked(Echo):
    def snapshot(self) -> object:
        raise NotImplementedError


class Fickle(Lost):
    resets = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        Fickle.resets += 1
        return super().reset(seed=(seed or 0) + Fickle.resets, options=options)


class FaultyOnce(Echo):
    """Fails in the fourth turn of branches only: of worlds that were restored."""

    failed = 0
    restored = False

    def restore(self, state: object) -> None:
        super().restore(state)
        self.restored = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        self.restored = False
        return super().reset(seed=seed, options=options)

    def step(self, action: str) -> StepResult:
        if self.restored and self.turn == 3:
            FaultyOnce.failed += 1
            raise EnvironmentFault("the cable came loose")
        return super().step(action)


@pytest.mark.parametrize("world", [Lost, Unmarked])
def test_without_a_snapshot_the_actions_are_replayed(policy: HfPolicy, world: type[WordWorld]) -> None:
    expected = grown(branching(policy, Segments()))
    assert equal(grown(branching(policy, Segments()), world), expected)


def test_a_fault_in_a_branch_replays_the_parents_actions_too(policy: HfPolicy) -> None:
    found = grown(branching(policy, Segments()), FaultyOnce)
    assert FaultyOnce.failed
    assert equal(found, grown(branching(policy, Segments())))


def test_a_world_that_does_not_repeat_itself_cannot_branch_by_replay(policy: HfPolicy) -> None:
    Fickle.resets = 0
    results = collect(Stock(Fickle), branching(policy, Segments()), groups(1, MEMBERS))
    failed = [item for item in results if isinstance(item, Invalid)]
    assert failed
    assert failed[0].reason is InvalidReason.ENVIRONMENT_ERROR
    assert "not deterministic" in failed[0].detail
    assert len(results) < MEMBERS  # nothing is spent on a group that will be dropped


def test_text_policies_branch_too() -> None:
    found = valid(collect(Stock(Echo), replace(play(RandomPolicy()), brancher=Expand()), groups(2, MEMBERS)))
    for branch in (item for item in found if item.parent is not None):
        parent = next(item for item in found if item.id == branch.parent)
        assert same(branch.turns[: branch.branch_turn], parent.turns[: branch.branch_turn])


# -- mistakes of branchers ---------------------------------------------------------------------------------


def beyond(growth: Growth, /) -> Sequence[Fork]:
    return (Fork(),) if not growth.grown else (Fork(0, 99),)


def greedy(growth: Growth, /) -> Sequence[Fork]:
    return (Fork(),) * (growth.room + 1)


@pytest.mark.parametrize(
    ("brancher", "said"), [(beyond, "before turn 99 of member 0"), (greedy, "room for 6")]
)
def test_a_wrong_brancher_is_told_so(brancher: Brancher, said: str) -> None:
    with pytest.raises(RolloutError, match=said):
        collect(Stock(Echo), replace(play(RandomPolicy()), brancher=brancher), groups(1, MEMBERS))

"""What must hold for every batch: order, shifts, scales and sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from agentrl.credit.advantage import (
    AcrossBatch,
    MeanAbsolute,
    Relative,
    Return,
    Std,
    mean,
    median,
    one,
    others_mean,
)
from agentrl.credit.anchors import anchor_statistics
from agentrl.credit.keep import keep_all, mixed_groups
from agentrl.credit.peers import same_observation, same_state, same_turn
from agentrl.trajectory.batch import Batch

if TYPE_CHECKING:
    from agentrl.credit.compose import Advantage

PARTS: list[Advantage] = [
    Relative(),
    Relative(scale=one),
    Relative(center=others_mean, scale=one),
    Relative(center=median, scale=MeanAbsolute()),
    Relative(scale=AcrossBatch()),
    Relative(per="turn"),
    Relative(Return(0.9), same_state, per="turn"),
    Relative(Return(0.9), same_observation),
    Relative(Return(), same_turn, scale=one),
    Relative(scale=one) + 0.5 * Relative(Return(0.95), same_state, scale=one, per="turn"),
]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """A ragged batch; rewards are multiples of 1/4, so that sums are exact in any order."""
    group = draw(st.lists(st.integers(0, 2), min_size=1, max_size=8))
    turns = draw(st.lists(st.integers(0, 5), min_size=len(group), max_size=len(group)))
    total = sum(turns)
    reward = draw(st.lists(st.integers(-8, 8), min_size=total, max_size=total))
    keys = draw(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=total, max_size=total))
    return Batch.from_arrays(
        group=np.array(group, np.int64), turns_per_trajectory=turns, reward=np.array(reward, np.float32) / 4,
        observation_key=keys, state_key=keys,
    )  # fmt: skip


def credit(part: Advantage, batch: Batch) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    reward = batch.reward.astype(np.float64)
    return np.asarray(part(batch, reward, keep_all(batch, reward)))


@given(batches(), st.randoms(use_true_random=False))
@pytest.mark.parametrize("part", PARTS)
def test_order_of_trajectories_does_not_matter(part: Advantage, batch: Batch, random: object) -> None:
    order = np.arange(batch.num_trajectories)
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    rows = [s for e in order for s in range(batch.turn_start[e], batch.turn_start[e + 1])]
    assert_allclose(credit(part, batch.select(order)), credit(part, batch)[np.array(rows, int)], atol=1e-9)


@given(batches(), st.integers(-5, 5))
@pytest.mark.parametrize("part", PARTS[:5])
def test_a_constant_for_every_episode_changes_nothing(part: Advantage, batch: Batch, shift: int) -> None:
    reward = batch.reward.astype(np.float64)
    has_turns = batch.turns_per_trajectory > 0
    shifted = reward.copy()
    shifted[batch.turn_start[1:][has_turns] - 1] += shift
    kept = keep_all(batch, reward)
    assert_allclose(part(batch, shifted, kept), part(batch, reward, kept), atol=1e-9)


@given(batches(), st.floats(0.5, 4.0))
def test_scale_of_rewards_cancels(batch: Batch, factor: float) -> None:
    reward = batch.reward.astype(np.float64)
    kept = keep_all(batch, reward)
    part = Relative(scale=Std(eps=0.0, min_std=1e-9))
    assert_allclose(part(batch, factor * reward, kept), part(batch, reward, kept), atol=1e-9)


@given(batches())
@pytest.mark.parametrize("part", PARTS[:3])
def test_each_group_sums_to_zero_over_trajectories(part: Advantage, batch: Batch) -> None:
    has_turns = batch.turns_per_trajectory > 0
    first = credit(part, batch)[batch.turn_start[:-1][has_turns]]
    sums = np.bincount(batch.group[has_turns], first, 3)
    assert_allclose(sums, np.zeros(3), atol=1e-6)


@given(batches())
def test_each_anchor_group_sums_to_zero_over_turns(batch: Batch) -> None:
    part = Relative(Return(0.9), same_state, mean, one, per="turn")
    assert credit(part, batch).sum() == pytest.approx(0.0, abs=1e-6)


@given(batches())
def test_leave_one_out_is_the_mean_times_n_over_n_minus_one(batch: Batch) -> None:
    size = np.bincount(batch.group[batch.turns_per_trajectory > 0], minlength=3)[batch.group_of_turn]
    factor = size / np.maximum(size - 1, 1)
    expected = credit(Relative(scale=one), batch) * factor
    assert_allclose(credit(Relative(center=others_mean, scale=one), batch), expected, atol=1e-9)


@given(batches())
def test_mixed_groups_keep_exactly_the_signal(batch: Batch) -> None:
    reward = batch.reward.astype(np.float64)
    dropped = ~mixed_groups(batch, reward).loss
    assert_allclose(credit(Relative(scale=one), batch)[dropped], 0.0, atol=1e-9)


@given(batches())
def test_anchor_shares_are_shares(batch: Batch) -> None:
    statistics = anchor_statistics(batch, same_state)
    assert 0 <= statistics.shared <= 1
    assert 0 <= statistics.largest <= 1
    assert statistics.shared + statistics.keyless <= 1 + 1e-12

"""Advantages against numbers derived by hand, most of them the worked example of verl-agent's own code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from numpy.testing import assert_allclose

from agentrl import recipes
from agentrl.credit.advantage import (
    AcrossBatch,
    MeanAbsolute,
    PlusRow,
    Relative,
    Return,
    Scale,
    Std,
    episode_total,
    median,
    nothing,
    one,
    others_mean,
    over_past_mean,
    turn_reward,
)
from agentrl.credit.keep import Kept, keep_all
from agentrl.credit.ledger import PAST_MEAN
from agentrl.credit.peers import everyone, same_observation, same_state, same_task, same_turn
from agentrl.credit.reward import InvalidPenalty
from agentrl.errors import AlgorithmError, MissingColumnError
from agentrl.learn.schedule import Linear
from agentrl.trajectory.batch import Batch

if TYPE_CHECKING:
    from agentrl.credit.compose import Advantage
    from agentrl.credit.part import Schedule


def credit(part: Advantage, batch: Batch, kept: Kept | None = None) -> list[float]:
    reward = batch.reward.astype(np.float64)
    advantage: list[float] = part(batch, reward, kept or keep_all(batch, reward)).tolist()
    return advantage


@pytest.fixture
def worked() -> Batch:
    """A: s0 s1 s2, rewards 0 0 10. B: s0 s1 s1, rewards 0 0 0, last one refused. C: s0, reward 10."""
    return Batch.from_arrays(
        group=[0, 0, 0],
        turns_per_trajectory=[3, 3, 1],
        reward=[0, 0, 10, 0, 0, 0, 10],
        valid=[True, True, True, True, True, False, True],
        observation_key=["s0", "s1", "s2", "s0", "s1", "s1", "s0"],
    )


def episode(scale: Scale, per: Literal["trajectory", "turn"]) -> Relative:
    return Relative(PlusRow(episode_total, InvalidPenalty(0.1)), scale=scale, per=per, lone="raw")


def step(scale: Scale) -> Relative:
    target = PlusRow(Return(0.95), InvalidPenalty(0.1))
    return Relative(target, same_observation, scale=scale, per="turn")


class TestWorkedExample:
    def test_returns(self, worked: Batch) -> None:
        # A: 10, .95 * 10, .95^2 * 10. B's refused row falls by .1 and its earlier rows do not.
        target = PlusRow(Return(0.95), InvalidPenalty(0.1))
        assert_allclose(target(worked, worked.reward.astype(float)), [9.025, 9.5, 10, 0, 0, -0.1, 10])

    def test_episode_term_over_rows(self, worked: Batch) -> None:
        # Totals by row: 10 10 10 0 0 -.1 10; their mean is 39.9 / 7 = 5.7.
        expected = [4.3, 4.3, 4.3, -5.7, -5.7, -5.8, 4.3]
        assert_allclose(credit(episode(one, "turn"), worked), expected)

    def test_episode_term_over_trajectories(self, worked: Batch) -> None:
        # First rows: 10, 0, 10; mean 20 / 3. The refused row is compared with -.1.
        third = 10 / 3
        expected = [third, third, third, -2 * third, -2 * third, -0.1 - 2 * third, third]
        assert_allclose(credit(episode(one, "trajectory"), worked), expected)

    def test_step_term(self, worked: Batch) -> None:
        # s0: 9.025 0 10, mean 6.341667. s1: 9.5 0 -.1, mean 3.133333. s2 is alone.
        expected = [2.683333, 6.366667, 0, -6.341667, -3.133333, -3.233333, 3.658333]
        assert_allclose(credit(step(one), worked), expected, atol=1e-6)

    def test_sum_without_deviation(self, worked: Batch) -> None:
        expected = [6.983333, 10.666667, 4.3, -12.041667, -8.833333, -9.033333, 7.958333]
        assert_allclose(credit(episode(one, "turn") + 1.0 * step(one), worked), expected, atol=1e-6)

    def test_terms_with_deviation(self, worked: Batch) -> None:
        # Squares about 5.7: 4 * 4.3^2 + 2 * 5.7^2 + 5.8^2 = 172.58; sd = sqrt(172.58 / 6) = 5.36314.
        expected = [0.80177, 0.80177, 0.80177, -1.06281, -1.06281, -1.08145, 0.80177]
        assert_allclose(credit(episode(Std(), "turn"), worked), expected, atol=1e-5)
        expected = [0.48667, 1.15465, 0, -1.15018, -0.56826, -0.58639, 0.66351]
        assert_allclose(credit(step(Std()), worked), expected, atol=1e-5)

    def test_recipe_reproduces_upstream(self, worked: Batch) -> None:
        expected = [1.28844, 1.95642, 0.80177, -2.21299, -1.63107, -1.66785, 1.46527]
        assert_allclose(recipes.GIGPO_VERL_AGENT.credit(worked).advantage, expected, atol=1e-5)


class TestEdges:
    def test_single_row_is_raw_in_the_parity_setting_and_zero_by_default(self) -> None:
        batch = Batch.from_arrays(group=[0], turns_per_trajectory=[1], reward=[5], observation_key=["s"])
        assert credit(recipes.GIGPO_VERL_AGENT.advantage, batch) == [5.0]
        assert credit(recipes.GIGPO_OBSERVATION.advantage, batch) == [0.0]

    def test_one_trajectory_of_three_rows(self) -> None:
        batch = Batch.from_arrays(group=[0], turns_per_trajectory=[3], reward=[0, 0, 5])
        assert credit(Relative(scale=one, per="turn", lone="raw"), batch) == [0.0, 0.0, 0.0]
        assert credit(Relative(scale=one, per="trajectory", lone="raw"), batch) == [5.0, 5.0, 5.0]
        assert credit(Relative(scale=one), batch) == [0.0, 0.0, 0.0]

    @pytest.mark.parametrize("scale", [one, Std(), MeanAbsolute(), AcrossBatch()])
    def test_equal_rewards_give_zero(self, scale: Scale) -> None:
        batch = Batch.from_arrays(group=[0, 0, 0], turns_per_trajectory=[2, 1, 3], reward=[0, 1, 1, 0, 0, 1])
        assert_allclose(credit(Relative(scale=scale), batch), np.zeros(6), atol=1e-9)

    def test_no_repeated_state_leaves_the_episode_term(self) -> None:
        batch = Batch.from_arrays(
            group=[0, 0], turns_per_trajectory=[2, 1], reward=[0, 1, 0], state_key=["a", "b", "c"]
        )
        assert credit(recipes.GIGPO.advantage, batch) == credit(Relative(scale=one), batch)

    def test_the_same_state_in_two_groups_is_no_peer(self) -> None:
        batch = Batch.from_arrays(
            group=[0, 1], turns_per_trajectory=[1, 1], reward=[1, 0], state_key=["s", "s"]
        )
        assert credit(Relative(Return(), same_state, scale=one, per="turn"), batch) == [0.0, 0.0]

    def test_turns_without_a_key_are_alone(self) -> None:
        batch = Batch.from_arrays(
            group=[0, 0], turns_per_trajectory=[1, 1], reward=[1, 0], observation_key=[None, None]
        )
        assert credit(Relative(Return(), same_observation, scale=one, per="turn"), batch) == [0.0, 0.0]

    def test_penalties_alone_are_blown_up_unless_a_floor_stops_them(self) -> None:
        # Eight failures, one refused: mean -.0125, squares .00875, sd sqrt(.00875 / 7).
        # (-.1 + .0125) / (.0353553 + 1e-6) = -2.4748.
        batch = Batch.from_arrays(
            group=[0] * 8, turns_per_trajectory=[1] * 8, reward=[0] * 8, valid=[False] + [True] * 7
        )
        assert credit(episode(Std(), "turn"), batch)[0] == pytest.approx(-2.4748, abs=1e-4)
        assert credit(episode(Std(min_std=0.05), "turn"), batch) == [0.0] * 8

    def test_gamma_enters_only_the_step_term(self, worked: Batch) -> None:
        reward = worked.reward.astype(float)
        assert episode_total(worked, reward).tolist() == [10, 10, 10, 0, 0, 0, 10]
        assert Return(0.0)(worked, reward).tolist() == reward.tolist()
        assert Return(1.0)(worked, reward).tolist() == [10, 10, 10, 0, 0, 0, 10]

    def test_trajectory_outside_the_baseline_is_compared_with_those_inside(self) -> None:
        # SimpleTIR: scores 1 0 0 1, row 1 outside. Mean of 1 0 1 is 2/3, sd sqrt(1/3) = .57735.
        batch = Batch.from_arrays(group=[0] * 4, turns_per_trajectory=[1] * 4, reward=[1, 0, 0, 1])
        kept = Kept(np.ones(4, np.bool_), np.array([True, False, True, True]))
        expected = [0.57735, -1.15470, -1.15470, 0.57735]
        assert_allclose(credit(Relative(), batch, kept), expected, atol=1e-5)
        # A leave-one-out mean of one who is not in is the mean of all three.
        loo = credit(Relative(center=others_mean, scale=one), batch, kept)
        assert_allclose(loo, [0.5, -2 / 3, -1.0, 0.5])

    def test_empty_baseline_gives_zero(self) -> None:
        batch = Batch.from_arrays(group=[0, 0], turns_per_trajectory=[1, 1], reward=[1, 0])
        kept = Kept(np.ones(2, np.bool_), np.zeros(2, np.bool_))
        assert credit(Relative(), batch, kept) == [0.0, 0.0]
        assert credit(Relative(center=median), batch, kept) == [0.0, 0.0]

    def test_trajectory_without_turns_is_harmless(self) -> None:
        batch = Batch.from_arrays(group=[0, 0, 0], turns_per_trajectory=[1, 0, 1], reward=[1, 0])
        assert credit(Relative(scale=one), batch) == [0.5, -0.5]
        assert credit(Relative(Return(0.5), same_turn, scale=one), batch) == [0.5, -0.5]


class TestParts:
    def test_first_visit_counts_once_per_trajectory(self) -> None:
        # One state, trajectory 0 visits it twice (returns 1, 1), trajectory 1 once (0): mean .5, not 2/3.
        batch = Batch.from_arrays(
            group=[0, 0], turns_per_trajectory=[2, 1], reward=[0, 1, 0], state_key=["s", "s", "s"]
        )
        by_trajectory = Relative(Return(), same_state, scale=one)
        assert credit(by_trajectory, batch) == [0.5, 0.5, -0.5]
        assert_allclose(credit(replace(by_trajectory, per="turn"), batch), [1 / 3, 1 / 3, -2 / 3])

    def test_leave_one_out(self) -> None:
        # Totals 3 0 0: others' means 0, 1.5, 1.5.
        batch = Batch.from_arrays(group=[0] * 3, turns_per_trajectory=[2, 1, 1], reward=[1, 2, 0, 0])
        assert credit(recipes.RLOO.advantage, batch) == [3.0, 3.0, -1.5, -1.5]

    def test_median_of_odd_and_even_groups(self) -> None:
        batch = Batch.from_arrays(
            group=[0, 0, 0, 1, 1, 1, 1], turns_per_trajectory=[1] * 7, reward=[1, 5, 2, 0, 1, 4, 9]
        )
        part = Relative(center=median, scale=one)
        assert credit(part, batch) == [-1.0, 3.0, 0.0, -2.5, -1.5, 1.5, 6.5]

    def test_mean_absolute_deviation_and_its_floor(self) -> None:
        # Median of 1 0 0 is 0, deviations 1 0 0, mean 1/3: the majority gets 0, the winner 3.
        batch = Batch.from_arrays(group=[0] * 3, turns_per_trajectory=[1] * 3, reward=[1, 0, 0])
        part = Relative(center=median, scale=MeanAbsolute(eps=0.0))
        assert_allclose(credit(part, batch), [3.0, 0.0, 0.0])
        assert credit(replace(part, scale=MeanAbsolute(floor=0.5)), batch) == [0.0, 0.0, 0.0]

    def test_scale_across_the_batch(self) -> None:
        # Totals 1 0 | 4 0: mean 1.25, squares .0625 + 1.5625 + 7.5625 + 1.5625 = 10.75.
        batch = Batch.from_arrays(group=[0, 0, 1, 1], turns_per_trajectory=[1] * 4, reward=[1, 0, 4, 0])
        expected = np.array([0.5, -0.5, 2.0, -2.0]) / np.sqrt(10.75 / 3)
        assert_allclose(credit(Relative(scale=AcrossBatch(Std(eps=0.0))), batch), expected)

    def test_everyone_and_nothing_is_reinforce(self) -> None:
        batch = Batch.from_arrays(group=[0, 1], turns_per_trajectory=[2, 1], reward=[1, 2, 5])
        assert credit(recipes.REINFORCE.advantage, batch) == [3.0, 3.0, 5.0]
        assert credit(Relative(turn_reward, everyone, nothing, one), batch) == [1.0, 2.0, 5.0]

    def test_peers_at_the_same_turn(self) -> None:
        batch = Batch.from_arrays(group=[0, 0, 1], turns_per_trajectory=[2, 2, 1], reward=[1, 0, 0, 4, 9])
        assert same_turn(batch)[0] == same_turn(batch)[2] != same_turn(batch)[1]
        assert credit(Relative(turn_reward, same_turn, scale=one), batch) == [0.5, -2.0, -0.5, 2.0, 0.0]
        assert same_task(batch).tolist() == [0, 0, 0, 0, 1]

    def test_past_mean_is_a_column_of_the_ledger(self) -> None:
        batch = Batch.from_arrays(group=[0, 1], turns_per_trajectory=[1, 1], reward=[1, 1])
        part = Relative(over_past_mean, everyone, nothing, one)
        with pytest.raises(MissingColumnError, match="Ledger"):
            credit(part, batch)
        known = batch.with_column(PAST_MEAN, np.array([0.25, 1.0], np.float32))
        assert credit(part, known) == [0.75, 0.0]

    def test_sums_flatten_and_weights_scale(self, worked: Batch) -> None:
        a, b = episode(one, "turn"), step(one)
        assert (a + b) + a == a + (b + a)
        doubled = 2.0 * (a + 0.5 * b)
        assert_allclose(
            credit(doubled, worked), 2 * np.array(credit(a, worked)) + np.array(credit(b, worked))
        )

    def test_a_schedule_must_be_resolved_first(self, worked: Batch) -> None:
        schedule: Schedule = Linear(0.0, 2.0)
        algorithm = replace(recipes.GRPO, advantage=schedule * Relative())
        with pytest.raises(AlgorithmError, match=r"algorithm\.at\(progress\)"):
            algorithm.credit(worked)
        plain = recipes.GRPO.credit(worked).advantage
        assert_allclose(algorithm.at(0.25).credit(worked).advantage, 0.5 * plain)

"""The worked examples of the methods' own code, and rules derived by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose

from agentrl.credit.advantage import PlusRow, Relative, Return, Std, episode_total, median, one
from agentrl.credit.critic import BiLevelGae, TokenGae, TurnGae
from agentrl.credit.gain import BeliefGain, InformationGain
from agentrl.credit.history import MeanAmong, NestedHistory
from agentrl.credit.keep import keep_all
from agentrl.credit.normalise import (
    BetaDensity,
    FirstTurns,
    HarderFirst,
    MedianAbsolute,
    VirtualMean,
    VirtualStd,
    last_reward,
    mean_itself,
)
from agentrl.credit.peers import same_observation, same_task, same_turn
from agentrl.credit.refine import Confident
from agentrl.credit.reward import InvalidPenalty
from agentrl.credit.shaping import RareFormat
from agentrl.credit.tree import (
    PlaceDifference,
    SamePast,
    SubtreeMean,
    Whitened,
    branch_place,
    same_step,
    same_tree,
    shared_turn,
)
from agentrl.errors import MissingColumnError
from agentrl.trajectory.batch import ENTROPY, GOLD_LOGPROB, GOLD_LOGPROB_FINAL, VALUE, Batch

if TYPE_CHECKING:
    from agentrl.credit.compose import Advantage


def credit(part: Advantage, batch: Batch) -> list[float]:
    reward = batch.reward.astype(np.float64)
    return [float(figure) for figure in part(batch, reward, keep_all(batch, reward))]


def outcomes(*groups: list[float]) -> Batch:
    """One turn per trajectory."""
    flat = [score for group in groups for score in group]
    labels = [number for number, group in enumerate(groups) for _ in group]
    return Batch.from_arrays(group=labels, turns_per_trajectory=[1] * len(flat), reward=flat)


def paths(*lines: str, scores: list[float]) -> Batch:
    """One group; each trajectory is a line of observations, its score at the end."""
    reward = [score if last else 0.0 for line, score in zip(lines, scores, strict=True)
              for last in [False] * (len(line) - 1) + [True]]  # fmt: skip
    return Batch.from_arrays(
        group=[0] * len(lines), turns_per_trajectory=[len(line) for line in lines], reward=reward,
        observation_key=list("".join(lines)),
    )  # fmt: skip


EXAMPLE = Batch.from_arrays(
    group=["g"] * 3, turns_per_trajectory=[3, 3, 1], reward=[0, 0, 10, 0, 0, 0, 10],
    observation_key=["s0", "s1", "s2", "s0", "s1", "s1", "s0"],
    valid=[True, True, True, True, True, False, True],
)  # fmt: skip


class TestHistory:
    """HGPO on verl-agent's example: gamma 0.95, penalty 0.1, two steps of history."""

    @pytest.mark.parametrize(
        ("scale", "expected"),
        [
            (one, [2.6833, 5.3967, 0, -6.3417, -4.1033, -3.2333, 3.6583]),
            (Std(ddof=0), [0.59605, 1.16566, 0, -1.40867, -0.87839, -0.71818, 0.81263]),
        ],
    )
    def test_worked_example(self, scale: Std, expected: list[float]) -> None:
        target = PlusRow(Return(0.95), InvalidPenalty(0.1))
        # The authors' recipe/hgpo/core_hgpo.py, run on this example, rounded to the digits shown.
        assert_allclose(credit(NestedHistory(target, scale=scale), EXAMPLE), expected, atol=5e-5)

    def test_without_peers_only_the_base_is_left(self) -> None:
        batch = paths("ab", "cd", scores=[1, 0])
        assert credit(NestedHistory(), batch) == [0, 0, 0, 0]
        base = Relative(scale=one)
        assert_allclose(credit(NestedHistory(base=base), batch), [0.5, 0.5, -0.5, -0.5], atol=1e-5)

    def test_equal_steps_share_their_mean(self) -> None:
        # Both take the same action from a to b; a has one owner more that goes elsewhere.
        batch = paths("ab", "ab", "ac", scores=[1, 0, 0])
        own, merged = (
            credit(p, batch) for p in (Relative(scale=one), MeanAmong(Relative(scale=one), same_step))
        )
        assert_allclose(own, [2 / 3, 2 / 3, -1 / 3, -1 / 3, -1 / 3, -1 / 3])
        assert_allclose(merged, [1 / 6, 2 / 3, 1 / 6, -1 / 3, -1 / 3, -1 / 3])


class TestGain:
    """IGPO's example: gains [.4, .1] | [-.2] | [], outcomes 1, 0, 0."""

    def batch(self) -> Batch:
        belief = [-1.0, -0.6, -0.5, -1.0, -1.2, -3.0]
        return Batch.from_arrays(
            group=[0, 0, 0], turns_per_trajectory=[3, 2, 1], reward=[0, 0, 1, 0, 0, 0],
            columns={GOLD_LOGPROB: np.array(belief), GOLD_LOGPROB_FINAL: np.array([-0.1, -0.7, 0.0])},
            stop=[0, 1, 0],
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("part", "expected"),
        [
            (InformationGain(), [2.63895, 1.41421, 1.41421, -1.93185, -0.70711, -0.70711]),
            (InformationGain(pool="joint"), [2.16093, 1.69485, 1.99145, -1.61011, -0.55083, -0.55083]),
        ],
    )
    def test_worked_example(self, part: InformationGain, expected: list[float]) -> None:
        assert_allclose(credit(part, self.batch()), expected, atol=2e-5)

    def test_gains_telescope(self) -> None:
        gain = BeliefGain()(self.batch())
        assert_allclose(gain, [0.4, 0.1, np.nan, -0.2, np.nan, np.nan], atol=1e-6)
        # mean log-probabilities -1.5, -0.75, -0.15
        batch = Batch.from_arrays(
            group=[0], turns_per_trajectory=[3], reward=[0, 0, 0],
            columns={GOLD_LOGPROB: np.array([-1.5, -0.75, -0.15])},
        )  # fmt: skip
        assert_allclose(BeliefGain()(batch), [0.75, 0.6, np.nan], atol=1e-6)
        assert_allclose(BeliefGain("probability")(batch), [0.249236, 0.388341, np.nan], atol=1e-6)

    def test_an_unmeasured_belief_is_no_change(self) -> None:
        batch = Batch.from_arrays(
            group=[0, 0], turns_per_trajectory=[4, 2], reward=[0] * 6,
            columns={GOLD_LOGPROB: np.array([-2, np.nan, -1, -1, np.nan, np.nan])},
        )  # fmt: skip
        assert_allclose(BeliefGain()(batch), [0, 1, 0, np.nan, np.nan, np.nan])
        assert np.isfinite(credit(InformationGain(), batch)).all()

    def test_a_limit_may_have_a_last_gain(self) -> None:
        gain = BeliefGain(at_limit=True)(self.batch())
        assert_allclose(gain, [0.4, 0.1, np.nan, -0.2, 0.5, np.nan], atol=1e-6)

    def test_single_trajectory_gives_nothing_apart(self) -> None:
        batch = self.batch().select([1])
        assert_allclose(credit(InformationGain(), batch), [0, 0], atol=1e-12)

    def test_the_missing_probe_is_named(self) -> None:
        with pytest.raises(MissingColumnError, match="gold_logprob"):
            credit(InformationGain(), EXAMPLE)


class TestCritic:
    """Advantages from values, by hand."""

    def batch(self, value: list[float]) -> Batch:
        """Two turns of 5 and 5 tokens; rewards 1 and 1."""
        return Batch.from_arrays(
            group=[0], turns_per_trajectory=[2], reward=[1, 1], tokens_per_turn=[5, 5],
            columns={VALUE: np.array(value)},
        )  # fmt: skip

    def test_bi_level_returns(self) -> None:
        # RAGEN's own unit test: values 0, across .95: returns 1 + .95 and 1.
        batch = self.batch([0.0] * 10)
        reward = batch.reward.astype(np.float64)
        part = BiLevelGae(within=1.0, across=0.95, lam=1.0, whiten=False)
        found = part.of_tokens(batch, reward, keep_all(batch, reward))
        assert_allclose(found, [1.95] * 5 + [1.0] * 5)

    def test_turn_level(self) -> None:
        # delta_1 = 1 - .5 = .5; delta_0 = 1 + .9 .5 - .2 = 1.25; A_0 = 1.25 + .9 .5 .5 = 1.475
        batch = self.batch([0.2, 9, 9, 9, 9, 0.5, 9, 9, 9, 9])
        assert_allclose(credit(TurnGae(0.9, 0.5), batch), [1.475, 0.5], rtol=1e-6)

    def test_tokens_of_an_action_are_not_discounted(self) -> None:
        batch = self.batch([0.0] * 10)
        reward = batch.reward.astype(np.float64)
        found = TokenGae(1.0, 0.5, 1.0).of_tokens(batch, reward, keep_all(batch, reward))
        assert_allclose(found, [1.5] * 5 + [1.0] * 5)

    @pytest.mark.parametrize("part", [TurnGae(), TokenGae(), BiLevelGae()])
    def test_the_missing_critic_is_named(self, part: Advantage) -> None:
        with pytest.raises(MissingColumnError, match="critic"):
            credit(part, EXAMPLE)


class TestTrees:
    """Prefix trees and branches."""

    def test_differences_stand_where_ways_part(self) -> None:
        # V(a)=1/2, V(ab)=3/4... leaves: abx 1, aby 1/2, acz 0: V(a)=.5, V(ab)=.75, V(ac)=0
        batch = paths("abx", "aby", "acz", scores=[1.0, 0.5, 0.0])
        expected = [0.25, 0.25, 0, 0.25, -0.25, 0, -0.5, 0, 0]
        assert_allclose(credit(PlaceDifference(), batch), expected, atol=1e-12)

    def test_without_shared_beginnings_there_is_no_difference(self) -> None:
        batch = paths("ab", "cb", scores=[1.0, 0.0])
        assert_allclose(credit(PlaceDifference(), batch), 0.0)

    def branched(self) -> Batch:
        """0 and 2 start alone; 1 leaves 0 and 3 leaves 2 after one turn. Scores 1, 0 | 1, 1."""
        return Batch.from_arrays(
            group=[0] * 4, turns_per_trajectory=[2] * 4, reward=[0, 1, 0, 0, 0, 1, 0, 1],
            parent=[-1, 0, -1, 2], branch_turn=[-1, 1, -1, 1],
        )  # fmt: skip

    def test_a_branch_shares_turns_with_its_parent(self) -> None:
        assert shared_turn(self.branched()).tolist() == [0, 1, 0, 3, 4, 5, 4, 7]
        assert same_tree(self.branched()).tolist() == [0, 0, 0, 0, 2, 2, 2, 2]
        place = branch_place(self.branched())
        assert place[0] == place[2] == place[4] == place[6]
        assert place[1] == place[3] != place[5] == place[7]

    def test_a_child_may_stand_before_its_parent(self) -> None:
        turned = self.branched().select([3, 2, 1, 0])
        part = PlaceDifference(branch_place)
        straight = np.reshape(credit(part, self.branched()), (4, 2))
        assert_allclose(np.reshape(credit(part, turned), (4, 2)), straight[::-1])

    def test_tree_grpo(self) -> None:
        both = credit(Relative() + 1.0 * Relative(peers=same_tree), self.branched())
        assert_allclose(both[::2], [1.2071, -2.2071, 0.5, 0.5], atol=1e-4)

    def test_segment_values(self) -> None:
        # V(start) = .75; V(after 0's first turn) = .5; V(after 2's first turn) = 1
        expected = [-0.25, 0.5, -0.25, -0.5, 0.25, 0, 0.25, 0]
        assert_allclose(credit(PlaceDifference(branch_place), self.branched()), expected)

    def test_subtree_means(self) -> None:
        # trajectory 0: (4 (1 - .75) + 2 (1 - .5)) / 6 = 1/3; equal weights: (.25 + .5) / 2
        sized = credit(SubtreeMean(), self.branched())
        assert_allclose(sized[::2], [1 / 3, (-3 - 1) / 6, 1 / 6, 1 / 6])
        assert_allclose(credit(SubtreeMean(weigh="equal"), self.branched())[0], 0.375)

    def test_past_needs_every_key(self) -> None:
        place = SamePast()(paths("ab", "cb", scores=[1, 0]))
        assert len(set(place.tolist())) == 4


class TestNormalisers:
    """Centers, scales and weights on groups of outcomes."""

    def test_virtual_best(self) -> None:
        part = Relative(center=VirtualMean(), scale=VirtualStd())
        assert_allclose(credit(part, outcomes([0.0] * 8)), -1 / 3, atol=1e-5)
        assert_allclose(credit(part, outcomes([1.0] * 8)), 0.0, atol=1e-9)
        mixed = credit(part, outcomes([1.0] * 4 + [0.0] * 4))
        assert_allclose(mixed[::4], [0.84, -1.05], atol=6e-3)

    def test_median(self) -> None:
        # median 2, deviations 2, 1, 0, 1, 5: their median is 1
        part = Relative(center=median, scale=MedianAbsolute())
        assert_allclose(credit(part, outcomes([0.0, 1, 2, 3, 7])), [-2, -1, 0, 1, 5], rtol=1e-5)
        assert_allclose(credit(part, outcomes([1.0, 0, 0])), [4, 0, 0], rtol=1e-5)

    def test_beta_density(self) -> None:
        # Means 1/4 and 3/4: m = 1/2, v = 1/16, m (1-m) / v - 1 = 3, so a = b = 3/2 and alpha = beta = 3/2:
        # density 8/pi sqrt(p (1-p)) = 8/pi sqrt(3)/4.
        part = Relative(scale=BetaDensity())
        found = credit(part, outcomes([1.0, 0, 0, 0], [1.0, 1, 1, 0]))
        density = 8 / np.pi * np.sqrt(3) / 4
        assert_allclose(found[:2], [0.75 / density, -0.25 / density])
        assert_allclose(credit(part, outcomes([1.0, 0], [0.0, 1])), [0.5, -0.5, -0.5, 0.5])

    def test_mean_as_scale(self) -> None:
        part = Relative(scale=mean_itself)
        assert_allclose(credit(part, outcomes([1.0, 0, 0, 0], [0.0, 0])), [3, -1, -1, -1, 0, 0])

    def test_harder_tasks_weigh_more(self) -> None:
        part = HarderFirst(Relative(scale=one), same_task, 1.0)
        found = credit(part, outcomes([1.0, 0, 0, 0], [1.0, 1, 1, 0]))
        weight = np.exp([-0.25, -0.75]) / np.exp([-0.25, -0.75]).mean()
        assert_allclose([found[0], found[7]], [0.75 * weight[0], -0.75 * weight[1]])

    def test_turn_reward_stays_at_the_first_turn(self) -> None:
        batch = Batch.from_arrays(group=[0, 0], turns_per_trajectory=[2, 2], reward=[1, 0, 0, 2])
        part = Relative(last_reward, scale=one) + 1.0 * FirstTurns(
            Relative(Return(0.0), same_turn, scale=one)
        )
        assert_allclose(credit(part, batch), [-1 + 0.5, -1, 1 - 0.5, 1])

    def test_whitened(self) -> None:
        found = credit(Whitened(Relative(scale=one)), outcomes([1.0, 0], [1.0, 0, 0, 0]))
        assert np.mean(found) == pytest.approx(0)
        assert np.std(found, ddof=1) == pytest.approx(1, rel=1e-5)


def test_totals_do_not_depend_on_the_part() -> None:
    assert episode_total(EXAMPLE, EXAMPLE.reward.astype(float)).tolist() == [10, 10, 10, 0, 0, 0, 10]
    assert len(set(same_observation(EXAMPLE).tolist())) == 3


class TestFormats:
    """Ada-GRPO: rare ways of answering earn more."""

    def batch(self) -> Batch:
        return Batch.from_arrays(
            group=[0, 0, 0, 0],
            turns_per_trajectory=[1, 1, 1, 1],
            reward=[1, 1, 0, 1],
            tool_calls=[1, 0, 0, 0],
        )

    def test_worked_example(self) -> None:
        # One of four calls a tool: G / F is 4 for it and 4/3 for the others; half way half of that is left.
        assert RareFormat()(self.batch()).tolist() == pytest.approx([4, 4 / 3, 0, 4 / 3])
        assert RareFormat(strength=0.5)(self.batch()).tolist() == pytest.approx([2.5, 7 / 6, 0, 7 / 6])
        assert RareFormat(strength=0.0)(self.batch()).tolist() == [1, 1, 0, 1]


class TestConfidence:
    """GTPO: the entropy of a trajectory costs, too much of it leaves the trajectory out."""

    def test_worked_example(self) -> None:
        batch = Batch.from_arrays(
            group=[0, 0, 1], turns_per_trajectory=[1, 1, 1], reward=[1, 0, 1], tokens_per_turn=[2, 1, 1],
            columns={ENTROPY: np.array([0.2, 0.4, 0.9, 0.1])},
        )  # fmt: skip
        # Advantages 1/2, -1/2 and 0 (alone). The first has entropy 0.3, the second is above ln 2.
        assert credit(Confident(Relative(scale=one)), batch) == pytest.approx([0.47, 0, 0])

"""Single rules of recipes that random batches do not reach, worked by hand from the authors' code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from agentrl import recipes
from agentrl.credit.critic import BiLevelGae, TokenGae
from agentrl.credit.keep import keep_all
from agentrl.credit.refine import Confident
from agentrl.learn.average import Balanced
from agentrl.learn.loss import LossInputs, policy_loss, prepare
from agentrl.learn.penalty import LikelihoodDrop, TokenFigures
from agentrl.learn.ratio import Spans
from agentrl.learn.surrogate import Place, ProbabilityClip, Situated, importance
from agentrl.trajectory.batch import ENTROPY, VALUE, Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept
    from agentrl.learn.algorithm import Algorithm

LIMIT = 1 / np.sqrt(2)
"""What GRPO gives the better of two, over a deviation (n - 1) of sqrt(1/2)."""


def inputs_of(algorithm: Algorithm, batch: Batch) -> LossInputs:
    return prepare(algorithm, batch, algorithm.credit(batch), dtype=torch.float64)


def rounded_zeros(_batch: Batch, _reward: NDArray[np.float64], _kept: Kept, /) -> NDArray[np.float64]:
    """What a sum in another order makes of 0."""
    return np.array([2.8e-17, 0, -2.8e-17])


class TestGtpo:
    """The mask of conflicts is made before entropy cuts anything."""

    def batch(self, entropy: float) -> Batch:
        return Batch.from_arrays(
            group=[0, 0], turns_per_trajectory=[1, 1], reward=[1, 0], tokens_per_turn=[2, 2],
            token=[5, 1, 5, 2], columns={ENTROPY: np.array([entropy, entropy, 0.2, 0.2])},
        )  # fmt: skip

    @pytest.mark.parametrize("entropy", [0.3, 0.9])
    def test_an_unsure_success_still_protects_what_it_shares(self, entropy: float) -> None:
        found = inputs_of(recipes.GTPO, self.batch(entropy))
        assert found.weight.tolist() == [2, 1, 0, 1]
        assert found.advantage[3].item() == pytest.approx(-LIMIT - 0.02, abs=1e-5)
        assert found.advantage[0].item() == pytest.approx(LIMIT - 0.03 if entropy < 0.6 else 0, abs=1e-5)

    def test_a_rounded_zero_costs_nothing(self) -> None:
        batch = Batch.from_arrays(
            group=[0] * 3, turns_per_trajectory=[1] * 3, reward=[0.1] * 3,
            columns={ENTROPY: np.array([0.3] * 3)},
        )  # fmt: skip
        rounded = replace(recipes.GTPO, advantage=Confident(rounded_zeros))
        assert rounded.credit(batch).advantage.tolist() == [0, 0, 0]


class TestTurnAndOutcome:
    """MT-GRPO: a trajectory of one turn has one term, and the last reward is no turn's."""

    def credit(self, turns: list[int], reward: list[float]) -> list[float]:
        batch = Batch.from_arrays(group=[0] * len(turns), turns_per_trajectory=turns, reward=reward)
        found: list[float] = recipes.MT_GRPO.credit(batch).advantage.tolist()
        return found

    def test_two_successes_are_alike(self) -> None:
        assert self.credit([1, 2], [1, 0, 1]) == pytest.approx([0, 0, 0])

    def test_single_turns_count_once(self) -> None:
        assert self.credit([1, 1], [1, 0]) == pytest.approx([LIMIT, -LIMIT], abs=1e-5)

    def test_both_rewards_of_longer_ones_stand_in_the_comparison(self) -> None:
        # Outcomes 1 and 1, early rewards 0 and 1; added up they are 1 and 2.
        assert self.credit([1, 2], [1, 1, 1]) == pytest.approx([-LIMIT, LIMIT, 0], abs=1e-5)


class TestWindows:
    """The windows are those of the authors' code."""

    def test_a_power_mean_is_held_between_ratios(self) -> None:
        batch = Batch.from_arrays(group=[0, 0], turns_per_trajectory=[1, 1], reward=[1, 0], logprob=[-1, -1])
        found = inputs_of(recipes.HOLDER_PO, batch)
        loss = policy_loss(recipes.HOLDER_PO, found, torch.tensor([-0.5, -1.5], dtype=torch.float64)).total
        assert loss.item() == pytest.approx(-(1.2 - 0.8) * LIMIT / 2, abs=1e-5)

    def test_a_bad_token_pays_at_most_three_times(self) -> None:
        log_ratio = torch.tensor([2.0, 2.0], dtype=torch.float64, requires_grad=True)
        part: Situated = recipes.DCPO.surrogate  # type: ignore[assignment]  # one that reads places
        spans = Spans(torch.tensor([0, 1]), torch.tensor([0, 1]), 2, 2)
        advantage = torch.tensor([-1.0, 1.0], dtype=torch.float64)
        place = Place(log_ratio, torch.tensor([-1.0, -0.1], dtype=torch.float64), spans)
        value = part.situated(log_ratio, advantage, place)
        high = (1 + np.sqrt(1 + 4 * 0.28 * np.exp(0.1))) / 2
        assert_allclose(value.detach().numpy(), [-3.0, high])
        (slope,) = torch.autograd.grad(value.sum(), log_ratio)
        assert slope.tolist() == [0, 0]
        plain = ProbabilityClip().situated(log_ratio, advantage, place)
        assert plain[0].item() == pytest.approx(-np.exp(2.0))


class TestSilentTurns:
    """A turn without sampled tokens is a step of value 0 whose reward reaches the tokens before it."""

    def found(self, part: TokenGae | BiLevelGae, turns: list[int], tokens: list[int]) -> NDArray[np.float64]:
        reward = [float(place == len(tokens) - 1) for place in range(len(tokens))]
        batch = Batch.from_arrays(
            group=[0] * len(turns), turns_per_trajectory=turns, reward=reward, tokens_per_turn=tokens,
            columns={VALUE: np.zeros(sum(tokens))},
        )  # fmt: skip
        earned = batch.reward.astype(np.float64)
        return part.of_tokens(batch, earned, keep_all(batch, earned))

    def test_the_reward_of_a_silent_end(self) -> None:
        assert_allclose(self.found(TokenGae(1.0, 0.9, 0.5), [2], [2, 0]), [0.225, 0.45])
        assert_allclose(self.found(BiLevelGae(1.0, 0.9, 0.5, whiten=False), [2], [2, 0]), [0.225, 0.45])

    def test_several_in_a_row_and_other_trajectories(self) -> None:
        assert_allclose(self.found(TokenGae(1.0, 0.5, 1.0), [1, 4], [1, 0, 1, 0, 0]), [0, 0.25])
        part = BiLevelGae(1.0, 0.5, 1.0, whiten=False)
        assert_allclose(self.found(part, [1, 4], [1, 0, 1, 0, 0]), [0, 0.25])


class TestRounding:
    """What a rounded zero is does not depend on the order of a sum."""

    def test_a_falling_token_of_advantage_zero_pays(self) -> None:
        old = torch.tensor([-1.0, -1.0, -1.0], dtype=torch.float64)
        advantage = torch.tensor([0.0, -2.8e-17, -0.5], dtype=torch.float64)
        spans = Spans(torch.arange(3), torch.zeros(3, dtype=torch.int64), 3, 1)
        figures = TokenFigures(old - 0.2, None, None, old, advantage, spans)
        assert LikelihoodDrop(0.5)(figures).tolist() == pytest.approx([0.1, 0.1, 0])

    def test_zeros_are_averaged_together(self) -> None:
        batch = Batch.from_arrays(group=[0] * 3, turns_per_trajectory=[1] * 3, reward=[0] * 3)
        keep = np.ones(3, np.bool_)
        exact = Balanced().of_credit(batch, keep, np.array([0.0, 0.0, -1.0]))
        assert Balanced().of_credit(batch, keep, np.array([0.0, -2.8e-17, -1.0])).tolist() == exact.tolist()


class TestEveryCopy:
    """ARPO: equal to branches learnt one by one inside the window, not outside."""

    def losses(self, algorithm: Algorithm, moved: float) -> tuple[float, float]:
        """The loss of a tree whose first turn two branches share, and of its two paths one by one."""
        tree = Batch.from_arrays(
            group=[0, 0], turns_per_trajectory=[2, 2], reward=[0, 1, 0, 0], parent=[-1, 0],
            branch_turn=[-1, 1], token=[0, 1, 0, 2], logprob=[-1.0] * 4,
        )  # fmt: skip
        apart = replace(tree, parent=np.full_like(tree.parent, -1))
        now = torch.tensor([-1 + moved, -1, -1 + moved, -1], dtype=torch.float64)
        one_by_one = replace(algorithm, token_weight=recipes.GRPO.token_weight)
        return (
            policy_loss(algorithm, inputs_of(algorithm, tree), now).total.item(),
            policy_loss(one_by_one, inputs_of(one_by_one, apart), now).total.item(),
        )

    @pytest.mark.parametrize("moved", [0.0, 0.15, -0.2])
    def test_inside_the_window(self, moved: float) -> None:
        ours, one_by_one = self.losses(recipes.ARPO, moved)
        assert ours == pytest.approx(one_by_one, abs=1e-12)

    def test_without_a_clip_anywhere(self) -> None:
        ours, one_by_one = self.losses(replace(recipes.ARPO, surrogate=importance), 0.5)
        assert ours == pytest.approx(one_by_one, abs=1e-12)

    def test_outside_the_clip_acts_on_the_mean(self) -> None:
        ours, one_by_one = self.losses(recipes.ARPO, 0.5)
        assert ours == pytest.approx(0, abs=1e-12)
        assert one_by_one == pytest.approx((np.exp(0.5) - 1.2) * LIMIT / 4, abs=1e-5)  # .0793

"""What must hold of the methods whatever the numbers: limits in which one becomes another."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from agentrl import recipes
from agentrl.credit.advantage import MeanAbsolute, Relative, Return, Std, one, others_mean
from agentrl.credit.critic import TurnGae
from agentrl.credit.gain import BeliefGain
from agentrl.credit.keep import keep_all
from agentrl.credit.ledger import IMPROVEMENT, Ledger, TaskRecord
from agentrl.credit.normalise import beta_density
from agentrl.credit.objective import RewardsAsLabels
from agentrl.credit.peers import same_observation
from agentrl.credit.refine import Improved
from agentrl.credit.shaping import Productive
from agentrl.credit.tree import PlaceDifference, SamePast
from agentrl.learn.loss import policy_loss, prepare
from agentrl.learn.ratio import (
    BaseAndFibre,
    HolderRatio,
    Spans,
    cumulative_ratio,
    sequence_ratio,
    token_ratio,
)
from agentrl.learn.surrogate import LogClip, Place, Soft, TowardTarget
from agentrl.plan import Acceptance
from agentrl.rollout import assign_groups
from agentrl.trajectory.batch import CURRENT_LOGPROB, GOLD_LOGPROB, GOLD_LOGPROB_FINAL, VALUE, Batch
from tests.recipe_batches import make_batch

if TYPE_CHECKING:
    from agentrl.credit.compose import Advantage

torch.set_num_threads(1)

LOG_RATIOS = st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=8).map(
    lambda found: torch.tensor(found, dtype=torch.float64)
)
SEEDS = st.integers(0, 40)


def one_stream(size: int) -> Spans:
    zeros = torch.zeros(size, dtype=torch.int64)
    return Spans(zeros, zeros, 1, 1)


def credit(part: Advantage, batch: Batch) -> np.ndarray:
    reward = batch.reward.astype(np.float64)
    return part(batch, reward, keep_all(batch, reward))


def outcomes(*scores: float) -> Batch:
    return Batch.from_arrays(group=[0] * len(scores), turns_per_trajectory=[1] * len(scores), reward=scores)


# -- ratios ------------------------------------------------------------------------------------------------


@given(LOG_RATIOS)
def test_power_means(log_ratio: torch.Tensor) -> None:
    spans = one_stream(len(log_ratio))
    means = [HolderRatio(power)(log_ratio, spans) for power in (-2.0, -1e-9, 1.0, 2.0)]
    assert_allclose(means[1], sequence_ratio(log_ratio, spans), atol=1e-12)  # to 0: GSPO
    assert_allclose(means[2].exp(), log_ratio.exp().mean().expand(len(log_ratio)), atol=1e-12)
    assert all((low <= high + 1e-12).all() for low, high in pairwise(means))


@given(LOG_RATIOS)
def test_base_and_fibre(log_ratio: torch.Tensor) -> None:
    spans = one_stream(len(log_ratio))
    assert_allclose(BaseAndFibre(9, 9)(log_ratio, spans), log_ratio, atol=1e-12)  # wide: the token's own
    held = sequence_ratio(log_ratio, spans).clamp(-0.05, 0.05)
    assert_allclose(BaseAndFibre(0.05, 0.0)(log_ratio, spans), held, atol=1e-12)  # no fibre: a clipped GSPO
    assert_allclose(BaseAndFibre()(0 * log_ratio, spans), 0 * log_ratio)


@given(LOG_RATIOS)
def test_cumulative_ratio_ends_at_the_whole_sequence(log_ratio: torch.Tensor) -> None:
    found = cumulative_ratio(log_ratio, one_stream(len(log_ratio)))
    assert float(found[0]) == pytest.approx(float(log_ratio[0]))
    assert float(found[-1]) == pytest.approx(float(log_ratio.sum()))


@pytest.mark.parametrize("tau", [0.1, 1.0, 5.0])
def test_soft_gate_has_slope_one_at_one(tau: float) -> None:
    log_ratio = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([2.0, -3.0], dtype=torch.float64)
    (slope,) = torch.autograd.grad(Soft(tau, tau)(log_ratio, advantage, log_ratio).sum(), log_ratio)
    assert_allclose(slope, advantage)


def test_target_ratio_is_bounded() -> None:
    # The best ratio is r* = (1 - e) + 2 e sigmoid(A / l) = 1 + e tanh(A / 2 l).
    part = TowardTarget(0.2, 0.1)
    for advantage in (-1.0, -0.05, 0.02, 0.3):
        target = 0.8 + 0.4 / (1 + math.exp(-advantage / 0.1))
        at = torch.tensor(math.log(target), dtype=torch.float64)
        size = torch.tensor(advantage, dtype=torch.float64)
        assert float(part(at, size, at)) == pytest.approx(0.0, abs=1e-12)


ON_POLICY_PLAIN = (
    "GRPO", "CISPO", "TURN_PPO_RATIO", "SSPO", "HOLDER_PO", "MIN_PRO", "FIBER_PO", "SAPO", "DCPO",
    "ETR", "R2VPO", "LLDS", "CTPO", "GSPO", "DHPO", "AEPO", "MDPO", "LUSPO", "VESPO",
)  # fmt: skip


@pytest.mark.parametrize("name", ON_POLICY_PLAIN)
def test_on_policy_the_gradient_is_the_plain_policy_gradient(name: str) -> None:
    algorithm, batch = recipes.get(name), make_batch()
    inputs = prepare(algorithm, batch, algorithm.credit(batch), dtype=torch.float64)
    now = inputs.old_logprob.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(policy_loss(algorithm, inputs, now, -now).total, now)
    assert_allclose(gradient, -inputs.average * inputs.weight * inputs.advantage, atol=1e-10)


# -- estimators --------------------------------------------------------------------------------------------


def test_beta_densities() -> None:
    assert beta_density(0.3, 1.0, 1.0) == 1.0  # REINFORCE with the mean
    found = [beta_density(p, 1.5, 1.5) / math.sqrt(p * (1 - p)) for p in (0.1, 0.5, 0.8)]
    assert_allclose(found, found[0])  # the deviation of binary rewards: GRPO


def test_rollouts_go_where_successes_are_rare_but_not_to_what_never_succeeds() -> None:
    wanted = [Acceptance()(TaskRecord(16, won)) for won in range(17)]  # GVM
    assert wanted[0] == 0
    assert all(rare > common for rare, common in pairwise(wanted[1:]))


def test_a_hint_of_nothing_is_no_hint() -> None:
    empty, plain = (assign_groups("train", [0, 1], members=3, seed=2, hints=h) for h in ([0.0] * 2, None))
    assert empty == plain  # Guide


def test_an_imagined_success() -> None:
    assert_allclose(credit(recipes.NGRPO.advantage, outcomes(*[0.0] * 8)), -1 / 3, atol=1e-5)
    assert_allclose(credit(recipes.NGRPO.advantage, outcomes(*[1.0] * 8)), 0.0, atol=1e-5)


@pytest.mark.parametrize("won", [1, 2, 3])
def test_negative_aware_is_grpo_on_policy(won: int) -> None:
    batch = outcomes(*[1.0] * won, *[0.0] * (4 - won))
    grpo = credit(Relative(scale=Std(ddof=0, eps=0.0)), batch)
    assert_allclose(credit(recipes.NFT.advantage, batch), grpo, atol=1e-12)


@given(SEEDS, st.floats(0.1, 2.0))
def test_labels_weigh_at_most_one_over_tau(seed: int, tau: float) -> None:
    batch = make_batch(4, 1, seed % 7)
    moved = batch.logprob + np.random.default_rng(seed).normal(0, 1, batch.num_sampled)
    slope = credit(RewardsAsLabels(tau), batch.with_column(CURRENT_LOGPROB, moved.astype(np.float32)))
    assert np.abs(slope).max() <= 4 / tau + 1e-9  # times four members, over one group


def test_mean_absolute_deviation_gives_every_group_the_same_weight() -> None:
    for scores in ([1.0, 0, 0, 0], [1, 1, 0, 0], [5, 1, 0, 0]):
        found = credit(Relative(scale=MeanAbsolute(eps=0.0)), outcomes(*scores))
        assert np.abs(found).sum() == pytest.approx(4.0)


@given(SEEDS)
def test_limits_of_step_credit(seed: int) -> None:
    batch = make_batch(4, 2, seed % 7)
    plain = credit(Relative(scale=one), batch)
    step = Relative(Return(0.95), same_observation, scale=one, per="turn")
    assert_allclose(credit(Relative(scale=one) + 0.0 * step, batch), plain)  # GiGPO with w = 0
    alone = replace(batch, observation_key=np.arange(batch.num_turns))
    assert_allclose(credit(PlaceDifference(SamePast()), alone), 0.0, atol=1e-12)  # TEMPO: no shared past


def test_gains_telescope() -> None:
    belief = np.array([-3.0, -2.0, -2.5, -0.5], np.float32)
    batch = Batch.from_arrays(
        group=[0], turns_per_trajectory=[4], reward=[0] * 4, stop=[1],
        columns={GOLD_LOGPROB: belief, GOLD_LOGPROB_FINAL: np.array([-0.25], np.float32)},
    )  # fmt: skip
    assert BeliefGain(at_limit=True)(batch).sum() == pytest.approx(-0.25 + 3.0)


@given(st.integers(0, 9))
def test_failures_earn_nothing_whatever_the_calls(calls: int) -> None:
    batch = Batch.from_arrays(
        group=[0, 0], turns_per_trajectory=[1, 1], reward=[1, 1], success=[1, 0], tool_calls=[2, calls]
    )
    assert Productive()(batch).tolist() == pytest.approx([1.0, 0.0])


@given(SEEDS)
def test_an_update_that_harmed_is_not_looked_at_again(seed: int) -> None:
    batch = make_batch(4, 2, seed % 7)
    harmed = batch.with_column(IMPROVEMENT, np.where(batch.group == 0, -1.5, np.nan).astype(np.float32))
    found = credit(Improved(backward=0.0), harmed)  # PIPO with lambda = 0: no second step
    assert_allclose(found[batch.group_of_turn == 0], 0.0)
    fresh = credit(Improved().advantage, batch)
    assert_allclose(found[batch.group_of_turn == 1], fresh[batch.group_of_turn == 1])


def test_constant_rewards_leave_a_role_no_advantage() -> None:
    batch = Batch.from_arrays(group=[0, 1], turns_per_trajectory=[2, 2], reward=[0, 1, 0, 1], role=["x"] * 4)
    ledger = Ledger()
    for _ in range(200):
        ledger = ledger.record(batch)
    assert_allclose(credit(recipes.RAE.advantage, ledger.annotate(batch)), 0.0, atol=1e-6)


def test_balanced_averages_do_not_couple_sign_and_length() -> None:
    # Two short successes, two long failures, |A| = 1: token mean -(2 * 1 - 2 * 13) / 28, balanced 0.
    batch = Batch.from_arrays(
        group=[0] * 4, turns_per_trajectory=[1] * 4, reward=[1, 1, 0, 0], tokens_per_turn=[1, 1, 13, 13]
    )
    rule = Relative(scale=Std(ddof=0, eps=0.0))
    losses = []
    for average in (recipes.GRPO.average, recipes.BALANCED.average):
        algorithm = replace(recipes.GRPO, advantage=rule, average=average)
        inputs = prepare(algorithm, batch, algorithm.credit(batch), dtype=torch.float64)
        losses.append(policy_loss(algorithm, inputs, inputs.old_logprob).total.item())
    assert losses == pytest.approx([24 / 28, 0.0])


def test_windows_of_log_clips_grow_with_the_root_of_the_position() -> None:
    log_ratio = torch.full((9,), 1.0, dtype=torch.float64)
    place = Place(log_ratio, -log_ratio, one_stream(9))
    found = LogClip(0.2, 0.2, 0.5).situated(log_ratio, torch.ones(9), place).log()
    assert_allclose(found, 0.2 * np.sqrt(np.arange(1, 10)), atol=1e-12)
    assert token_ratio(log_ratio, one_stream(9)) is log_ratio


# -- a bandit whose policy chooses when to stop ------------------------------------------------------------


def bandit(theta: float, episodes: int, random: np.random.Generator) -> Batch:
    """Pull or stop, at most three times; a pull earns 1 with probability 0.6 and costs 0.4, one token each.

    The probability of pulling is sigmoid(theta), so that long episodes are the policy's own choice.
    """
    pull = 1 / (1 + math.exp(-theta))
    turns, reward, token = [], [], []
    for _ in range(episodes):
        for place in range(3):
            pulls = random.random() < pull
            token.append(int(pulls))
            reward.append(float(random.random() < 0.6) - 0.4 if pulls else 0.0)
            if not pulls or place == 2:
                turns.append(place + 1)
                break
    first = np.concatenate([np.arange(count) for count in turns])
    return Batch.from_arrays(
        group=np.arange(episodes) // 8, turns_per_trajectory=turns, reward=reward, token=token,
        observation_key=first.tolist(),
        columns={VALUE: np.linspace(0.3, 0.1, 3)[first].astype(np.float32)},
    )  # fmt: skip


def true_gradient(theta: float) -> float:
    """d/dtheta of 0.2 (p + p^2 + p^3): pulls are worth 0.6 - 0.4."""
    p = 1 / (1 + math.exp(-theta))
    return 0.2 * (1 + 2 * p + 3 * p * p) * p * (1 - p)


TURN_LEVEL: dict[str, Advantage] = {
    "return to go": Relative(Return(1.0), same_observation, others_mean, one, per="turn"),
    "episode, leave one out": recipes.RLOO.advantage,
    "critic": TurnGae(1.0, 1.0),
}


@pytest.mark.parametrize("name", TURN_LEVEL)
@pytest.mark.parametrize("theta", [-0.5, 1.0])
def test_turn_level_baselines_are_unbiased_when_the_policy_stops(name: str, theta: float) -> None:
    batch = bandit(theta, 80_000, np.random.default_rng(5))
    advantage = credit(TURN_LEVEL[name], batch)
    score = batch.token - 1 / (1 + math.exp(-theta))  # d log p / d theta of a token
    each = np.bincount(batch.trajectory_of_turn, advantage * score, batch.num_trajectories)
    by_group = np.bincount(batch.group, each) / 8
    error = by_group.std() / math.sqrt(len(by_group))
    assert abs(by_group.mean() - true_gradient(theta)) < 4 * error
    assert error < 0.05 * true_gradient(theta)

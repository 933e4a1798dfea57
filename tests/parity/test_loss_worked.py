"""Loss parts against plain loops and by hand: invariants of ratios, gates, weights and averages."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from agentrl import recipes
from agentrl.errors import AlgorithmError, MissingColumnError
from agentrl.learn.average import Balanced, task_mean, trajectory_sum
from agentrl.learn.loss import policy_loss, prepare
from agentrl.learn.penalty import EntropyTarget, KlToOld, LikelihoodDrop, TokenFigures
from agentrl.learn.ratio import (
    BaseAndFibre,
    HolderRatio,
    Ratio,
    SentenceRatio,
    Spans,
    cumulative_ratio,
    least_prefix_ratio,
    sequence_ratio,
    stream_position,
    token_ratio,
)
from agentrl.learn.surrogate import (
    ElasticClip,
    LogClip,
    MixedClip,
    Place,
    ProbabilityClip,
    RatioVariance,
    SentenceClip,
    Situated,
    Soft,
    Surrogate,
    TowardTarget,
)
from agentrl.learn.weight import ConflictTokens, EntropyChange, PlanTokens, TopEntropy
from agentrl.trajectory.batch import ENTROPY, SENTENCE, SPAN, Batch, reward_component

STREAM = torch.tensor([0, 0, 0, 1, 1])
SPANS = Spans(STREAM, STREAM, 2, 2)
LOG_RATIO = torch.tensor([0.1, -0.3, 0.2, 0.4, -0.1], dtype=torch.float64)
ADVANTAGE = torch.tensor([1.0, -0.5, 2.0, -1.0, 0.3], dtype=torch.float64)


def value(ratio: Ratio) -> list[float]:
    return [float(x) for x in ratio(LOG_RATIO, SPANS)]


class TestRatios:
    """Values by plain loops; on-policy gradients."""

    def test_cumulative(self) -> None:
        # first token: its own ratio; last: the whole sequence
        assert_allclose(value(cumulative_ratio), [0.1, -0.2, 0.0, 0.4, 0.3], atol=1e-12)

    def test_least_prefix(self) -> None:
        expected = [0.1, -0.3 + 0.1, 0.2 - 0.3, 0.4, -0.1 + 0.4]
        assert_allclose(value(least_prefix_ratio), expected, atol=1e-12)

    def test_power_means(self) -> None:
        assert_allclose(value(HolderRatio(0.0)), value(sequence_ratio))
        assert_allclose(value(HolderRatio(1e-4)), value(sequence_ratio), atol=1e-5)
        first = math.log(sum(math.exp(x) for x in (0.1, -0.3, 0.2)) / 3)
        assert value(HolderRatio(1.0))[0] == pytest.approx(first)
        powers = [value(HolderRatio(p))[0] for p in (-2.0, -1.0, 0.5, 1.0, 2.0)]
        assert powers == sorted(powers)

    def test_power_mean_has_its_own_gradient(self) -> None:
        x = LOG_RATIO.clone().requires_grad_()
        (given,) = torch.autograd.grad(HolderRatio(0.7)(x, SPANS).sum(), x)
        y = LOG_RATIO.clone().requires_grad_()
        true = sum(len(part) * (0.7 * part).exp().mean().log() / 0.7 for part in (y[:3], y[3:]))
        (expected,) = torch.autograd.grad(torch.as_tensor(true), y)
        assert_allclose(given.numpy(), expected.numpy(), rtol=1e-9)

    def test_base_and_fibre(self) -> None:
        assert_allclose(value(BaseAndFibre(9.0, 9.0)), value(token_ratio), atol=1e-12)
        assert_allclose(value(BaseAndFibre(0.05, 0.0)), [0.0, 0.0, 0.0, 0.05, 0.05], atol=1e-12)

    def test_positions(self) -> None:
        assert stream_position(SPANS).tolist() == [1, 2, 3, 1, 2]

    @pytest.mark.parametrize(
        "ratio", [cumulative_ratio, least_prefix_ratio, HolderRatio(0.5), BaseAndFibre()]
    )
    def test_on_policy_gradient_is_the_plain_one(self, ratio: Ratio) -> None:
        x = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad((ratio(x, SPANS).exp() * ADVANTAGE).sum(), x)
        assert_allclose(gradient.numpy(), ADVANTAGE.numpy(), atol=1e-12)


OLD = torch.tensor([-0.1, -1.0, -2.5, -0.5, -4.0], dtype=torch.float64)


def objective(part: Surrogate | Situated, log_ratio: torch.Tensor) -> torch.Tensor:
    if isinstance(part, Situated):
        return part.situated(log_ratio, ADVANTAGE, Place(log_ratio, OLD, SPANS))
    return part(log_ratio, ADVANTAGE, OLD + log_ratio)


def plain_clip(low: float, high: float, row: int) -> float:
    ratio, advantage = math.exp(float(LOG_RATIO[row])), float(ADVANTAGE[row])
    return min(ratio * advantage, min(max(ratio, low), high) * advantage)


class TestSurrogates:
    """Values row by row."""

    def test_growing_window(self) -> None:
        widths = [0.05 * math.sqrt(t) for t in (1, 2, 3, 1, 2)]
        expected = [plain_clip(math.exp(-w), math.exp(w), row) for row, w in enumerate(widths)]
        assert_allclose(objective(LogClip(0.05, 0.05, 0.5), LOG_RATIO).numpy(), expected)

    def test_bounds_by_probability(self) -> None:
        expected = []
        for row in range(5):
            q = math.exp(float(OLD[row]))
            low = (1 + math.sqrt(max(0.0, 1 - 0.8 / q))) / 2
            high = min((1 + math.sqrt(1 + 1.12 / q)) / 2, 10.0)
            expected.append(plain_clip(low, high, row))
        assert_allclose(objective(ProbabilityClip(0.2, 0.28), LOG_RATIO).numpy(), expected)

    def test_elastic_window(self) -> None:
        sizes = [abs(float(a)) for a in ADVANTAGE]
        widths = [0.1 * (1 + 0.5 * size / (1 + size)) for size in sizes]
        expected = [plain_clip(1 - w, 1 + w, row) for row, w in enumerate(widths)]
        assert_allclose(objective(ElasticClip(0.1, 0.5), LOG_RATIO).numpy(), expected)

    def test_target_is_a_bounded_sigmoid(self) -> None:
        # (1 - e) + 2 e sigmoid(A / l) = 1 + e tanh(A / 2l)
        expected = []
        for row in range(5):
            advantage, ratio = float(ADVANTAGE[row]), math.exp(float(LOG_RATIO[row]))
            target = 0.8 + 0.4 / (1 + math.exp(-advantage / 0.5))
            expected.append(-abs(advantage) * abs(ratio - target))
        assert_allclose(objective(TowardTarget(0.2, 0.5), LOG_RATIO).numpy(), expected)

    def test_ratio_variance(self) -> None:
        ratio = LOG_RATIO.exp()
        expected = ratio * ADVANTAGE - 2 * (ratio - 1) ** 2
        assert_allclose(objective(RatioVariance(2.0), LOG_RATIO).numpy(), expected.numpy())

    def test_mixture(self) -> None:
        means = [0.0, 0.0, 0.0, 0.15, 0.15]
        expected = []
        for row in range(5):
            advantage, far = float(ADVANTAGE[row]), math.exp(means[row])
            stream = min(far * advantage, min(max(far, 0.99), 1.01) * advantage)
            expected.append(0.3 * plain_clip(0.8, 1.2, row) + 0.7 * stream)
        assert_allclose(objective(MixedClip(0.3, 0.2, 0.01), LOG_RATIO).numpy(), expected, atol=1e-12)

    @pytest.mark.parametrize(
        "part",
        [LogClip(), ProbabilityClip(), ElasticClip(), TowardTarget(), RatioVariance(), MixedClip(), Soft()],
    )
    def test_on_policy_gradient_is_the_plain_one(self, part: Surrogate | Situated) -> None:
        x = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(objective(part, x).sum(), x)
        assert_allclose(gradient.numpy(), ADVANTAGE.numpy(), atol=1e-12)


def short_and_long() -> tuple[Batch, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """One group: two short successes of 2 tokens, two long failures of 26; |A| = 1."""
    batch = Batch.from_arrays(
        group=[0] * 4, turns_per_trajectory=[1] * 4, reward=[1, 1, 0, 0], tokens_per_turn=[2, 2, 26, 26]
    )
    return batch, np.repeat([1.0, 1.0, -1.0, -1.0], [2, 2, 26, 26])


class TestAveragesAndWeights:
    """Shares of tokens, by hand."""

    def test_balanced_removes_the_coupling_of_sign_and_length(self) -> None:
        batch, advantage = short_and_long()
        keep = np.ones(56, np.bool_)
        weight = Balanced().of_credit(batch, keep, advantage)
        assert weight.sum() == pytest.approx(1)
        assert (weight * advantage).sum() == pytest.approx(0)
        assert advantage.mean() == pytest.approx(-48 / 56)

    def test_sums_and_means_of_trajectories(self) -> None:
        batch, _ = short_and_long()
        keep = np.ones(56, np.bool_)
        assert trajectory_sum(batch, keep).sum() == pytest.approx(4)
        assert_allclose(task_mean(batch, keep)[[0, 55]], [1 / 8, 1 / 104])
        assert not trajectory_sum(batch, ~keep).any()
        assert not task_mean(batch, ~keep).any()

    def batch(self) -> Batch:
        return replace(
            Batch.from_arrays(
                group=[0], turns_per_trajectory=[1], reward=[1], tokens_per_turn=[5], logprob=OLD.numpy(),
                columns={ENTROPY: np.array([0.1, 0.5, 0.9, 0.2, 0.3]), SPAN: np.array([0, -1, 0, -1, 0])},
            ),
            span_roles=("think",),
        )  # fmt: skip

    def test_highest_entropy(self) -> None:
        keep = np.array([True, True, False, True, True])
        weight = TopEntropy(0.25).of_credit(self.batch(), keep, ADVANTAGE.numpy())
        assert weight[keep].tolist() == [0, 1, 0, 0]

    def test_entropy_change(self) -> None:
        weight = EntropyChange().of_credit(self.batch(), np.ones(5, np.bool_), ADVANTAGE.numpy())
        change = [
            abs(float(a) * (1 - math.exp(float(p))) * (float(p) + h))
            for a, p, h in zip(ADVANTAGE, OLD, (0.1, 0.5, 0.9, 0.2, 0.3), strict=True)
        ]
        low, high = min(change), max(change)
        expected = [1 - 0.2 * (c - low) / (high - low) for c in change]
        assert_allclose(weight, expected, rtol=1e-5)

    def test_planning_tokens(self) -> None:
        weight = PlanTokens("think", 0.2).of_credit(self.batch(), np.ones(5, np.bool_), ADVANTAGE.numpy())
        assert_allclose(weight, [1.2, 1, 1.2, 1, 1.2])

    def test_tokens_that_both_signs_share(self) -> None:
        # Two answers of a group: "1 2 3 9" succeeds, "1 2 4 8 9" fails; a third, of another group, is alone.
        batch = Batch.from_arrays(
            group=[0, 0, 1], turns_per_trajectory=[1, 1, 1], reward=[1, 0, 1], tokens_per_turn=[4, 5, 2],
            token=[1, 2, 3, 9, 1, 2, 4, 8, 9, 1, 9],
        )  # fmt: skip
        advantage = np.repeat([1.0, -1.0, 1.0], [4, 5, 2])
        weight = ConflictTokens(2.0).of_credit(batch, np.ones(11, np.bool_), advantage)
        assert weight.tolist() == [2, 2, 1, 2, 0, 0, 1, 1, 0, 1, 1]
        nothing = ConflictTokens(2.0).of_credit(batch, np.ones(11, np.bool_), np.abs(advantage))
        assert nothing.tolist() == [1] * 11

    def test_a_token_in_both_runs_is_weighed_twice(self) -> None:
        batch = Batch.from_arrays(
            group=[0, 0], turns_per_trajectory=[1, 1], reward=[1, 0], tokens_per_turn=[1, 1], token=[5, 5]
        )
        weight = ConflictTokens(2.0).of_credit(batch, np.ones(2, np.bool_), np.array([1.0, -1.0]))
        assert weight.tolist() == [4, 0]


class TestSentences:
    """SSPO: a ratio and a window for each sentence."""

    def batch(self) -> Batch:
        return Batch.from_arrays(
            group=[0, 1], turns_per_trajectory=[1, 1], reward=[1, 0], tokens_per_turn=[3, 2],
            columns={
                ENTROPY: np.array([0.2, 0.4, 1.2, 0.1, 0.1]), SENTENCE: np.array([0.0, 0.0, 1.0, 0.0, 0.0]),
            },
        )  # fmt: skip

    def test_sentences_share_a_geometric_mean(self) -> None:
        spans = replace(SPANS, sentence=torch.tensor([0, 0, 1, 2, 2]), sentences=3)
        assert_allclose([float(x) for x in SentenceRatio()(LOG_RATIO, spans)], [-0.1, -0.1, 0.2, 0.15, 0.15])

    def test_unsure_sentences_have_a_wider_window(self) -> None:
        # Means 0.3, 1.2 and 0.1 over 0.4; the last two are held within 1/2 and 2.
        width = SentenceClip().widths(self.batch(), np.ones(5, np.bool_))
        assert_allclose(width, [0.75, 0.75, 2, 0.5, 0.5], rtol=1e-6)

    def test_what_is_missing_is_named(self) -> None:
        with pytest.raises(AlgorithmError, match="with_sentences"):
            SentenceRatio()(LOG_RATIO, SPANS)
        with pytest.raises(AlgorithmError, match="policy_loss"):
            SentenceClip().situated(LOG_RATIO, ADVANTAGE, Place(LOG_RATIO, LOG_RATIO, SPANS))
        bare = Batch.from_arrays(group=[0, 0], turns_per_trajectory=[1, 1], reward=[1, 0])
        with pytest.raises(MissingColumnError, match="with_sentences"):
            prepare(recipes.SSPO, bare, recipes.SSPO.credit(bare))


class TestPenalties:
    """Terms of single tokens."""

    def figures(self, fall: list[float]) -> TokenFigures:
        logprob = OLD - torch.tensor(fall, dtype=torch.float64)
        return TokenFigures(logprob, None, None, OLD, ADVANTAGE, SPANS)

    def test_only_falling_streams_and_good_tokens_pay(self) -> None:
        # Stream 0 fell by .3 in all, stream 1 rose; token 1 fell but its advantage is negative.
        terms = LikelihoodDrop(0.5)(self.figures([0.2, 0.3, -0.2, 0.1, -0.4]))
        assert_allclose(terms.numpy(), [0.1, 0, 0, 0, 0], atol=1e-12)

    def test_distance_from_the_policy_before(self) -> None:
        terms = KlToOld(2.0, "k2")(self.figures([0.2, 0, 0, 0, -0.4]))
        assert_allclose(terms.numpy(), [0.04, 0, 0, 0, 0.16], atol=1e-12)

    def test_distance_from_an_entropy(self) -> None:
        figures = TokenFigures(OLD, entropy=torch.tensor([0.5, 1.5]))
        assert_allclose(EntropyTarget(0.5, 0.1)(figures).numpy(), [0, 0.05])


@pytest.mark.parametrize("name", recipes.names())
def test_dropped_tokens_get_exactly_no_gradient(name: str) -> None:
    algorithm = replace(recipes.get(name).at(0.5), advantage=recipes.GRPO.advantage, keep=recipes.GRPO.keep)
    batch = Batch.from_arrays(
        group=[0, 0], turns_per_trajectory=[2, 1], reward=[0, 1, 0], tokens_per_turn=[2, 2, 3],
        logprob=[-1.0] * 7,
        columns={ENTROPY: np.linspace(0.1, 0.9, 7), SPAN: np.zeros(7), SENTENCE: np.zeros(7),
                 "reference_logprob": np.full(7, -1.1),
                 reward_component("flawed"): np.zeros(3)},
    )  # fmt: skip
    credit = algorithm.credit(batch)
    dropped = np.array([False, True, False, False, True, False, False])
    inputs = prepare(algorithm, batch, replace(credit, keep_of_sample=~dropped), dtype=torch.float64)
    logprob = (inputs.old_logprob + 0.05).requires_grad_()
    policy_loss(algorithm, inputs, logprob, torch.ones_like(logprob)).total.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    assert logprob.grad is not None
    assert logprob.grad[torch.from_numpy(dropped)].abs().sum() == 0

"""The loss: exact splits, on-policy gradients, clipping, penalties and health."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from agentrl.credit.advantage import Relative, one
from agentrl.credit.keep import Kept, NoVoid, mixed_groups, no_valid_action
from agentrl.errors import AlgorithmError, MissingColumnError
from agentrl.learn.algorithm import Algorithm, Credit
from agentrl.learn.average import (
    Average,
    FixedLength,
    group_mean,
    token_mean,
    trajectory_mean,
    turn_mean,
)
from agentrl.learn.loss import Loss, LossInputs, policy_loss, prepare
from agentrl.learn.penalty import Entropy, KlToReference, Penalty, k1, k2, k3
from agentrl.learn.ratio import Ratio, Spans, sequence_ratio, token_ratio, turn_ratio
from agentrl.learn.schedule import Linear
from agentrl.learn.surrogate import Clip, Soft, StopClip, Surrogate, importance, reinforce
from agentrl.learn.weight import TruncatedImportance
from agentrl.trajectory.batch import LOGPROB_BEFORE_UPDATE, REFERENCE_LOGPROB, Batch

torch.set_num_threads(1)

AVERAGES: list[Average] = [token_mean, turn_mean, trajectory_mean, group_mean, FixedLength(7)]
RATIOS: list[Ratio] = [token_ratio, turn_ratio, sequence_ratio]
SURROGATES: list[Surrogate] = [Clip(), Clip(0.2, 0.28, dual=3.0), reinforce, importance, StopClip(), Soft()]
PENALTIES: tuple[Penalty, ...] = (KlToReference(0.1), Entropy(0.01), KlToReference(0.2, "k2"))


def make_batch(seed: int = 0) -> Batch:
    """Six trajectories of two groups, ragged turns and tokens, two rewritten histories, a reference."""
    random = np.random.default_rng(seed)
    turns = np.array([2, 3, 1, 4, 2, 2])
    tokens = random.integers(1, 6, turns.sum())
    total = int(tokens.sum())
    fresh = np.zeros(turns.sum(), np.bool_)
    fresh[[3, 8]] = True
    batch = Batch.from_arrays(
        group=[0, 0, 0, 1, 1, 1], turns_per_trajectory=turns, reward=random.normal(size=turns.sum()),
        tokens_per_turn=tokens, logprob=random.normal(-1, 0.5, total), fresh=fresh,
        valid=random.random(turns.sum()) > 0.2,
    )  # fmt: skip
    return batch.with_column(REFERENCE_LOGPROB, random.normal(-1, 0.5, total).astype(np.float32))


def prepared(algorithm: Algorithm, batch: Batch) -> LossInputs:
    return prepare(algorithm, batch, algorithm.credit(batch), dtype=torch.float64)


def near(inputs: LossInputs, spread: float, seed: int = 1) -> torch.Tensor:
    """Current log-probabilities at a random distance from the old ones."""
    noise = torch.randn(inputs.old_logprob.shape, dtype=torch.float64, generator=torch.manual_seed(seed))
    return (inputs.old_logprob + spread * noise).requires_grad_()


def gradient(loss: Loss, logprob: torch.Tensor) -> torch.Tensor:
    (result,) = torch.autograd.grad(loss.total, logprob)
    return result


class TestSplits:
    @pytest.mark.parametrize("average", AVERAGES)
    @pytest.mark.parametrize("ratio", RATIOS)
    @pytest.mark.parametrize("surrogate", SURROGATES)
    def test_micro_batches_add_up(self, average: Average, ratio: Ratio, surrogate: Surrogate) -> None:
        batch = make_batch()
        algorithm = Algorithm(
            keep=NoVoid(no_valid_action, "turn"),
            ratio=ratio,
            surrogate=surrogate,
            average=average,
            penalties=PENALTIES,
        )
        inputs = prepared(algorithm, batch)
        logprob = near(inputs, 0.3)
        entropy = torch.rand(logprob.shape, dtype=torch.float64)
        whole = policy_loss(algorithm, inputs, logprob, entropy)
        owner = torch.from_numpy(batch.trajectory_of_sample)
        pieces = []
        for trajectories in ([0, 4], [3], [5, 1, 2]):
            index = torch.isin(owner, torch.tensor(trajectories)).nonzero().squeeze(1)
            pieces.append(policy_loss(algorithm, inputs.take(index), logprob[index], entropy[index]))
        total = torch.stack([piece.total for piece in pieces]).sum()
        assert total.item() == pytest.approx(whole.total.item(), abs=1e-12)
        split = torch.autograd.grad(total, logprob)[0]
        assert torch.allclose(split, gradient(whole, logprob), atol=1e-14, rtol=0)
        for name, part in whole.parts.items():
            assert sum(piece.parts[name].item() for piece in pieces) == pytest.approx(part.item(), abs=1e-12)
        merged = (pieces[0].health + pieces[1].health + pieces[2].health).figures()
        assert merged == pytest.approx(whole.health.figures())

    def test_parts_add_up_to_the_total(self) -> None:
        algorithm = Algorithm(penalties=PENALTIES)
        inputs = prepared(algorithm, make_batch())
        loss = policy_loss(algorithm, inputs, near(inputs, 0.3), torch.ones_like(inputs.old_logprob))
        assert set(loss.parts) == {"policy", "KlToReference", "Entropy"}
        assert sum(part.item() for part in loss.parts.values()) == pytest.approx(loss.total.item())
        assert loss.parts["Entropy"].item() == pytest.approx(-0.01)

    @pytest.mark.parametrize("average", AVERAGES)
    def test_minibatch_is_the_batch_of_its_trajectories(self, average: Average) -> None:
        batch = make_batch()
        algorithm = Algorithm(average=average, ratio=turn_ratio)
        credit = algorithm.credit(batch)
        chosen = np.array([True, False, True, False, False, True])
        inputs = prepare(algorithm, batch, credit, chosen, dtype=torch.float64)
        logprob = near(inputs, 0.3)
        small = batch.select(np.flatnonzero(chosen))
        inside = chosen[batch.trajectory_of_sample]
        turns = chosen[batch.trajectory_of_turn]
        kept = Kept(credit.kept.loss[turns], credit.kept.baseline[chosen])
        alone = Credit(
            credit.reward[turns], kept, credit.advantage[turns],
            credit.advantage_of_sample[inside], credit.keep_of_sample[inside],
        )  # fmt: skip
        expected = policy_loss(
            algorithm,
            prepare(algorithm, small, alone, dtype=torch.float64),
            logprob[torch.from_numpy(inside)],
        )
        assert policy_loss(algorithm, inputs, logprob).total.item() == pytest.approx(expected.total.item())


class TestAverages:
    # Two trajectories, each its own group: turns of 1 and 3 tokens, and one turn of 2.
    batch = Batch.from_arrays(
        group=[0, 1], turns_per_trajectory=[2, 1], reward=[0, 0, 0], tokens_per_turn=[1, 3, 2]
    )
    everything = np.ones(6, np.bool_)

    def test_weights(self) -> None:
        assert_allclose(token_mean(self.batch, self.everything), [1 / 6] * 6)
        assert_allclose(turn_mean(self.batch, self.everything), [1 / 3, *[1 / 9] * 3, *[1 / 6] * 2])
        assert_allclose(trajectory_mean(self.batch, self.everything), [*[1 / 8] * 4, *[1 / 4] * 2])
        assert_allclose(group_mean(self.batch, self.everything), [*[1 / 8] * 4, *[1 / 4] * 2])
        assert_allclose(FixedLength(10)(self.batch, self.everything), [1 / 20] * 6)

    def test_dropped_tokens_leave_every_denominator(self) -> None:
        keep = np.array([False, True, True, True, False, False])
        for average in (token_mean, turn_mean, trajectory_mean, group_mean, FixedLength(3)):
            assert_allclose(average(self.batch, keep), [0, 1 / 3, 1 / 3, 1 / 3, 0, 0])

    @pytest.mark.parametrize("average", AVERAGES)
    def test_nothing_kept_weighs_nothing(self, average: Average) -> None:
        assert_allclose(average(self.batch, np.zeros(6, np.bool_)), np.zeros(6))

    def test_length_is_positive(self) -> None:
        with pytest.raises(AlgorithmError, match="positive"):
            FixedLength(0)


class TestOnPolicy:
    @pytest.mark.parametrize("average", AVERAGES)
    @pytest.mark.parametrize("ratio", RATIOS)
    @pytest.mark.parametrize("surrogate", SURROGATES)
    def test_gradient_is_the_policy_gradient(
        self, average: Average, ratio: Ratio, surrogate: Surrogate
    ) -> None:
        algorithm = Algorithm(ratio=ratio, surrogate=surrogate, average=average)
        inputs = prepared(algorithm, make_batch())
        logprob = inputs.old_logprob.clone().requires_grad_()
        vanilla = -inputs.average * inputs.advantage
        loss = policy_loss(algorithm, inputs, logprob)
        assert torch.allclose(gradient(loss, logprob), vanilla, atol=1e-10, rtol=0)
        health = loss.health.figures()
        assert (health["approx_kl"], health["clip_share"], health["logprob_gap_max"]) == (0, 0, 0)

    def test_only_sampled_positions_get_gradient(self) -> None:
        # Logits of a stream of 9 tokens; the policy drew the tokens at 3, 4 and 7, predicted at 2, 3 and 6.
        batch = Batch.from_arrays(
            group=[0, 0], turns_per_trajectory=[2, 1], reward=[1, 0, 0], tokens_per_turn=[2, 1, 1]
        )
        algorithm = Algorithm(advantage=Relative(scale=one))
        inputs = prepared(algorithm, batch).take(torch.tensor([0, 1, 2]))
        logits = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
        drawn = torch.tensor([1, 4, 2])
        logprob = logits.log_softmax(-1)[torch.tensor([2, 3, 6]), drawn]
        (grad,) = torch.autograd.grad(policy_loss(algorithm, inputs, logprob).total, logits)
        touched = grad.abs().sum(-1) > 0
        assert touched.nonzero().squeeze(1).tolist() == [2, 3, 6]

    def test_dropped_turns_get_exactly_no_gradient_and_cannot_spoil_it(self) -> None:
        algorithm = Algorithm(keep=NoVoid(no_valid_action, "turn"), ratio=sequence_ratio)
        inputs = prepared(algorithm, make_batch())
        assert not inputs.keep.all()
        logprob = near(inputs, 0.2)
        clean = gradient(policy_loss(algorithm, inputs, logprob), logprob)
        assert (clean[~inputs.keep] == 0).all()
        broken = replace(inputs, old_logprob=inputs.old_logprob.where(inputs.keep, torch.nan))
        assert torch.equal(gradient(policy_loss(algorithm, broken, logprob), logprob), clean)


class TestRatios:
    def test_units(self) -> None:
        spans = Spans(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 0, 1]), 3, 2)
        log_ratio = torch.tensor([0.1, 0.3, 0.8, -1.0], dtype=torch.float64)
        assert_allclose(token_ratio(log_ratio, spans), [0.1, 0.3, 0.8, -1.0])
        assert_allclose(turn_ratio(log_ratio, spans), [0.2, 0.2, 0.8, -1.0])
        assert_allclose(sequence_ratio(log_ratio, spans), [0.4, 0.4, 0.4, -1.0])

    def test_streams_begin_where_history_was_rewritten(self) -> None:
        batch = make_batch()
        inputs = prepared(Algorithm(), batch)
        # Turns 3 and 8 are fresh: six trajectories and two more streams.
        assert inputs.spans.streams == 8
        assert sorted(set(inputs.spans.stream.tolist())) == list(range(8))

    def test_gspo_token_form_has_the_gradient_of_the_sequence_objective(self) -> None:
        # s = exp(mean log-ratio), differentiated through the mean, against the token form, off-policy.
        batch = make_batch()
        batch = replace(batch, fresh=np.zeros(batch.num_turns, np.bool_))
        algorithm = Algorithm(
            advantage=Relative(scale=one), ratio=sequence_ratio, surrogate=importance, average=trajectory_mean
        )
        inputs = prepared(algorithm, batch)
        logprob = near(inputs, 0.4)
        token_form = gradient(policy_loss(algorithm, inputs, logprob), logprob)
        owner = torch.from_numpy(batch.trajectory_of_sample)
        objective = torch.zeros((), dtype=torch.float64)
        for trajectory in range(6):
            mine = owner == trajectory
            ratio = (logprob[mine] - inputs.old_logprob[mine]).mean().exp()
            objective = objective + ratio * inputs.advantage[mine][0] / 6
        (expected,) = torch.autograd.grad(-objective, logprob)
        assert torch.allclose(token_form, expected, atol=1e-12, rtol=0)


class TestSurrogates:
    def test_clip_by_hand(self) -> None:
        # r = .5, 1, 1.5 with A = 1: min(r, clip) = .5, 1, 1.2; with A = -1: -.8, -1, -1.5.
        log_ratio = torch.tensor([0.5, 1.0, 1.5] * 2, dtype=torch.float64).log().requires_grad_()
        advantage = torch.tensor([1.0] * 3 + [-1.0] * 3, dtype=torch.float64)
        clip = Clip(0.2, 0.2)
        value = clip(log_ratio, advantage, log_ratio)
        assert_allclose(value.detach(), [0.5, 1, 1.2, -0.8, -1, -1.5])
        (grad,) = torch.autograd.grad(value.sum(), log_ratio)
        assert_allclose(grad, [0.5, 1, 0, 0, -1, -1.5])
        assert clip.clipped(log_ratio, advantage).tolist() == [False, False, True, True, False, False]

    def test_dual_clip_bounds_the_loss_of_bad_tokens(self) -> None:
        log_ratio = torch.tensor([2.0, 5.0, 5.0], dtype=torch.float64).log().requires_grad_()
        advantage = torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
        clip = Clip(0.2, 0.2, dual=3.0)
        value = clip(log_ratio, advantage, log_ratio)
        assert_allclose(value.detach(), [-2, -3, 1.2])
        assert torch.autograd.grad(value.sum(), log_ratio)[0].tolist() == pytest.approx([-2, 0, 0])
        assert clip.clipped(log_ratio, advantage).tolist() == [False, True, True]

    @pytest.mark.parametrize("surrogate", SURROGATES)
    @pytest.mark.parametrize("gap", [-1000.0, 1000.0])
    def test_wild_log_ratios_stay_finite(self, surrogate: Surrogate, gap: float) -> None:
        log_ratio = torch.tensor([gap, gap, gap], requires_grad=True)
        value = surrogate(log_ratio, torch.tensor([1.0, -1.0, 0.0]), log_ratio)
        (grad,) = torch.autograd.grad(value.sum(), log_ratio)
        assert value.isfinite().all()
        assert grad.isfinite().all()

    def test_stop_clip_bounds_the_weight_and_keeps_the_gradient(self) -> None:
        logprob = torch.tensor([-1.0, -1.0], dtype=torch.float64, requires_grad=True)
        log_ratio = logprob - torch.tensor([-2.0, -1.1], dtype=torch.float64)
        part = StopClip(1.0, 0.28)
        value = part(log_ratio, torch.tensor([2.0, 2.0], dtype=torch.float64), logprob)
        (grad,) = torch.autograd.grad(value.sum(), logprob)
        assert_allclose(grad, [2 * 1.28, 2 * math.exp(0.1)])
        assert part.clipped(log_ratio, torch.ones(2)).tolist() == [True, False]

    @pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
    def test_soft_gate_has_slope_one_at_one(self, tau: float) -> None:
        log_ratio = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        value = Soft(tau, tau)(log_ratio, torch.tensor([1.0, -1.0], dtype=torch.float64), log_ratio)
        assert torch.autograd.grad(value.sum(), log_ratio)[0].tolist() == pytest.approx([1, -1])


class TestPenalties:
    def test_estimators_on_a_known_distribution(self) -> None:
        # Under p, E[k1] = E[k3] = KL(p || q); k2 is close when p is close to q.
        p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.45, 0.3, 0.25])
        gap = q.log() - p.log()
        kl = (p * -gap).sum().item()
        assert (p * k1(gap)).sum().item() == pytest.approx(kl)
        assert (p * k3(gap)).sum().item() == pytest.approx(kl, abs=1e-7)
        assert (p * k2(gap)).sum().item() == pytest.approx(kl, rel=0.05)
        assert k3(torch.tensor([100.0, -1000.0])).isfinite().all()

    def test_k2_has_the_gradient_of_the_true_kl(self) -> None:
        logits = torch.tensor([0.2, -0.4, 0.9], dtype=torch.float64, requires_grad=True)
        reference = torch.tensor([0.5, 0.1, 0.0], dtype=torch.float64).log_softmax(-1)
        logp = logits.log_softmax(-1)
        p = logp.exp()
        true = torch.autograd.grad((p * (logp - reference)).sum(), logits, retain_graph=True)[0]
        estimate = torch.autograd.grad((p.detach() * k2(reference - logp)).sum(), logits)[0]
        assert torch.allclose(true, estimate, atol=1e-12)

    def test_what_is_needed_is_asked_for(self) -> None:
        algorithm = Algorithm(penalties=(KlToReference(0.1), Entropy(0.1)))
        assert algorithm.needs == ("entropy", "reference_logprob")
        batch = make_batch()
        inputs = prepared(algorithm, batch)
        with pytest.raises(AlgorithmError, match=r"entropy=\.\.\."):
            policy_loss(algorithm, inputs, near(inputs, 0.1))
        with pytest.raises(MissingColumnError, match="reference_logprob"):
            prepared(algorithm, replace(batch, columns={}))

    def test_coefficients_may_be_schedules(self) -> None:
        algorithm = Algorithm(penalties=(KlToReference(Linear(0.2, 0.0)),))
        inputs = prepared(algorithm, make_batch())
        logprob = near(inputs, 0.1)
        half, start = (
            policy_loss(algorithm.at(p), inputs, logprob).parts["KlToReference"] for p in (0.5, 0.0)
        )
        assert half.item() == pytest.approx(start.item() / 2)
        with pytest.raises(AlgorithmError, match="schedule"):
            policy_loss(algorithm, inputs, logprob)


class TestHealth:
    def test_figures_by_hand(self) -> None:
        # Two trajectories of 2 | 1 turns, a token each; advantages 1 1 -1; r = 1.5, 1, 1.5.
        batch = Batch.from_arrays(group=[0, 0], turns_per_trajectory=[2, 1], reward=[0, 2, 0])
        algorithm = Algorithm(advantage=Relative(scale=one))
        inputs = prepared(algorithm, batch)
        ratio = torch.tensor([1.5, 1.0, 1.5], dtype=torch.float64)
        loss = policy_loss(algorithm, inputs, ratio.log(), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        figures = loss.health.figures()
        # k3 = r - 1 - log r; clipped: the first only, since A < 0 is not clipped above.
        assert figures == pytest.approx({
            "approx_kl": 2 * (0.5 - math.log(1.5)) / 3, "clip_share": 1 / 3, "logprob_gap_max": math.log(1.5),
            "entropy": 2.0, "clip_share_turn_0": 0.5, "clip_share_turn_1": 0.0,
        })  # fmt: skip
        # -(1.2 * 1 + 1 * 1 - 1.5 * 1) / 3
        assert loss.total.item() == pytest.approx(-0.7 / 3)

    def test_advantage_figures(self) -> None:
        batch = Batch.from_arrays(group=[0, 0, 1], turns_per_trajectory=[1, 1, 2], reward=[2, 0, 1, 1])
        figures = Algorithm(advantage=Relative(scale=one)).credit(batch).figures()
        assert figures["advantage_mean"] == 0.0
        assert figures["advantage_largest"] == 1.0
        assert figures["advantage_zero"] == 0.5
        assert figures["kept_turns"] == 1.0


class TestEdges:
    batch = Batch.from_arrays(
        group=[0, 0], turns_per_trajectory=[1, 1], reward=[1, 1], tokens_per_turn=[2, 3]
    )

    def test_empty_keep_names_the_filter(self) -> None:
        with pytest.raises(AlgorithmError, match=r"MixedGroups\(.*kept none of 2 turns"):
            Algorithm(keep=mixed_groups).credit(self.batch)

    @pytest.mark.parametrize("average", AVERAGES)
    def test_empty_keep_may_be_skipped(self, average: Average) -> None:
        algorithm = Algorithm(keep=mixed_groups, average=average, on_empty="skip", ratio=sequence_ratio)
        credit = algorithm.credit(self.batch)
        assert credit.empty
        inputs = prepare(algorithm, self.batch, credit, dtype=torch.float64)
        logprob = near(inputs, 0.1)
        loss = policy_loss(algorithm, inputs, logprob)
        assert loss.total.item() == 0
        assert (gradient(loss, logprob) == 0).all()
        assert loss.health.figures()["approx_kl"] == 0

    def test_shapes_are_checked_at_the_door(self) -> None:
        algorithm = Algorithm()
        inputs = prepared(algorithm, self.batch)
        with pytest.raises(AlgorithmError, match=r"logprob has shape \(3,\).*\(5,\)"):
            policy_loss(algorithm, inputs, torch.zeros(3))
        with pytest.raises(AlgorithmError, match="entropy has shape"):
            policy_loss(algorithm, inputs, torch.zeros(5), torch.zeros(2))

    def test_rewards_must_be_finite(self) -> None:
        broken = replace(self.batch, reward=np.array([1, np.nan], np.float32))
        with pytest.raises(AlgorithmError, match="EnvironmentReward gave nan at turn 1"):
            Algorithm().credit(broken)

    def test_turn_figures_have_turn_shape(self) -> None:
        with pytest.raises(AlgorithmError, match=r"one_per_trajectory gave shape \(1,\)"):
            Algorithm(reward=one_per_trajectory).credit(self.batch)

    def test_old_logprob_is_the_learners_own_where_measured(self) -> None:
        own = np.full(5, -0.5, np.float32)
        batch = self.batch.with_column(LOGPROB_BEFORE_UPDATE, own)
        algorithm = Algorithm(token_weight=TruncatedImportance(2.0))
        inputs = prepared(algorithm, batch)
        assert inputs.old_logprob.tolist() == own.tolist()
        # exp(-.5 - 0) below the cap; the other way round exp(3) is cut to 2.
        assert_allclose(inputs.weight, np.full(5, math.exp(-0.5)))
        far = batch.with_column(LOGPROB_BEFORE_UPDATE, np.full(5, 3.0, np.float32))
        assert_allclose(prepared(algorithm, far).weight, np.full(5, 2.0))
        assert prepared(Algorithm(), self.batch).old_logprob.tolist() == [0.0] * 5


def one_per_trajectory(batch: Batch, /) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.ones(1)

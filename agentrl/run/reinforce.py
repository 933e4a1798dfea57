"""The reinforcement phase: collect, pack, measure, credit, differentiate, step, record."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from agentrl.credit.anchors import anchor_statistics
from agentrl.credit.keep import void_of
from agentrl.credit.peers import same_observation, same_state
from agentrl.credit.tree import copied_turn
from agentrl.learn.belief import answers_of, with_beliefs
from agentrl.learn.gradient import streams_with_loss
from agentrl.learn.loss import prepare, sum_of
from agentrl.learn.probes import streams_of
from agentrl.learn.sentences import with_sentences
from agentrl.run.curve import evaluate_curve
from agentrl.run.draw import draw
from agentrl.run.jobs import (
    Measure,
    MeasureValues,
    PolicyShare,
    measure_on,
    measure_values_on,
    policy_on,
)
from agentrl.run.samples import write_samples
from agentrl.run.values import learn_values, value_inputs
from agentrl.trajectory.batch import (
    CURRENT_LOGPROB,
    CURRENT_VOCABULARY_LOGPROB,
    ENTROPY,
    GOLD_LOGPROB,
    GOLD_LOGPROB_FINAL,
    LOGPROB_BEFORE_UPDATE,
    REFERENCE_LOGPROB,
    SENTENCE,
    VALUE,
    VOCABULARY_LOGPROB,
)
from agentrl.trajectory.pack import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from agentrl.learn.algorithm import Algorithm, Credit
    from agentrl.learn.gradient import PolicyGradient
    from agentrl.run.bench import Bench
    from agentrl.run.draw import Draw
    from agentrl.trajectory.batch import Batch

SAMPLED_EVERY = 25
"""Steps from one set of sampled trajectories to the next."""


def reinforce(bench: Bench, tell: Callable[[float, float], None] | None = None) -> None:
    """Learn from the agent's own trajectories.

    Args:
        tell: is told after each step the CPU-seconds spent, and which share of the phase is done.
    """
    settings = bench.settings.rl
    step = bench.begin("rl", bench.algorithm.optimizer, settings.most_skipped)
    if step == 0 and bench.state.best is None:
        _evaluate(bench, 0)
    while step < settings.steps and not _spent(bench):
        began = time.monotonic()
        progress = _progress(bench, step)
        with bench.working("rl"):
            algorithm = bench.algorithm.at(progress)
            drawn = draw(bench, algorithm.plan, step, weights=_weights(bench))
            batch = measured(bench, algorithm, bench.state.ledger.annotate(pack(drawn.trajectories)))
            credit = algorithm.credit(batch)
            figures = update(bench, algorithm, batch, credit, Moment(step, progress))
            _remember(bench, drawn, batch)
        step += 1
        last = step == settings.steps or _spent(bench)
        report(bench, step, drawn, batch, credit, {**figures, "step_seconds": time.monotonic() - began})
        if bench.settings.samples and (step == 1 or last or step % SAMPLED_EVERY == 0):
            write_samples(bench, step, batch, credit)
        if settings.evaluate_every and (step % settings.evaluate_every == 0 or last):
            _evaluate(bench, step)
        if tell is not None:
            tell(bench.state.cpu_seconds["rl"], 1.0 if last else _progress(bench, step))
        bench.after_step("rl", step, last=last)


def _remember(bench: Bench, drawn: Draw, batch: Batch) -> None:
    """Count what was played: no replay, and also what was set aside."""
    ledger = bench.state.ledger.record(drawn.fresh(batch))
    aside = drawn.set_aside
    bench.state = replace(
        bench.state,
        ledger=ledger.record(pack(aside)) if aside else ledger,
        sampled_tokens=bench.state.sampled_tokens + drawn.sampled_tokens,
    )


def measured(bench: Bench, algorithm: Algorithm, batch: Batch) -> Batch:
    """Return the batch with the columns that need a model.

    What the learner itself says is measured in one pass: log-probabilities, entropies and the belief in gold
    answers. The reference is the warm start. Tokens drawn from a truncated distribution (top-p) get the
    learner's own log-probability, which the ratios are taken against.
    """
    settings, streams = bench.settings, streams_of(batch)
    wanted = Measure(batch, streams, settings.micro_tokens, settings.rl.temperature)
    reads = set(bench.columns) | ({LOGPROB_BEFORE_UPDATE} if settings.rl.top_p < 1.0 else set())
    believes = bool(reads & {GOLD_LOGPROB, GOLD_LOGPROB_FINAL})
    if believes or reads & {LOGPROB_BEFORE_UPDATE, ENTROPY, VOCABULARY_LOGPROB}:
        lead, protocol = settings.rl.answer_lead, bench.crew.protocol
        shown = bench.renderer.for_tools(bench.crew.schemas) if believes else bench.renderer
        answers = answers_of(batch, shown, protocol, lead) if believes else ()
        asked = replace(wanted, answers=answers, vocabulary=VOCABULARY_LOGPROB in reads)
        own = measure_on(bench.crew, asked, _weights(bench))
        said = {
            LOGPROB_BEFORE_UPDATE: own.logprob, ENTROPY: own.entropy, VOCABULARY_LOGPROB: own.vocabulary,
        }  # fmt: skip
        for column, values in said.items():
            batch = batch.with_column(column, values) if column in reads else batch
        batch = with_beliefs(batch, [own.beliefs]) if believes else batch
    if SENTENCE in reads:
        batch = with_sentences(batch, bench.renderer.decode)
    if bench.critic is not None:
        wanted_values = MeasureValues(batch, streams, bench.critic.weights(), settings.micro_tokens)
        batch = batch.with_column(VALUE, measure_values_on(bench.crew, wanted_values))
    if "reference_logprob" in algorithm.needs or REFERENCE_LOGPROB in reads:
        reference = replace(wanted, reference=bench.checkpoint("warm-start"))
        batch = batch.with_column(REFERENCE_LOGPROB, measure_on(bench.crew, reference, None).logprob)
    return batch


def update(
    bench: Bench, algorithm: Algorithm, batch: Batch, credit: Credit, moment: Moment
) -> dict[str, float]:
    """Take the optimizer steps of one batch and return health figures."""
    learner = bench.learner
    if learner is None:
        raise RuntimeError("reinforce() begins its phase first")  # a defect of this module
    taken: list[list[PolicyGradient]] = []
    figures: dict[str, float] = {}
    values = value_inputs(algorithm, batch, credit)
    losses: list[float] = []
    for number, minibatch in enumerate(
        minibatches(algorithm, batch.num_trajectories, [bench.settings.seed, 3, moment.step])
    ):
        if values is not None:
            losses.append(learn_values(bench, batch, values, minibatch, moment.progress))
        if number and algorithm.reads_current:
            batch = _with_current(bench, batch)
            credit = algorithm.credit(batch)
        streams = streams_with_loss(algorithm, batch, prepare(algorithm, batch, credit, minibatch))
        if not len(streams):
            # A step on a zero gradient would still move the weights, by momentum.
            continue
        share = PolicyShare(
            algorithm, batch, credit, streams, bench.settings.micro_tokens, bench.settings.rl.temperature,
            minibatch,
        )  # fmt: skip
        parts = policy_on(bench.crew, share, learner.weights())
        figures = learner.step(torch.stack([part.gradient for part in parts]).sum(0), moment.progress)
        taken.append(parts)
    if credit.empty:
        bench.state = replace(bench.state, empty_batches=bench.state.empty_batches + 1)
    valued = {"value_loss": float(np.mean(losses))} if losses else {}
    if not taken:
        return {"empty_steps": 1.0, **valued}
    return {**valued, **figures, "optimizer_steps": float(len(taken)), **_health(taken), **_losses(taken)}


def _with_current(bench: Bench, batch: Batch) -> Batch:
    """Return the batch with what the learner says now, which objectives over groups read."""
    settings = bench.settings
    vocabulary = VOCABULARY_LOGPROB in batch
    wanted = Measure(
        batch, streams_of(batch), settings.micro_tokens, settings.rl.temperature, vocabulary=vocabulary
    )
    now = measure_on(bench.crew, wanted, _weights(bench))
    if vocabulary:
        batch = batch.with_column(CURRENT_VOCABULARY_LOGPROB, now.vocabulary)
    return batch.with_column(CURRENT_LOGPROB, now.logprob)


@dataclass(frozen=True)
class Moment:
    """When an update happens: `step` steps are done, `progress` in [0, 1]."""

    step: int
    progress: float


def minibatches(
    algorithm: Algorithm, trajectories: int, seed: list[int]
) -> Iterator[NDArray[np.bool_] | None]:
    """Give the (E,) trajectories of each optimizer step: every pass deals all of them anew, None for all."""
    for epoch in range(algorithm.epochs):
        if algorithm.minibatches == 1:
            yield None
            continue
        dealt = np.random.default_rng([*seed, epoch]).permutation(trajectories) % algorithm.minibatches
        for number in range(algorithm.minibatches):
            yield dealt == number


def report(
    bench: Bench, step: int, drawn: Draw, learnt: Batch, credit: Credit, figures: dict[str, float]
) -> None:
    """Write the step's figures and show them: of what was played, and of what was learnt from."""
    batch = drawn.fresh(learnt)
    turns = max(batch.num_turns, 1)
    distinct = max(len(np.unique(copied_turn(learnt))), 1)
    void = void_of(bench.algorithm.keep)(batch)
    row = {
        "phase": "rl",
        "step": step,
        "seconds": bench.seconds,
        "cpu_seconds": bench.state.cpu_seconds["rl"],
        "sampled_tokens": bench.state.sampled_tokens,
        "success": success_share(batch),
        "reward": float(batch.episode_reward.mean()) if batch.num_trajectories else 0.0,
        "turns": batch.num_turns / max(batch.num_trajectories, 1),
        "tokens_per_second": batch.num_tokens / figures["step_seconds"],
        "invalid_share": float((~batch.valid).sum()) / turns,
        "spoofed_share": float(batch.spoofed.sum()) / turns,
        "rewritten_share": float(batch.fresh.sum()) / turns,
        "void_share": float(void.sum()) / turns,
        "void_trajectory_share": len(np.unique(batch.trajectory_of_turn[void]))
        / max(batch.num_trajectories, 1),
        "dropped_share": 1.0 - float(credit.kept.loss.sum()) / distinct,
        "truncated_share": float(batch.truncated.mean()) if batch.num_trajectories else 0.0,
        "infrastructure_share": drawn.harvest.invalid_share,
        "empty_batches": bench.state.empty_batches,
        **drawn.figures(batch),
        **_anchors(batch),
        **credit.figures(),
        **figures,
        **_distances(learnt, credit),
    }
    bench.directory.add_metrics(row)
    bench.progress.update("rl", step, bench.settings.rl.steps, row)


def success_share(batch: Batch) -> float | None:
    """Return the share of successes, None where the world does not say: `agentrl.run.judge.says_success`."""
    said = (batch.success == 1) | ((batch.success == 0) & ~batch.truncated)
    if (batch.success < 0).any() and not said.any():
        return None
    return float((batch.success == 1).mean()) if batch.num_trajectories else 0.0


def _anchors(batch: Batch) -> dict[str, float]:
    state = anchor_statistics(batch, same_state)
    seen = anchor_statistics(batch, same_observation)
    return {
        "anchored_share": state.shared,
        "anchor_group_size": state.mean_size,
        "anchor_largest": state.largest,
        "observation_anchored_share": seen.shared,
        "observation_anchor_group_size": seen.mean_size,
    }


def _health(taken: list[list[PolicyGradient]]) -> dict[str, float]:
    """Figures over all optimizer steps of a batch; the gap is that of the first, which is on-policy."""
    steps = [[part.health for part in parts if part.health is not None] for parts in taken]
    figures = sum_of([health for step in steps for health in step]).figures()
    gap = sum_of(steps[0]).figures()["logprob_gap_max"]
    return {**figures, "kl": figures["approx_kl"], "logprob_gap_max": gap, "logprob_gap": gap}


def _losses(taken: list[list[PolicyGradient]]) -> dict[str, float]:
    """Terms of the loss, means over the optimizer steps."""
    every = [part.parts for parts in taken for part in parts]
    names = sorted({name for part in every for name in part})
    return {f"loss_{name}": sum(part.get(name, 0.0) for part in every) / len(taken) for name in names}


def _distances(batch: Batch, credit: Credit) -> dict[str, float]:
    """How far the learner stands from sampler and reference before the update, where measured."""
    found: dict[str, float] = {}
    old = batch[LOGPROB_BEFORE_UPDATE] if LOGPROB_BEFORE_UPDATE in batch else batch.logprob  # noqa: SIM401  # no dict
    kept = credit.keep_of_sample
    if LOGPROB_BEFORE_UPDATE in batch:
        found["logprob_gap"] = float(np.abs(old - batch.logprob)[kept].max(initial=0.0))
    if REFERENCE_LOGPROB in batch and kept.any():
        gap = np.clip(batch[REFERENCE_LOGPROB] - old, -20.0, 20.0)[kept]
        found["kl_to_reference"] = float((np.expm1(gap) - gap).mean())
    return found


def _evaluate(bench: Bench, step: int) -> None:
    verdict = evaluate_curve(bench, "rl", step, _weights(bench))
    if verdict is None or verdict.unknown:
        return
    mean = verdict.success.mean
    if bench.state.best is None or mean > bench.state.best[0]:
        bench.state = replace(bench.state, best=(mean, step), step=step)
        bench.save("best")


def _weights(bench: Bench) -> torch.Tensor | None:
    return bench.learner.weights() if bench.learner else None


def _progress(bench: Bench, step: int) -> float:
    return max(step / bench.settings.rl.steps, _share_spent(bench))


def _spent(bench: Bench) -> bool:
    return _share_spent(bench) >= 1.0


def _share_spent(bench: Bench) -> float:
    """The share spent of the tighter bound on CPU-seconds and sampled tokens; 0 where neither is set."""
    settings, state = bench.settings.rl, bench.state
    bounds = (
        (state.cpu_seconds.get("rl", 0.0), settings.cpu_seconds),
        (state.sampled_tokens, settings.sampled_tokens),
    )
    return max((spent / most for spent, most in bounds if most), default=0.0)

"""The supervised phases: the warm start on demonstrations, and the control that spends as much on more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from agentrl.learn.optimizer import AdamW, Muon
from agentrl.learn.schedule import WarmupLinear
from agentrl.learn.supervised import epochs_of
from agentrl.run.curve import evaluate_curve
from agentrl.run.jobs import supervised_on

if TYPE_CHECKING:
    from agentrl.learn.optimizer import Optimizer
    from agentrl.run.bench import Bench
    from agentrl.run.settings import OptimizerSettings


ENDLESS = 1_000_000
"""Most steps of a phase that is bounded by CPU-seconds."""


class Allowance(Protocol):
    """How much a supervised phase may spend."""

    @property
    def steps(self) -> int:
        """The most steps."""
        ...

    @property
    def cpu_seconds(self) -> float:
        """The most CPU-seconds."""
        ...

    def more(self, step: int, spent: float) -> bool:
        """Whether there is another step after `step` of them, which cost `spent` CPU-seconds."""
        ...

    def planned(self, step: int, spent: float) -> int:
        """How many steps there will be, judged by those done."""
        ...


@dataclass(frozen=True)
class Budget:
    """When a supervised phase ends: after `steps`, or once `cpu_seconds` are spent where they are given."""

    steps: int
    cpu_seconds: float = math.inf

    def more(self, step: int, spent: float) -> bool:
        """Whether neither is used up."""
        return step < self.steps and spent < self.cpu_seconds

    def planned(self, step: int, spent: float) -> int:
        """How many steps there will be, judged by what `step` of them cost in CPU-seconds.

        >>> Budget(1_000_000, 60.0).planned(10, 20.0)
        30
        """
        if math.isinf(self.cpu_seconds) or spent <= 0:
            return self.steps
        return min(self.steps, max(step, round(step * self.cpu_seconds / spent)))


def supervise(bench: Bench, phase: str, budget: Allowance) -> None:
    """Imitate the experts' turns of the run's demonstrations, in shuffled epochs."""
    warm = bench.settings.warm_start
    step = bench.begin(phase, optimizer_of(warm.optimizer))
    seed = bench.settings.seed if phase == "warm_start" else bench.settings.seed + 7919
    order = epochs_of(len(bench.examples), batch=warm.batch, seed=seed, steps=budget.steps)
    weights: torch.Tensor | None = bench.learner.weights() if bench.learner else None
    more = budget.more(step, bench.state.cpu_seconds.get(phase, 0.0))
    while more:
        with bench.working(phase):
            figures, weights = _step(bench, [int(index) for index in order[step]], step, budget, phase)
        step += 1
        more = budget.more(step, bench.state.cpu_seconds[phase])
        if warm.evaluate_every and (step % warm.evaluate_every == 0 or not more):
            evaluate_curve(bench, phase, step, weights)
        if step % 10 == 0 or not more:
            spent = {"seconds": bench.seconds, "cpu_seconds": bench.state.cpu_seconds[phase]}
            bench.directory.add_metrics({"phase": phase, "step": step, **spent, **figures})
        bench.progress.update(phase, step, budget.planned(step, bench.state.cpu_seconds[phase]), figures)
        bench.after_step(phase, step, last=not more)


def _step(
    bench: Bench, chosen: list[int], step: int, budget: Allowance, phase: str
) -> tuple[dict[str, float], torch.Tensor | None]:
    learner = bench.learner
    if learner is None:
        raise RuntimeError("supervise() begins its phase first")  # a defect of this module
    examples = [bench.examples[index] for index in chosen]
    parts = supervised_on(bench.crew, examples, learner.weights(), bench.settings.micro_tokens)
    gradient = torch.stack([part.gradient for part in parts]).sum(0)
    spent = bench.state.cpu_seconds.get(phase, 0.0) / budget.cpu_seconds
    figures = learner.step(gradient, max(step / budget.steps, spent))
    imitated = max(sum(part.action_tokens for part in parts), 1)
    figures["loss"] = sum(part.loss for part in parts)
    figures["action_loss"] = sum(part.action_loss for part in parts) / imitated
    return figures, learner.weights()


def optimizer_of(settings: OptimizerSettings) -> Optimizer:
    """Return the optimizer that settings describe: a warm-up, then a straight line to `final` of the rate."""

    def schedule(peak: float) -> WarmupLinear:
        return WarmupLinear(peak, settings.warmup, settings.final * peak)

    adamw = AdamW(
        lr=schedule(settings.learning_rate),
        betas=(0.9, settings.beta_2),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
    )
    if settings.kind == "adamw":
        return adamw
    return Muon(
        lr=schedule(settings.matrix_learning_rate),
        weight_decay=settings.weight_decay,
        adamw=adamw,
        max_grad_norm=settings.max_grad_norm,
    )

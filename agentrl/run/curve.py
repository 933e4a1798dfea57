"""Points of the learning curve: a small evaluation now and then, counted apart from training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.run.judge import interval_row, judge

if TYPE_CHECKING:
    import torch

    from agentrl.run.bench import Bench
    from agentrl.run.judge import Verdict


def evaluate_curve(bench: Bench, stage: str, step: int, weights: torch.Tensor | None) -> Verdict | None:
    """Judge the current weights on the curve's tasks and write the point to the metrics."""
    wanted = bench.settings.evaluation
    if not wanted.curve_tasks:
        return None
    verdict = judge(
        bench.crew,
        split=wanted.curve_split,
        tasks=wanted.curve_tasks,
        first_task=wanted.first_task,
        weights=weights,
    )
    write_point(bench, verdict, stage=stage, step=step, split=wanted.curve_split, mode="sampled")
    bench.progress.update("evaluation", step, None, {"success": verdict.success.mean, **verdict.figures()})
    return verdict


def write_point(bench: Bench, verdict: Verdict, *, stage: str, step: int, split: str, mode: str) -> None:
    """Append an evaluation to `metrics.jsonl`."""
    bench.directory.add_metrics(
        {
            "phase": "evaluation",
            "split": split,
            "policy": "trained",
            "mode": mode,
            "stage": stage,
            "step": step,
            "seconds": bench.seconds,
            "cpu_seconds": bench.state.cpu_seconds.get(stage, 0.0),
            "success": interval_row(verdict.success),
            **verdict.figures(),
        }
    )

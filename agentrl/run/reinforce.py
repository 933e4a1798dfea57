"""The reinforcement phase: collect, pack, credit, differentiate, step, record."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from agentrl.credit.anchors import anchor_statistics
from agentrl.credit.peers import same_observation, same_state
from agentrl.learn.gradient import streams_with_loss
from agentrl.learn.loss import prepare
from agentrl.rollout import assign_groups, check_invalid_share, complete_groups
from agentrl.run.curve import evaluate_curve
from agentrl.run.jobs import collect_on, policy_on
from agentrl.run.samples import write_samples
from agentrl.run.shard import Task
from agentrl.run.supervise import optimizer_of
from agentrl.trajectory.pack import pack
from agentrl.trajectory.store import JournalWriter

if TYPE_CHECKING:
    from agentrl.learn.algorithm import Algorithm, Credit
    from agentrl.learn.loss import Health
    from agentrl.rollout import Harvest
    from agentrl.run.bench import Bench
    from agentrl.trajectory.batch import Batch


def reinforce(bench: Bench) -> None:
    """Learn from the agent's own trajectories."""
    settings = bench.settings.rl
    step = bench.begin("rl", optimizer_of(settings.optimizer), settings.most_skipped)
    if step == 0:
        evaluate_curve(bench, "rl", 0, _weights(bench))
    while step < settings.steps and not _spent(bench):
        began = time.monotonic()
        progress = _progress(bench, step)
        with bench.working("rl"):
            harvest = collect(bench, step)
            batch = pack(harvest.trajectories)
            algorithm = bench.algorithm.at(progress)
            credit = algorithm.credit(batch)
            figures = update(bench, algorithm, batch, credit, progress)
            bench.state = replace(bench.state, ledger=bench.state.ledger.record(batch))
        step += 1
        last = step == settings.steps
        report(bench, step, harvest, batch, credit, {**figures, "step_seconds": time.monotonic() - began})
        if settings.evaluate_every and (step % settings.evaluate_every == 0 or last):
            _evaluate(bench, step)
        bench.after_step("rl", step, last=last)


def collect(bench: Bench, step: int) -> Harvest:
    """Roll out one group for each task of this step."""
    settings = bench.settings.rl
    tasks = task_indices(bench, step)
    assignments = assign_groups(
        bench.settings.environment.split, tasks, members=settings.members, seed=bench.settings.seed, step=step
    )
    task = Task(tuple(assignments), "model", settings.temperature, settings.top_p)
    results = collect_on(bench.crew, task, _weights(bench))
    with JournalWriter(bench.directory.path / "trajectories" / "rl.jsonl.zst") as journal:
        journal.append(results)
    harvest = complete_groups(results)
    check_invalid_share(harvest, settings.most_invalid)
    return harvest


def task_indices(bench: Bench, step: int) -> list[int]:
    """Return the tasks of a step: fresh ones in order; a split that ends is gone through in shuffled rounds."""
    settings = bench.settings
    size = bench.crew.num_tasks(settings.environment.split)
    first = settings.rl.first_task + settings.seed * 100_003
    places = range(step * settings.rl.tasks, (step + 1) * settings.rl.tasks)
    if size is None or first + places.stop <= size:
        return [first + place for place in places]
    rounds = {place // size for place in places}
    order = {number: np.random.default_rng([settings.seed, 2, number]).permutation(size) for number in rounds}
    return [int(order[place // size][place % size]) for place in places]


def update(
    bench: Bench, algorithm: Algorithm, batch: Batch, credit: Credit, progress: float
) -> dict[str, float]:
    """Take the optimizer steps of one batch and return health figures."""
    learner = bench.learner
    if learner is None:
        raise RuntimeError("reinforce() begins its phase first")  # a defect of this module
    figures: dict[str, float] = {}
    inputs = prepare(algorithm, batch, credit)
    for _ in range(algorithm.epochs):
        streams = streams_with_loss(algorithm, batch, inputs)
        if not len(streams):
            # A step on a zero gradient would still move the weights, by momentum.
            return {"empty_steps": 1.0}
        parts = policy_on(
            bench.crew, algorithm, batch, credit, streams, learner.weights(),
            bench.settings.micro_tokens, bench.settings.rl.temperature,
        )  # fmt: skip
        figures = learner.step(torch.stack([part.gradient for part in parts]).sum(0), progress)
        health = [part.health for part in parts if part.health is not None]
        figures.update(_health(health))
        for name in sorted({name for part in parts for name in part.parts}):
            figures[f"loss_{name}"] = sum(part.parts.get(name, 0.0) for part in parts)
    return figures


def report(
    bench: Bench, step: int, harvest: Harvest, batch: Batch, credit: Credit, figures: dict[str, float]
) -> None:
    """Write the step's figures and show them."""
    turns = max(batch.num_turns, 1)
    row = {
        "phase": "rl",
        "step": step,
        "seconds": bench.seconds,
        "cpu_seconds": bench.state.cpu_seconds["rl"],
        "success": float((batch.success == 1).mean()) if batch.num_trajectories else 0.0,
        "reward": float(batch.episode_reward.mean()) if batch.num_trajectories else 0.0,
        "turns": batch.num_turns / max(batch.num_trajectories, 1),
        "tokens_per_second": batch.num_tokens / figures["step_seconds"],
        "invalid_share": float((~batch.valid).sum()) / turns,
        "spoofed_share": float(batch.spoofed.sum()) / turns,
        "void_share": 1.0 - float(credit.kept.loss.mean()) if batch.num_turns else 0.0,
        "truncated_share": float(batch.truncated.mean()) if batch.num_trajectories else 0.0,
        "infrastructure_share": harvest.invalid_share,
        **_anchors(batch),
        **credit.figures(),
        **figures,
    }
    bench.directory.add_metrics(row)
    bench.progress.update("rl", step, bench.settings.rl.steps, row)
    if bench.settings.samples and (step == 1 or step == bench.settings.rl.steps or step % 25 == 0):
        write_samples(bench, step, batch, credit)


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


def _health(parts: list[Health]) -> dict[str, float]:
    if not parts:
        return {}
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    figures = total.figures()
    return {**figures, "kl": figures["approx_kl"], "logprob_gap": figures["logprob_gap_max"]}


def _evaluate(bench: Bench, step: int) -> None:
    verdict = evaluate_curve(bench, "rl", step, _weights(bench))
    if verdict is None:
        return
    mean = verdict.success.mean
    if bench.state.best is None or mean > bench.state.best[0]:
        bench.state = replace(bench.state, best=(mean, step), step=step)
        bench.save("best")


def _weights(bench: Bench) -> torch.Tensor | None:
    return bench.learner.weights() if bench.learner else None


def _progress(bench: Bench, step: int) -> float:
    settings = bench.settings.rl
    spent = bench.state.cpu_seconds.get("rl", 0.0) / settings.cpu_seconds if settings.cpu_seconds else 0.0
    return max(step / settings.steps, spent)


def _spent(bench: Bench) -> bool:
    limit = bench.settings.rl.cpu_seconds
    return bool(limit) and bench.state.cpu_seconds.get("rl", 0.0) >= limit

"""The main job: warm start, reinforcement, control, judgement, report."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, cast

from agentrl.config import load
from agentrl.credit.reward import Component, Sum
from agentrl.errors import AgentrlError, ConfigError, RolloutError, RunDirectoryError
from agentrl.learn.algorithm import describe
from agentrl.recipes import get
from agentrl.rollout import assign_groups, complete_groups
from agentrl.rollout.stage import told
from agentrl.run.bench import Bench, open_bench
from agentrl.run.beside import Beside
from agentrl.run.check import check_algorithm, check_splits, columns_read
from agentrl.run.crew import revived
from agentrl.run.curve import write_point
from agentrl.run.directory import RunDirectory, free_directory
from agentrl.run.draw import check_plan
from agentrl.run.jobs import collect_on
from agentrl.run.judge import interval_row, judge
from agentrl.run.progress import SilentProgress
from agentrl.run.ranks import follow
from agentrl.run.reinforce import reinforce
from agentrl.run.settings import TrainSettings
from agentrl.run.shard import Task
from agentrl.run.slots import with_slots
from agentrl.run.start import warm_start_folder
from agentrl.run.statistics import paired_difference
from agentrl.run.supervise import ENDLESS, Budget, optimizer_of, supervise
from agentrl.run.torchrun import Failure, check_ranks, follows, join, lead, under_torchrun

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from agentrl.learn.algorithm import Algorithm
    from agentrl.run.judge import Verdict
    from agentrl.run.progress import Progress
    from agentrl.run.torchrun import Ranks

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its summary and its report."""

    path: Path
    summary: dict[str, object]
    report: Path


def train(
    settings: TrainSettings | Path | str,
    *,
    algorithm: Algorithm | None = None,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train an agent and write its run directory.

    Under torchrun all its processes work on the one run, and the first writes it (docs/scaling.md).

    Args:
        settings: settings, or a TOML file of them; `overrides`: "section.name=value" on top of a file.
        algorithm: a value of your own instead of the recipe that `settings.rl.algorithm` names.
        out: the run directory; by default `settings.out / settings.name`, or the first of `name-2`, `name-3`,
            ... that is free.
        resume: continue the run in that directory; `accept_changes` also with other settings.

    Raises:
        ConfigError, RunDirectoryError, RegistryError, RolloutError, AlgorithmError: sentences that name
            the repair.
    """
    if not isinstance(settings, TrainSettings):
        settings = load(TrainSettings, find_scenario(settings), overrides)
    work = partial(
        _train, settings, algorithm, out, progress or SilentProgress(),
        resume=resume, accept_changes=accept_changes,
    )  # fmt: skip
    if not under_torchrun():
        return work()
    if follows():
        return _followed()
    ranks = join()
    return lead(ranks, partial(work, ranks=ranks))


def _followed() -> Run:
    """Follow the leading process of torchrun, and return or raise what it does."""
    outcome = follow().outcome
    if isinstance(outcome, Failure):
        raise revived(outcome.kind, outcome.message)
    return cast("Run", outcome)


def _train(
    settings: TrainSettings,
    algorithm: Algorithm | None,
    out: Path | None,
    progress: Progress,
    *,
    resume: bool,
    accept_changes: bool,
    ranks: Ranks | None = None,
) -> Run:
    if ranks is not None:
        check_ranks(settings, ranks.size)
    algorithm = _in_effect(algorithm or get(settings.rl.algorithm), settings)
    check_algorithm(algorithm, settings)
    check_splits(settings)
    directory = (
        _continued(settings, algorithm, out, accept_changes=accept_changes)
        if resume
        else _fresh(settings, algorithm, out)
    )
    with (
        directory.held(),
        _forgotten_if_refused(directory),
        progress as shown,
        open_bench(settings, algorithm, directory, shown, resume=resume, ranks=ranks) as bench,
    ):
        return _phases(bench)


@contextmanager
def _forgotten_if_refused(directory: RunDirectory) -> Generator[None]:
    """Leave no folder of a run that was refused before it did any work; a full disk asks for a resume."""
    try:
        yield
    except RunDirectoryError:
        raise
    except AgentrlError:
        directory.forget()
        raise


def _phases(bench: Bench) -> Run:
    preflight(bench)
    bench.stop_if_asked("the preflight episode")
    warm = bench.settings.warm_start
    if bench.state.phase == "warm_start":
        supervise(bench, "warm_start", Budget(warm.steps if bench.examples and not warm.path else 0))
        bench.save("warm-start")
    if bench.settings.rl.steps and bench.state.phase in {"warm_start", "rl"}:
        _reinforce(bench)
    control = bench.settings.control
    if control.enabled and not control.beside and bench.state.phase in {"rl", "control"}:
        _control(bench)
        bench.save("control")
    return _finish(bench)


def _reinforce(bench: Bench) -> None:
    """Reinforce, with the control beside it or before it."""
    control = bench.settings.control
    if not (control.enabled and control.beside):
        reinforce(bench)
        bench.save("trained")
        return
    with Beside(bench) as beside:
        reinforce(bench, beside.tell)
        beside.tell(bench.state.cpu_seconds.get("rl", 0.0), 1.0)
        bench.save("trained")
        beside.finish()
        bench.save("control")


def _control(bench: Bench) -> None:
    """Spend what the reinforcement phase spent on more supervised training from the same warm start."""
    if bench.state.phase != "control":
        bench.load_weights(bench.checkpoint("warm-start"))
    steps = bench.settings.control.steps
    supervise(
        bench, "control", Budget(steps) if steps else Budget(ENDLESS, bench.state.cpu_seconds.get("rl", 0.0))
    )


def preflight(bench: Bench) -> None:
    """Play one episode before anything is spent, so that a broken world or algorithm stops the run.

    Raises:
        RolloutError: the episode failed. ConfigError: not even its first prompt fits the model's context.
        AlgorithmError, MissingColumnError: its credit cannot be computed, or the plan cannot deal a step.
    """
    assignments = assign_groups(bench.settings.environment.split, [0], members=1, seed=bench.settings.seed)
    harvest = complete_groups(collect_on(bench.crew, Task(tuple(assignments), "model", 1.0, 1.0), None))
    if harvest.invalid:
        failed = harvest.invalid[0]
        episode = f"the preflight episode of {failed.environment} on {failed.task}"
        raise RolloutError(told(episode, failed.turns_done, failed.reason, failed.detail))
    first = harvest.trajectories[0]
    if not first.turns:
        shown = bench.renderer.for_tools(bench.crew.schemas)
        prompt = len(shown.begin(first.system, first.final_observation))
        raise ConfigError(
            f"the model could not say anything in the preflight episode: the first prompt of {first.task} "
            f"has {prompt} tokens, and a stream holds {bench.settings.model.context} (model.context). Raise "
            "it, or lower limits.observation_tokens."
        )
    if first.success is None:
        _logger.warning(
            'The preflight episode of %s ended without info["success"], so the success of this run may be '
            "unknown. Let the step that ends an episode set it to True or False; a tool calls self.finish().",
            first.environment,
        )
    if bench.settings.rl.steps:
        check_plan(bench, bench.algorithm.at(0.0).plan)
    components = bench.crew.reward_names if bench.settings.rl.steps else None
    bench.columns = columns_read(bench.algorithm, first, bench.state.ledger, components)


def _finish(bench: Bench) -> Run:
    bench.state = replace(bench.state, phase="done", step=0)
    verdicts: dict[str, Verdict] = {}
    for stage, name in (("warm_start", "warm-start"), ("rl", "trained"), ("control", "control")):
        if (bench.directory.checkpoints / name).exists():
            bench.load_weights(bench.checkpoint(name))
            verdicts[stage] = _judge(bench, stage)
            bench.stop_if_asked(f"the evaluation of {name}")
    summary = summarize(bench, verdicts)
    bench.directory.write_json("summary.json", summary)
    from agentrl.run.report import write_report

    return Run(bench.directory.path, summary, write_report(bench.directory.path))


def _judge(bench: Bench, stage: str) -> Verdict:
    wanted = bench.settings.evaluation
    bench.progress.update("evaluation", 0, None, {})
    from agentrl.learn.gradient import flat_weights

    verdict = judge(
        bench.crew,
        split=wanted.final_split,
        tasks=wanted.final_tasks,
        first_task=wanted.first_task,
        weights=flat_weights(bench.model),
    )
    write_point(bench, verdict, stage=stage, step=-1, split=wanted.final_split, mode="sampled")
    return verdict


def summarize(bench: Bench, verdicts: dict[str, Verdict]) -> dict[str, object]:
    """Return the summary of a run: success with intervals, paired differences, costs."""
    names = {"warm_start": "warm_start", "rl": "final", "control": "control"}
    summary: dict[str, object] = {}
    for stage, verdict in verdicts.items():
        row = interval_row(verdict.success)
        summary[names[stage]] = {
            "success": row["mean"],
            "ci": [row["low"], row["high"]],
            "unjudged": verdict.unjudged,
            **row,
            **verdict.figures(),
        }
    summary["by_task_type"] = {names[stage]: _types(verdict) for stage, verdict in verdicts.items()}
    summary["stop_reasons"] = {names[stage]: verdict.stops() for stage, verdict in verdicts.items()}
    summary["sandbox_tiers"] = sorted({tier for verdict in verdicts.values() for tier in verdict.tiers()})
    for name, other in (("lift", "warm_start"), ("lift_over_control", "control")):
        if other in verdicts and "rl" in verdicts and not (verdicts[other].unknown or verdicts["rl"].unknown):
            summary[name] = _paired(verdicts[other], verdicts["rl"])
    if "rl" in verdicts:
        taken = bench.directory.metrics("rl")
        summary["steps"] = {"taken": len(taken), "empty": sum("empty_steps" in row for row in taken)}
    return {
        **summary,
        "split": bench.settings.evaluation.final_split,
        "seed": bench.settings.seed,
        "environment": bench.settings.environment.id,
        "algorithm": describe(bench.algorithm),
        "seconds": bench.seconds,
        "cpu_seconds": {**bench.state.cpu_seconds, "total": bench.crew.cpu_seconds + bench.elsewhere},
        "best": list(bench.state.best) if bench.state.best else None,
    }


def _types(verdict: Verdict) -> dict[str, object]:
    return {
        kind: {"success": row["mean"], "ci": [row["low"], row["high"]], "n": row["tasks"]}
        for kind, row in verdict.by_type().items()
    }


def _paired(before: Verdict, after: Verdict) -> dict[str, object]:
    both = before.outcomes.keys() & after.outcomes.keys()
    paired = paired_difference(
        {task: before.outcomes[task] for task in both}, {task: after.outcomes[task] for task in both}
    )
    return {
        "difference": paired.difference,
        "ci": [paired.low, paired.high],
        "p_value": paired.p_value,
        "test": paired.test,
    }


def _in_effect(algorithm: Algorithm, settings: TrainSettings) -> Algorithm:
    """The algorithm with the optimizers, components of the reward and slots of its plan that are set."""
    own, critic, slots = settings.rl.optimizer, settings.rl.critic_optimizer, settings.rl.plan
    if own is not None:
        algorithm = replace(algorithm, optimizer=optimizer_of(own))
    if critic is not None and algorithm.critic is not None:
        algorithm = replace(algorithm, critic=replace(algorithm.critic, optimizer=optimizer_of(critic)))
    if settings.rl.rewards:
        components = (weight * Component(name) for name, weight in settings.rl.rewards.items())
        algorithm = replace(algorithm, reward=Sum((algorithm.reward, *components)))
    return replace(algorithm, plan=with_slots(algorithm.plan, slots)) if slots else algorithm


def _fresh(settings: TrainSettings, algorithm: Algorithm, out: Path | None) -> RunDirectory:
    """A folder for a new run."""
    card = describe(algorithm)
    if settings.warm_start.path:
        warm_start_folder(settings.warm_start.path)
    path = free_directory(settings.out / settings.name) if out is None else out
    directory = RunDirectory(path)
    if directory.started:
        with directory.held():
            pass
        if directory.worked:
            raise RunDirectoryError(
                f"{path} already holds a run. Continue it with --resume {path}, or choose another folder "
                "with --out."
            )
    return RunDirectory.create(path, settings, card)


def _continued(
    settings: TrainSettings, algorithm: Algorithm, out: Path | None, *, accept_changes: bool
) -> RunDirectory:
    """The folder of a run that goes on."""
    card = describe(algorithm)
    directory = RunDirectory(out or settings.out / settings.name)
    changes = directory.changes(settings, card)
    if changes and not accept_changes:
        raise RunDirectoryError(
            f"the run in {directory.path} was started with other settings:\n  "
            + "\n  ".join(changes)
            + "\nResume with the old ones, or accept the change with --accept-changes."
        )
    if changes:
        directory.accept(settings, card, changes)
    return directory


def find_scenario(given: Path | str) -> Path:
    """Return a settings file: the path as given, else among the scenarios of the checkout or the wheel."""
    from agentrl.run.scenarios import find

    return find(given)

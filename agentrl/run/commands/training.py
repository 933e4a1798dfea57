"""`agentrl train`, `sft` and `report`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path  # noqa: TC003  # cyclopts reads annotations
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from agentrl.errors import ConfigError, MissingExtraError
from agentrl.run.torchrun import follows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl.run.settings import TrainSettings
    from agentrl.run.train import Run

Json = Annotated[bool, Parameter(name="--json", negative="")]
Flag = Annotated[bool, Parameter(negative="")]

INTERRUPTED = 130
"""Exit code of a run that a signal stopped, as a shell gives it."""
FAILED = 1
"""Exit code of a process that followed another whose run failed."""


def train(
    scenario: str = "",
    /,
    *overrides: str,
    out: Path | None = None,
    resume: Path | None = None,
    accept_changes: Flag = False,
    as_json: Json = False,
) -> int:
    """Train an agent and write its run directory and report.

    Args:
        scenario: a TOML file, or a scenario such as household/train; not needed with --resume.
        overrides: settings on top, as section.name=value.
        out: the run directory; by default runs/NAME, or runs/NAME-2, ... where that is taken.
        resume: continue the run in this directory.
        accept_changes: resume although settings differ from those the run was started with.
        as_json: print the summary as JSON; progress goes to standard error.
    """
    if follows():
        return _follow()
    if "=" in scenario:
        scenario, overrides = "", (scenario, *overrides)
    if not scenario and resume is None:
        raise ConfigError(
            "name a scenario, as in agentrl train household/train, or --resume a run directory."
        )
    if out is not None and resume is not None and out != resume:
        raise ConfigError(f"--resume {resume} continues in its own directory; leave out --out {out}.")
    settings = _settings(scenario, resume, overrides)
    return _train(settings, out, resume, accept_changes=accept_changes, as_json=as_json)


def sft(scenario: str, /, *overrides: str, out: Path | None = None, as_json: Json = False) -> int:
    """Only the supervised warm start: imitate the expert, save the model in the hub's format.

    Args:
        scenario: a TOML file, or a scenario such as household/train.
        overrides: settings on top, as section.name=value.
        out: the run directory; by default runs/NAME-sft, or runs/NAME-sft-2, ... where that is taken.
        as_json: print the summary as JSON; progress goes to standard error.
    """
    if follows():
        return _follow()
    settings = _settings(scenario, None, (*overrides, "rl.steps=0", "control.enabled=false"))
    settings = settings.model_copy(update={"name": f"{settings.name}-sft"})
    return _train(settings, out, None, accept_changes=False, as_json=as_json, supervised=True)


def report(run: Path, /) -> None:
    """Write report.html of a run again and print its path.

    Args:
        run: a run directory.
    """
    from agentrl.run.directory import RunDirectory
    from agentrl.run.report import write_report
    from agentrl.run.report.data import read_run

    if not RunDirectory(run).started:
        raise ConfigError(f"{run} holds no run.toml, so it is no run directory. Name one that train wrote.")
    print(write_report(run))
    if lost := read_run(run).unreadable:
        print(
            f"Left out of the report: {lost} damaged line(s) or file(s) of {run}. A run that was killed "
            "leaves a torn last line, which resuming mends; one damaged otherwise stays until you delete it.",
            file=sys.stderr,
        )


def need_torch(what: str) -> None:
    """Raise `MissingExtraError` where the packages of the extra `train` are not installed."""
    for package in ("torch", "transformers"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError(what, "train") from error


def _settings(scenario: str, resume: Path | None, overrides: Sequence[str]) -> TrainSettings:
    from agentrl.config import load, validate
    from agentrl.run.directory import RunDirectory
    from agentrl.run.scenarios import find
    from agentrl.run.settings import TrainSettings

    if scenario:
        return load(TrainSettings, find(scenario), overrides)
    if resume is None:
        raise ConfigError("name a scenario or a run directory to resume.")
    return validate(TrainSettings, RunDirectory(resume).settings(), overrides=overrides)


def _train(
    settings: TrainSettings,
    out: Path | None,
    resume: Path | None,
    *,
    accept_changes: bool,
    as_json: bool,
    supervised: bool = False,
) -> int:
    need_torch("Training")
    from agentrl.run.bench import Interrupted
    from agentrl.run.progress import show_progress
    from agentrl.run.train import train as run

    try:
        done = run(
            settings,
            out=resume or out,
            resume=resume is not None,
            accept_changes=accept_changes,
            progress=show_progress(sys.stderr if as_json else None),
        )
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return INTERRUPTED
    model = done.path / "checkpoints" / ("warm-start" if supervised else "trained") / "model"
    if as_json:
        print(json.dumps({**done.summary, "model": str(model), "report": str(done.report)}, default=str))
        return 0
    for line in headlines(done):
        print(line)
    print(f"Model: {model}")
    print(f"Report: {done.report}")
    return 0


def _follow() -> int:
    """Follow the leading process of torchrun, which says everything, and end with an exit code like its."""
    need_torch("Training")
    from agentrl.run.bench import Interrupted
    from agentrl.run.ranks import follow
    from agentrl.run.torchrun import Failure

    outcome = follow().outcome
    if not isinstance(outcome, Failure):
        return 0
    return INTERRUPTED if outcome.kind is Interrupted else FAILED


def headlines(run: Run) -> list[str]:
    """Return the lines that say how a run ended."""
    titles = {"warm_start": "Warm start", "final": "Trained", "control": "Control"}
    lines = [f"Success on {run.summary['split']}, with 95 % intervals:"]
    for name, title in titles.items():
        row = run.summary.get(name)
        if isinstance(row, dict):
            lines.append(f"  {title:<11}{_success(row)}")
    for name, title in (("lift", "the warm start"), ("lift_over_control", "the control")):
        lines += _lift(run.summary.get(name), title)
    lines += _unlearnt(run.summary.get("steps"))
    spent = run.summary.get("cpu_seconds")
    if isinstance(spent, dict) and "control" in spent:
        lines.append(f"CPU-seconds: reinforcement {spent['rl']:.0f}, control {spent['control']:.0f}")
    seconds = run.summary["seconds"]
    if isinstance(seconds, int | float):
        from agentrl.run.progress import duration

        lines.append(f"Time: {duration(seconds)}")
    return lines


def _success(row: Mapping[str, object]) -> str:
    """The success of a stage with its interval; where nobody knows it, why, and the mean reward."""
    mean, bounds = row["success"], row["ci"]
    if not (isinstance(mean, float) and isinstance(bounds, list)):
        return (
            f'     -  ({row["unjudged"]} of {row["rollouts"]} episodes ended without info["success"]; '
            f"mean reward {row['reward']:.3g})"
        )
    low, high = bounds
    return f"{mean:6.1%}  [{low:.1%}, {high:.1%}]"


def _unlearnt(steps: object) -> list[str]:
    """A sentence where reinforcement changed nothing, which equal successes alone would not tell."""
    if not isinstance(steps, dict) or not steps["taken"] or steps["empty"] < steps["taken"]:
        return []
    sentence = (
        f"None of the {steps['taken']} steps of reinforcement changed the weights: no token carried an "
        "advantage, as where all members of each group have the same reward. Raise rl.members, or choose "
        "tasks that the warm start solves neither always nor never."
    )
    return [sentence]


def _lift(row: object, over: str) -> list[str]:
    if not isinstance(row, dict):
        return []
    paired: Mapping[str, object] = row
    difference, bounds, p_value = paired["difference"], paired["ci"], paired["p_value"]
    if not (isinstance(difference, float) and isinstance(bounds, list) and isinstance(p_value, int | float)):
        return []
    low, high = bounds
    return [f"  Lift over {over}: {difference:+.1%} [{low:+.1%}, {high:+.1%}], p = {p_value:.2g}"]

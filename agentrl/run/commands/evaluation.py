"""`agentrl eval` and `compare`."""

from __future__ import annotations

import contextlib
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from agentrl.errors import AgentrlError, ConfigError
from agentrl.run.commands.training import Flag, Json  # noqa: TC001  # cyclopts reads annotations

if TYPE_CHECKING:
    from agentrl.run.compare import Comparison
    from agentrl.run.outcome import Evaluation, Row
    from agentrl.run.players import Player
    from agentrl.run.suite import EvaluationSuite

Names = Annotated[list[str] | None, Parameter(negative="")]


def evaluate(
    suite: str,
    /,
    *overrides: str,
    policy: Names = None,
    only: Flag = False,
    tasks: int | None = None,
    out: Path | None = None,
    as_json: Json = False,
    fail_below: float | None = None,
) -> int:
    """Evaluate policies on a suite of scenarios.

    Args:
        suite: a TOML file, or a scenario such as household/eval.
        overrides: settings on top, as section.name=value.
        policy: random, expert, hf:PATH, openai:URL#MODEL, or a run directory with or without a checkpoint
            (RUN:warm-start, RUN:trained, RUN:best); may be given several times, and plays beside the suite's
            own policies.
        only: leave out the suite's own policies.
        tasks: play at most so many tasks of each scenario.
        out: a new folder for eval.json and the journals of all trajectories. By default eval.json alone is
            written, to a new folder under runs.
        as_json: print eval.json; the rows go to standard error as they come.
        fail_below: exit with 1 where the lower bound of a 95 % interval is below this, for the policies given
            by --policy (for all, where none is). Without it each scenario's own threshold holds.
    """
    from agentrl.config import load
    from agentrl.run.players import player_of
    from agentrl.run.scenarios import find
    from agentrl.run.suite import EvaluationSuite

    if fail_below is not None and not 0 <= fail_below <= 1:
        raise ConfigError(f"--fail-below is a share between 0 and 1; got {fail_below:g}.")
    settings = _shortened(load(EvaluationSuite, find(suite), overrides), tasks)
    given = policy or []
    names = list(dict.fromkeys([*(() if only else settings.policies), *given]))
    if not names:
        raise ConfigError("nobody plays: name a --policy (random, expert, hf:PATH or a run directory).")
    players = [player_of(name, settings.server) for name in names]
    evaluation, file = _play(settings, players, out)
    if as_json:
        print(file.read_text(encoding="utf-8"))
    else:
        _show(evaluation)
        print(f"Written to {file}")
    failing = evaluation.below(fail_below, given)
    for row in failing:
        least = row.scenario.threshold if fail_below is None else fail_below
        found = "success is unknown" if row.verdict.unknown else f"interval begins at {row.success.low:.1%}"
        print(
            f"below {least:.1%}: {row.policy} on {row.scenario.title} ({row.mode}), whose {found}.",
            file=sys.stderr,
        )
    return 1 if failing else 0


def compare(
    before: Path,
    after: Path,
    /,
    *,
    policy_before: str = "",
    policy_after: str = "",
    as_json: Json = False,
) -> None:
    """Compare two evaluations of the same tasks: the paired difference, its interval and p-value.

    Args:
        before: an eval.json, or the folder of one.
        after: another; the same one to compare two policies of it.
        policy_before: whose rows of the first, where it holds several policies.
        policy_after: whose rows of the second.
        as_json: print JSON.
    """
    from agentrl.run.compare import compare as paired

    found = paired(before, after, policy_before, policy_after)
    if as_json:
        print(json.dumps([item.content() for item in found]))
    else:
        _show_comparisons(found)


def _play(suite: EvaluationSuite, players: list[Player], out: Path | None) -> tuple[Evaluation, Path]:
    if any(player.folder is not None for player in players):
        from agentrl.run.commands.training import need_torch

        need_torch("Evaluating a model")
    from agentrl.run.evaluate import open_folder, play_suite

    folder = open_folder(out or _default_folder(suite.name))
    try:
        evaluation = play_suite(suite, players, folder if out else None, _tell)
    except AgentrlError:
        with contextlib.suppress(OSError):  # what was played stays
            (folder.path / "trajectories").rmdir()
            folder.path.rmdir()
        raise
    folder.write_json("eval.json", evaluation.content())
    return evaluation, folder.path / "eval.json"


def _shortened(suite: EvaluationSuite, tasks: int | None) -> EvaluationSuite:
    """The suite with at most so many tasks in each scenario."""
    if tasks is None:
        return suite
    if tasks < 1:
        raise ConfigError(f"--tasks is a number of tasks, 1 or more; got {tasks}.")
    short = tuple(item.model_copy(update={"tasks": min(item.tasks, tasks)}) for item in suite.scenario)
    return suite.model_copy(update={"scenario": short})


def _default_folder(name: str) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S-%f")
    return Path("runs") / f"eval-{name.replace('/', '-')}-{stamp}"


def _known(value: float | None, form: str = ",.0f") -> str:
    return "unknown" if value is None else format(value, form)


def _tell(row: Row) -> None:
    usage = row.usage()
    spent = (
        f"; {_known(usage['prompt_tokens'])} prompt and {_known(usage['completion_tokens'])} completion "
        f"tokens, cost {_known(usage['cost'], '.4g')}, {_known(usage['retries'])} calls repeated"
        if usage
        else ""
    )
    success = "success unknown" if row.verdict.unknown else f"{row.success.mean:.1%}"
    print(f"{row.title}: {success} in {row.seconds:.1f} s{spent}", file=sys.stderr, flush=True)


def _show(evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    from agentrl.run.outcome import COLUMNS

    console = Console()
    if not console.is_terminal:
        print(evaluation)
        return
    table = Table(title=f"{evaluation.suite.get('name', 'evaluation')} ({evaluation.seconds:.0f} s)")
    for place, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if place < 3 else "right", no_wrap=place == 4)
    for row in evaluation.rows:
        table.add_row(*row.cells())
    console.print(table)
    for note in evaluation.notes():
        print(note)


def _show_comparisons(found: list[Comparison]) -> None:
    for item in found:
        paired = item.paired
        print(
            f"{item.scenario} ({item.mode}): {item.after} minus {item.before} = {paired.difference:+.1%} "
            f"[{paired.low:+.1%}, {paired.high:+.1%}] over {paired.n_tasks} tasks, p = {paired.p_value:.3g} "
            f"({paired.test}), {item.corrected:.3g} after Holm"
        )

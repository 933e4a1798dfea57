"""`agentrl export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003  # cyclopts reads annotations
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from agentrl.run.commands.training import Flag, Json  # noqa: TC001  # cyclopts reads annotations

if TYPE_CHECKING:
    from agentrl.interchange.export import Exported


def export(  # one door with a default for everything but the first three
    source: Path,
    out: Path,
    /,
    *,
    to: str,
    successes: Flag = False,
    least_reward: Annotated[float | None, Parameter(allow_leading_hyphen=True)] = None,
    unique: Flag = False,
    force: Flag = False,
    as_json: Json = False,
) -> None:
    """Write trajectories in a form that other programs read.

    Args:
        source: a run directory, the folder of an evaluation, or a file of trajectories (.jsonl.zst, .jsonl,
            .parquet of one row per turn).
        out: the file to write; it appears when it is whole.
        to: jsonl (exact), parquet (a row per trajectory), parquet-turns (a row per turn, exact), sft
            (conversations), sft-tokens (exact tokens and labels), trl (tokens, masks, log-probabilities),
            trl-chat (prompt and completion with rewards), verl (a row per task), verl-sft (conversations),
            inspect (.eval), or inspect-json.
        successes: only trajectories that the environment calls a success.
        least_reward: only trajectories whose sum of rewards is at least this.
        unique: of equal conversations only the first.
        force: replace the file where it exists.
        as_json: print what was written as JSON.
    """
    from agentrl.interchange.export import export as write

    done = write(source, to, out, successes=successes, least_reward=least_reward, unique=unique, force=force)
    if as_json:
        print(json.dumps(done.content()))
        return
    print(f"{done.rows:,} rows of {done.trajectories:,} trajectories, written to {done.path}")
    for line in _remarks(done):
        print(line, file=sys.stderr)


def _remarks(done: Exported) -> list[str]:
    remarks = [f"left out: {count:,} ({reason})" for reason, count in done.left_out.items()]
    if done.torn_bytes:
        remarks.append(
            f"left out: the last record, cut after {done.torn_bytes:,} bytes (is the run at work?)"
        )
    if done.damaged_bytes:
        remarks.append(f"left out: {done.damaged_bytes:,} bytes of damaged records, which cannot be read")
    if done.rewritten:
        remarks.append(
            f"{done.rewritten:,} trajectories were played with a rewritten history; their conversations hold "
            "the full one, their tokens what the model saw"
        )
    return remarks

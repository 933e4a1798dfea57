"""`export`: trajectories of a run, an evaluation or a file, written in a form that another program reads."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentrl.errors import ConfigError, did_you_mean
from agentrl.interchange import layouts
from agentrl.interchange.inspect_log import Archive, Document, Log, moment
from agentrl.interchange.select import FAILED, Selection, Sieve
from agentrl.interchange.sink import Lines, Records, Table
from agentrl.interchange.source import Source
from agentrl.trajectory.record import sentence
from agentrl.trajectory.table import RowWriter, turn_rows, turn_schema
from agentrl.trajectory.turn import Invalid, Trajectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from agentrl.interchange.sink import Rows, Sink
    from agentrl.trajectory.record import Record


@dataclass(frozen=True, slots=True)
class Origin:
    """Where records come from: a name, and when the newest of its files was written, in seconds."""

    name: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Format:
    """A form of file.

    Args:
        about: one line for people.
        open: begins a file of this form.
        ending: of such a file's name.
        failures: whether it has a place for rollouts that failed; they are left out otherwise.
    """

    about: str
    open: Callable[[Path, Origin], Sink]
    ending: str
    failures: bool = False


@dataclass(frozen=True, slots=True)
class OpenTable:
    """Begins a Parquet file of given rows."""

    rows: Rows
    schema: Callable[[], object]
    once: Callable[[Trajectory], str] | None = None

    def __call__(self, path: Path, origin: Origin) -> Sink:
        """Return the file."""
        return Table(RowWriter(path, self.schema()), self.rows, self.once)


@dataclass(frozen=True, slots=True)
class OpenLines:
    """Begins a file of JSON lines."""

    rows: Rows

    def __call__(self, path: Path, origin: Origin) -> Sink:
        """Return the file."""
        return Lines(path, self.rows)


def open_records(path: Path, _origin: Origin) -> Sink:
    """Begin a lossless file."""
    return Records(path)


def open_archive(path: Path, origin: Origin) -> Sink:
    """Begin a `.eval` log."""
    return Log(Archive(path), moment(origin.seconds), origin.name)


def open_document(path: Path, origin: Origin) -> Sink:
    """Begin a `.json` log."""
    return Log(Document(path), moment(origin.seconds), origin.name)


FORMATS: Final[Mapping[str, Format]] = {
    "jsonl": Format(
        "every record as a line of JSON, exactly; export reads it again", open_records, ".jsonl", True
    ),
    "parquet": Format(
        "a table of one row per trajectory",
        OpenTable(layouts.trajectory_row, layouts.trajectory_schema),
        ".parquet",
    ),
    "parquet-turns": Format(
        "a table of one row per turn, exactly; export reads it again",
        OpenTable(turn_rows, turn_schema),
        ".parquet",
    ),
    "sft": Format(
        "conversations (messages) as JSON lines, for SFT trainers", OpenLines(layouts.chat_row), ".jsonl"
    ),
    "sft-tokens": Format(
        "the exact tokens (input_ids, labels) as Parquet, one row per stream",
        OpenTable(layouts.label_rows, layouts.label_schema),
        ".parquet",
    ),
    "trl": Format(
        "prompt_ids, completion_ids, env_mask, logprobs and reward as Parquet, one row per stream",
        OpenTable(layouts.rollout_rows, layouts.rollout_schema),
        ".parquet",
    ),
    "trl-chat": Format(
        "prompt and completion as conversations with reward and label, as JSON lines",
        OpenLines(layouts.preference_row),
        ".jsonl",
    ),
    "verl": Format(
        "prompts, data_source, reward_model and extra_info as Parquet, one row per task",
        OpenTable(layouts.task_row, layouts.task_schema, layouts.task_of),
        ".parquet",
    ),
    "verl-sft": Format(
        "conversations (messages) as Parquet, for verl's multi-turn SFT",
        OpenTable(layouts.chat_row, layouts.chat_schema),
        ".parquet",
    ),
    "inspect": Format("a log of Inspect AI (.eval)", open_archive, ".eval", True),
    "inspect-json": Format("a log of Inspect AI (.json)", open_document, ".json", True),
}
"""Every form, by the name that `agentrl export --to` takes."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        rows: lines, rows or samples; `trajectories`: from how many.
        left_out: counts of records by the reason why they are not there.
        torn_bytes: of records that a dying process left half written; `damaged_bytes`: of records that can no
            longer be read, before others that can.
        rewritten: trajectories whose history was rewritten on the way; conversations hold all of it.
    """

    path: Path
    form: str
    rows: int
    trajectories: int
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    torn_bytes: int = 0
    damaged_bytes: int = 0
    rewritten: int = 0

    def content(self) -> dict[str, object]:
        """Return it as plain data."""
        return {
            "path": str(self.path),
            "format": self.form,
            "rows": self.rows,
            "trajectories": self.trajectories,
            "left_out": dict(self.left_out),
            "torn_bytes": self.torn_bytes,
            "damaged_bytes": self.damaged_bytes,
            "rewritten_histories": self.rewritten,
        }


def export(  # one door with a default for everything but the first three
    source: str | os.PathLike[str] | Iterable[Record],
    to: str,
    out: str | os.PathLike[str],
    *,
    successes: bool = False,
    least_reward: float | None = None,
    unique: bool = False,
    force: bool = False,
) -> Exported:
    """Write trajectories to one file in a form that another program reads.

    The file is written aside and renamed when it is whole, in the memory of a few records.

    Args:
        source: a run directory, the folder of an evaluation, a file of trajectories, or records in memory.
        to: a name of `FORMATS`.
        out: the file; it may not exist, unless `force` is given.
        successes, least_reward, unique: which trajectories; see `Selection`.
        force: replace an existing file.

    Raises:
        ConfigError: no such form, the file exists, or nothing is left to write.
        RunDirectoryError: the source cannot be read, or the file cannot be written.
        BatchError: the form wants tokens and a policy gave only texts.
    """
    form = _format(to)
    where = Path(out)
    records, origin = _opened(source)
    _check_ending(where, to, form)
    _check_target(where, records, force=force)
    # In the folder of its target, or the last rename could not be atomic.
    part = where.with_name(f".{where.name}.{os.getpid()}")
    with sentence(where, "written"):
        where.parent.mkdir(parents=True, exist_ok=True)
        try:
            done = _write(form, part, origin, records, Sieve(Selection(successes, least_reward, unique)))
            torn, damaged = _unread(records)
            done = replace(done, path=where, form=to, torn_bytes=torn, damaged_bytes=damaged)
            _check_rows(done, origin)
            part.replace(where)
        finally:
            part.unlink(missing_ok=True)
    return done


def _format(name: str) -> Format:
    found = FORMATS.get(name)
    if found is None:
        raise ConfigError(
            f"there is no form {name!r}.{did_you_mean(name, FORMATS)} Trajectories are exported to "
            f"{', '.join(FORMATS)}."
        )
    return found


def _opened(source: str | os.PathLike[str] | Iterable[Record]) -> tuple[Iterable[Record], Origin]:
    if not isinstance(source, str | os.PathLike):
        return source, Origin("records in memory")
    found = Source.of(source)
    # The folder's name and no path: the file may be given away.
    return found, Origin(Path(source).name, max(file.stat().st_mtime for file in found.files))


def _check_ending(where: Path, to: str, form: Format) -> None:
    """Raise `ConfigError` where a name says that the file is of another form."""
    others = [name for name, other in FORMATS.items() if other.ending == where.suffix]
    if others and where.suffix != form.ending:
        raise ConfigError(
            f"{where.name} is the name of a file that --to {' or '.join(others)} writes; --to {to} writes "
            f"{form.ending}. Rename it to {where.with_suffix(form.ending).name}, or choose the other form."
        )


def _check_target(where: Path, records: Iterable[Record], *, force: bool) -> None:
    if where.is_dir():
        raise ConfigError(f"{where} is a folder; name a file in it, such as {where / 'trajectories'}.")
    if isinstance(records, Source) and any(_same_file(file, where) for file in records.files):
        raise ConfigError(f"{where} is what is read; give another file to write.")
    if where.exists() and not force:
        raise ConfigError(f"{where} exists; choose another file, or replace it with --force.")


def _same_file(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def _write(form: Format, part: Path, origin: Origin, records: Iterable[Record], sieve: Sieve) -> Exported:
    rows = trajectories = rewritten = 0
    left_out: Counter[str] = Counter()
    with contextlib.closing(form.open(part, origin)) as sink:
        for record in records:
            reason = sieve.reason_against(record)
            if reason is None and isinstance(record, Invalid) and not form.failures:
                reason = FAILED
            if reason is not None:
                left_out[reason] += 1
                continue
            written = sink.add(record)
            rows += written
            if isinstance(record, Trajectory):
                left_out["nothing new to write"] += not written
                trajectories += bool(written)
                rewritten += any(turn.fresh for turn in record.turns[1:])
    return Exported(part, "", rows, trajectories, dict(+left_out), rewritten=rewritten)


def _unread(records: Iterable[Record]) -> tuple[int, int]:
    """Bytes of torn and of damaged records."""
    if not isinstance(records, Source):
        return 0, 0
    return sum(records.torn.values()), sum(records.damaged.values())


def _damage(done: Exported) -> str:
    unread = done.torn_bytes + done.damaged_bytes
    return f" that can be read; {unread:,} bytes are torn or damaged" if unread else ""


def _check_rows(done: Exported, origin: Origin) -> None:
    """Raise `ConfigError` where nothing was written."""
    if done.rows:
        return
    left = ", ".join(f"{count} with {reason}" for reason, count in done.left_out.items())
    raise ConfigError(
        f"nothing of {origin.name} is left to write"
        + (f": left out were {left}. Ask for less." if left else f": it holds no record{_damage(done)}.")
    )

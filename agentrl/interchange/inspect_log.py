"""Logs of Inspect AI, written without it: what `inspect view` and `inspect_ai.log` read (schema version 2).

A `.eval` file is a zip of JSON: `header.json`, `summaries.json`, and one file for each sample. A `.json` file
is one object. Source: `inspect_ai.log.EvalLog` and `inspect_ai/log/_recorders` of version 0.3.285.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, BinaryIO, Final, Protocol

from agentrl.interchange.conversation import conversation_of, opening_of
from agentrl.interchange.sink import json_line
from agentrl.trajectory.turn import Invalid, StopReason, Trajectory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agentrl.interchange.sink import Row
    from agentrl.trajectory.record import Record

VERSION: Final = 2
LIMITS: Final[Mapping[StopReason, str]] = {
    StopReason.MAX_TURNS: "turn",
    StopReason.MAX_TOKENS: "token",
    StopReason.CONTEXT: "context",
    StopReason.TRUNCATED: "custom",
    StopReason.REPEATED: "custom",
}
"""What Inspect calls the limits that end a sample."""

SUMMARY: Final = ("id", "epoch", "input", "target", "scores", "metadata", "uuid", "limit", "turn_count")
"""Fields that a sample's summary repeats."""


@dataclass
class Tally:
    """What the header says of all samples: names, counts and means, kept while they are written."""

    epochs: Counter[str] = field(default_factory=Counter[str])
    policies: dict[str, None] = field(default_factory=dict[str, None])
    environments: dict[str, None] = field(default_factory=dict[str, None])
    successes: list[int] = field(default_factory=lambda: [0, 0])
    rewards: list[float] = field(default_factory=lambda: [0.0, 0.0])
    samples: int = 0
    failed: int = 0

    def count(self, record: Record) -> int:
        """Note a record and return its epoch: how often its task was played so far."""
        self.epochs[record.task] += 1
        self.environments[record.environment] = None
        self.samples += 1
        if isinstance(record, Invalid):
            self.failed += 1
            return self.epochs[record.task]
        self.policies[record.policy] = None
        if record.success is not None:
            self.successes[record.success] += 1
        if math.isfinite(record.reward):
            self.rewards[0] += record.reward
            self.rewards[1] += 1
        return self.epochs[record.task]

    def header(self, created: str, origin: str) -> dict[str, object]:
        """Return everything but the samples."""
        task = ", ".join(self.environments) or "agentrl"
        model = ", ".join(name or "unnamed" for name in self.policies) or "none"
        identity = hashlib.blake2b(f"{origin}\n{created}\n{task}".encode(), digest_size=11).hexdigest()
        return {
            "version": VERSION,
            "status": "success",
            "eval": {
                "eval_id": identity,
                "run_id": identity,
                "task_id": identity,
                "created": created,
                "task": task,
                "dataset": {"name": task, "samples": len(self.epochs)},
                "model": model,
                "config": {"epochs": max(self.epochs.values(), default=1)},
                "packages": {},
                "metadata": {"source": origin, "written_by": "agentrl"},
            },
            "plan": {"name": "agentrl", "steps": []},
            "results": {
                "total_samples": self.samples,
                "completed_samples": self.samples - self.failed,
                "scores": self._scores(),
            },
            "stats": {"started_at": created, "completed_at": created},
        }

    def _scores(self) -> list[dict[str, object]]:
        lost, won = self.successes
        total, count = self.rewards
        found = {"success": (won, lost + won, "accuracy"), "reward": (total, int(count), "mean")}
        return [
            {
                "name": name,
                "scorer": name,
                "scored_samples": judged,
                "metrics": {metric: {"name": metric, "value": summed / judged}},
            }
            for name, (summed, judged, metric) in found.items()
            if judged
        ]


def sample_of(record: Record, epoch: int) -> dict[str, object]:
    """Return a record as Inspect's sample; a failed rollout is one with an error and without a score."""
    identity = f"{record.group}:{record.member}:{record.step}:{epoch}"
    shared: dict[str, object] = {"id": record.task, "epoch": epoch, "uuid": identity}
    if isinstance(record, Invalid):
        detail = f"{record.reason.value}: {record.detail}"
        error = {"message": detail, "traceback": detail, "traceback_ansi": detail}
        return {**shared, "input": "", "target": "", "error": error, "metadata": {"member": record.member}}
    messages = conversation_of(record)
    limit = LIMITS.get(record.stop)
    last = messages[-1] if record.turns else {"role": "assistant", "content": ""}
    reply = {"message": {**last, "source": "generate"}, "stop_reason": "stop"}
    return {
        **shared,
        "input": opening_of(record),
        "target": record.gold or "",
        "messages": [
            *messages,
            *([{"role": "user", "content": record.final_observation}] if record.turns else []),
        ],
        "output": {
            "model": record.policy or "unnamed",
            "choices": [reply],
            "completion": last["content"],
        },
        "scores": _scores_of(record),
        "metadata": _metadata_of(record),
        "turn_count": len(record.turns),
        **({"limit": {"type": limit, "limit": float(len(record.turns))}} if limit else {}),
    }


def _scores_of(item: Trajectory) -> dict[str, object]:
    values = {"success": None if item.success is None else float(item.success), "reward": item.reward}
    return {
        name: {"value": value} for name, value in values.items() if value is not None and math.isfinite(value)
    }


def _metadata_of(item: Trajectory) -> dict[str, object]:
    names = ("group", "member", "seed", "step", "task_type", "parent", "branch_turn", "sandbox_tier")
    return {
        **{name: getattr(item, name) for name in names},
        "trajectory": item.id,
        "stop": item.stop.value,
        "turns": [
            {"reward": turn.reward, "kind": turn.kind.value, "valid": turn.valid} for turn in item.turns
        ],
    }


def summary_of(sample: Mapping[str, object]) -> dict[str, object]:
    """Return what lists of samples show."""
    found = {name: sample[name] for name in SUMMARY if name in sample}
    limit, error, messages = sample.get("limit"), sample.get("error"), sample.get("messages")
    return {
        **found,
        "limit": limit["type"] if isinstance(limit, dict) else None,
        "error": error["message"] if isinstance(error, dict) else None,
        "completed": True,
        "message_count": len(messages) if isinstance(messages, list) else 0,
        "metadata": {},
    }


class Container(Protocol):
    """What holds the samples."""

    def sample(self, name: str, line: bytes) -> None:
        """Add one."""
        ...

    def finish(self, header: Row) -> None:
        """Add the header and close the file."""
        ...


@dataclass
class Log:
    """A log that is being written."""

    container: Container
    created: str
    origin: str
    tally: Tally = field(default_factory=Tally)

    def add(self, record: Record) -> int:
        """Write one sample."""
        epoch = self.tally.count(record)
        sample = sample_of(record, epoch)
        self.container.sample(f"samples/{record.task}_epoch_{epoch}.json", json_line(sample))
        return 1

    def close(self) -> None:
        """Write the header."""
        self.container.finish(self.tally.header(self.created, self.origin))


class Archive:
    """The zip of a `.eval` file. Summaries wait in a file of their own, for they come last."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self._summaries: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by finish

    def sample(self, name: str, line: bytes) -> None:
        """Add a sample and its summary."""
        self._write(name, line)
        self._summaries.write(b"," if self._summaries.tell() else b"[")
        self._summaries.write(json_line(summary_of(json.loads(line))))

    def finish(self, header: Row) -> None:
        """Add the summaries and the header."""
        with self._summaries, self._zip:
            start = {name: header[name] for name in ("version", "eval", "plan")}
            self._write("_journal/start.json", json_line(start))
            self._summaries.write(b"]" if self._summaries.tell() else b"[]")
            self._summaries.seek(0)
            with self._zip.open(_entry("summaries.json"), "w", force_zip64=True) as file:
                shutil.copyfileobj(self._summaries, file)
            self._write("header.json", json_line(header))

    def _write(self, name: str, content: bytes) -> None:
        self._zip.writestr(_entry(name), content)


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry without a clock, so that equal logs are equal bytes."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


class Document:
    """The single object of a `.json` log."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._samples: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by finish

    def sample(self, name: str, line: bytes) -> None:
        """Add a sample."""
        del name
        self._samples.write(b"," if self._samples.tell() else b"")
        self._samples.write(line)

    def finish(self, header: Row) -> None:
        """Write the header before the samples, as readers of headers expect."""
        with self._samples, self._file:
            self._file.write(json_line(header).rstrip().removesuffix(b"}") + b',"samples":[')
            self._samples.seek(0)
            shutil.copyfileobj(self._samples, self._file)
            self._file.write(b"]}\n")


def moment(seconds: float) -> str:
    """Return a time as Inspect writes it."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds")

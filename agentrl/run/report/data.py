"""What the report knows about a run: plain JSON, read forgivingly, and nothing in it taken for granted.

Every part of a run directory may be missing, and a running training may have torn the last line of a file.
Several seeds are either rows with a "seed", or folders `seed*/` that each look like a run directory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from agentrl.errors import RunDirectoryError
from agentrl.run.statistics import mean_interval

if TYPE_CHECKING:
    from pathlib import Path

JsonObject: TypeAlias = Mapping[str, object]

PARTS = ("run.toml", "metrics.jsonl", "summary.json", "samples.jsonl")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number between `low` and `high`; the bounds are None where no interval is known."""

    mean: float
    low: float | None = None
    high: float | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        name: of the run directory.
        settings: the text of `run.toml`.
        metrics: rows of `metrics.jsonl`; `samples`: trajectories to read.
        summaries: one `summary.json` for each seed, by the seed's name ("" for a run of one seed).
        unreadable: lines and files that could not be read.
    """

    name: str
    settings: str = ""
    metrics: tuple[JsonObject, ...] = ()
    summaries: Mapping[str, JsonObject] = field(default_factory=dict)
    samples: tuple[JsonObject, ...] = ()
    unreadable: int = 0

    @property
    def summary(self) -> JsonObject:
        """The summary of the whole run, or of its first seed."""
        return self.summaries.get("") or next(iter(self.summaries.values()), {})

    def estimate(self, stage: str) -> Estimate | None:
        """Return the success of `warm_start`, `final` or `control`, over tasks or else over seeds.

        Without a summary it is the last evaluation of that stage.
        """
        found = [read_estimate(mapping(summary.get(stage))) for summary in self._pooled()]
        known = [estimate for estimate in found if estimate is not None]
        if len(known) > 1:
            return over_seeds(known)
        return known[0] if known else self._last_evaluation("rl" if stage == "final" else stage)

    def sandbox_tiers(self) -> Sequence[str]:
        """Return how model-written programs were held in the evaluations and in the samples."""
        named = [tier for row in self.summaries.values() for tier in items(row.get("sandbox_tiers"))]
        found = {text(tier) for tier in [*named, *(row.get("sandbox_tier") for row in self.samples)]}
        return sorted(found - {""})

    def _pooled(self) -> Sequence[JsonObject]:
        return [self.summaries[""]] if "" in self.summaries else list(self.summaries.values())

    def _last_evaluation(self, stage: str) -> Estimate | None:
        rows = [row for row in self.metrics if row.get("phase") == "evaluation" and row.get("stage") == stage]
        found = [read_estimate(row) for row in rows if row.get("policy", "trained") == "trained"]
        known = [estimate for estimate in found if estimate is not None]
        return known[-1] if known else None


def read_run(directory: Path) -> ReportData:
    """Read what there is in a run directory.

    Raises:
        RunDirectoryError: the directory does not exist or holds nothing that a report could show.
    """
    if not directory.is_dir():
        raise RunDirectoryError(f"There is no run directory at {directory}. Train first, or check the path.")
    folders = {"": directory} | {path.name: path for path in sorted(directory.glob("seed*")) if path.is_dir()}
    if not any((folder / part).is_file() for folder in folders.values() for part in PARTS):
        raise RunDirectoryError(
            f"{directory} holds none of {', '.join(PARTS)}, so there is nothing to report. "
            "Give the directory that training wrote."
        )
    return _read_folders(directory.resolve().name, folders)


def _read_folders(name: str, folders: Mapping[str, Path]) -> ReportData:
    settings = [text for folder in folders.values() if (text := _read_text(folder / "run.toml"))]
    metrics: list[JsonObject] = []
    samples: list[JsonObject] = []
    summaries: dict[str, JsonObject] = {}
    unreadable = 0
    for seed, folder in folders.items():
        mark = {"seed": seed} if seed else {}
        for rows, part in ((metrics, "metrics.jsonl"), (samples, "samples.jsonl")):
            found = [parse_object(line) for line in _read_text(folder / part).splitlines() if line.strip()]
            rows.extend({**row, **mark} for row in found if row is not None)
            unreadable += found.count(None)
        if content := _read_text(folder / "summary.json"):
            summary = parse_object(content)
            unreadable += summary is None
            if summary is not None:
                summaries[seed] = summary
    return ReportData(
        name, settings[0] if settings else "", tuple(metrics), summaries, tuple(samples), unreadable
    )


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def parse_object(text_of_json: str) -> JsonObject | None:
    """Return the JSON object that a text holds, or None where it is torn or something else."""
    try:
        value = json.loads(text_of_json)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def mapping(value: object) -> JsonObject:
    """Return a JSON object, or an empty one for anything else."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def items(value: object) -> Sequence[object]:
    """Return a JSON array, or an empty one for anything else."""
    return value if isinstance(value, list | tuple) else ()


def objects(value: object) -> Iterator[JsonObject]:
    """Yield the objects of a JSON array."""
    return (mapping(item) for item in items(value) if isinstance(item, Mapping))


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else.

    >>> number(3), number("3"), number(float("nan")), number(True)
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def count(value: object) -> int | None:
    """Return a whole number, or None for anything else."""
    found = number(value)
    return None if found is None else int(found)


def text(value: object) -> str:
    """Return a text as it is, None as nothing, and anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def read_estimate(row: JsonObject) -> Estimate | None:
    """Read a success: a number with "ci" beside it, or an object with "mean" and bounds."""
    nested = mapping(row.get("success"))
    source = nested or row
    mean = number(nested.get("mean")) if nested else number(row.get("success"))
    if mean is None:
        mean = number(row.get("mean"))
    if mean is None:
        return None
    bounds = [number(bound) for bound in items(source.get("ci"))]
    low, high = bounds if len(bounds) == 2 else (number(source.get("low")), number(source.get("high")))
    tasks = next((source[key] for key in ("tasks", "n_tasks", "n") if key in source), None)
    return Estimate(mean, low, high, count(tasks))


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean over seeds with a t interval over seeds."""
    interval = mean_interval({str(seed): [estimate.mean] for seed, estimate in enumerate(estimates)})
    return Estimate(interval.mean, max(0.0, interval.low), min(1.0, interval.high), len(estimates))

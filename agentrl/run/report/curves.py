"""Learning curves and health panels: rows of `metrics.jsonl` against CPU time and against steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from agentrl.run.report.data import Estimate, JsonObject, ReportData, number, read_estimate, text
from agentrl.run.report.figures import Axis, Number, Point, Series, legend, nice_axis, plot
from agentrl.run.report.markup import Markup, element, join
from agentrl.run.statistics import bootstrap_band

Read: TypeAlias = Callable[[JsonObject], Estimate | None]

STAGES = {"warm_start": "Warm start", "rl": "Reinforcement learning", "control": "Control"}
MOST_POINTS = 160
"""A line of training rows is averaged down to this many points; a screen shows no more."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One measure of health: its key in a metrics row, its title, how to read it and how to write it."""

    key: str
    title: str
    hint: str
    write: Number


def plain(value: float) -> str:
    """Write a number with three digits.

    >>> [plain(value) for value in (0.0, 0.01234, 12.3456, 12345.0, 3e-6)]
    ['0', '0.0123', '12.3', '12,345', '3e-06']
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) > 1e-12 else "0"


def percent(value: float) -> str:
    """Write a share in percent.

    >>> [percent(value) for value in (0.5, 0.123, 0.0004)]
    ['50 %', '12.3 %', '0.04 %']
    """
    return f"{100 * value:.3g} %" if abs(value) > 1e-12 else "0 %"


PANELS = (
    Panel("entropy", "Entropy", "nats per token; a fall to zero ends exploration", plain),
    Panel("kl", "KL divergence", "estimated, nats per token", plain),
    Panel("clip_share", "Clipped share", "tokens whose ratio was clipped", percent),
    Panel("logprob_gap", "Log-prob gap", "between sampling and learning; must stay near zero", plain),
    Panel("anchored_share", "Anchored share", "turns that share their state with another turn", percent),
    Panel("anchor_group_size", "Anchor group size", "turns that are compared with each other", plain),
    Panel("invalid_share", "Invalid rate", "actions that the environment did not accept", percent),
    Panel("rewritten_share", "Rewritten history", "turns that began a fresh token stream", percent),
    Panel("void_share", "Void share", "turns that count as void", percent),
    Panel("dropped_share", "Dropped share", "turns that carry no loss", percent),
    Panel("grad_norm", "Gradient norm", "before clipping", plain),
    Panel("loss_policy", "Policy loss", "mean surrogate of the tokens, without penalties", plain),
    Panel("loss", "Supervised loss", "of the control: cross-entropy of the demonstrations", plain),
    Panel("reward", "Reward", "mean of the training batch", plain),
    Panel("turns", "Turns", "per episode of the training batch", plain),
    Panel("tokens_per_second", "Tokens per second", "sampled, whole loop", plain),
)


@dataclass(frozen=True, slots=True)
class Scale:
    """One choice of the horizontal axis. `unit` divides the key's values."""

    key: str
    look: str
    title: str
    unit: float
    write: Number

    def read(self, row: JsonObject) -> float | None:
        """Return where a row stands, or None where it does not say."""
        value = number(row.get(self.key))
        return None if value is None else value / self.unit


def scales(data: ReportData) -> list[Scale]:
    """Return the horizontal axes that the rows allow: CPU time first, then steps."""
    seconds = [value for row in data.metrics if (value := number(row.get("cpu_seconds"))) is not None]
    steps = [row for row in data.metrics if number(row.get("step")) is not None]
    found = []
    if seconds:
        unit, name = _time_unit(max(seconds))
        found.append(Scale("cpu_seconds", "by-cpu", f"CPU time ({name})", unit, plain))
    if steps:
        found.append(Scale("step", "by-step", "training step", 1.0, plain))
    return found


def _time_unit(longest: float) -> tuple[float, str]:
    if longest >= 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if longest >= 180 else (1.0, "seconds")


def learning_curves(data: ReportData) -> Markup:
    """Return one figure for each evaluated split, with the success of training batches as a thin line."""
    evaluations = [row for row in data.metrics if _is_curve(row)]
    splits = list(dict.fromkeys(text(row.get("split")) for row in evaluations)) or [""]
    figures = []
    for index, split in enumerate(splits):
        rows = [row for row in evaluations if text(row.get("split")) == split]
        drawn = [_learning_curve(data, rows, scale, with_training=index == 0) for scale in scales(data)]
        if any(drawn):
            title = element("figcaption", f"Success on {split}" if split else "Success")
            figures.append(element("figure", title, join(drawn), class_="card wide"))
    return join(figures)


def _is_curve(row: JsonObject) -> bool:
    """Final evaluations have the step -1: they are headline numbers, not points of a curve."""
    drawn = (number(row.get("step")) or 0) >= 0
    return row.get("phase") == "evaluation" and drawn and text(row.get("policy")) in {"", "trained"}


def _learning_curve(
    data: ReportData, evaluations: Sequence[JsonObject], scale: Scale, *, with_training: bool
) -> Markup:
    stages = _stages_in_line(data, scale)
    training = [_training_series(data, stage, "success", scale) for stage in stages] if with_training else []
    evaluated = [
        _evaluated_series(evaluations, stage, mode, scale) for stage in stages for mode in _modes(evaluations)
    ]
    series = [curve for curve in [*training, *evaluated] if curve.points]
    if not series:
        return Markup()
    guide = _start_level(evaluations)
    named = [curve for curve in [*evaluated, *training] if curve.points]
    entries = [(curve.name, f"{curve.look}{' thin' if curve.thin else ''}") for curve in named]
    entries += [("Level after warm start", "guide")] if guide else []
    drawing = plot(series, _horizontal(series, scale), _success_axis(), "success while training", guide)
    return element("div", legend(entries), drawing, _axis_title(scale), class_=f"tall {scale.look}")


def _start_level(evaluations: Sequence[JsonObject]) -> Point | None:
    """What the warm start reached on the very tasks of this curve; its headline number is of other tasks."""
    sampled = [row for row in evaluations if text(row.get("mode")) in {"", "sampled"}]
    begun = [row for row in sampled if text(row.get("stage")) == "rl" and number(row.get("step")) == 0]
    taught = [row for row in sampled if text(row.get("stage")) == "warm_start"]
    last = max((number(row.get("step")) or 0.0 for row in taught), default=0.0)
    starts = begun or [row for row in taught if number(row.get("step")) == last]
    means = [found.mean for row in starts if (found := read_estimate(row)) is not None]
    return Point(0.0, sum(means) / len(means)) if means else None


def _stages_in_line(data: ReportData, scale: Scale) -> list[str]:
    """Leave the warm start out where the later phases count from zero again and would lie on top of it."""
    places: dict[str, list[float]] = {}
    for row in data.metrics:
        stage, x = text(row.get("stage") or row.get("phase")), scale.read(row)
        if x is not None and x >= 0:
            places.setdefault("first" if stage == "warm_start" else "later", []).append(x)
    overlap = "later" in places and min(places["later"]) < max(places.get("first", [0.0]))
    return [stage for stage in STAGES if not (overlap and stage == "warm_start")]


def _modes(rows: Iterable[JsonObject]) -> list[str]:
    return list(dict.fromkeys(text(row.get("mode")) for row in rows))


def _evaluated_series(rows: Iterable[JsonObject], stage: str, mode: str, scale: Scale) -> Series:
    chosen = [row for row in rows if row.get("stage", "rl") == stage and text(row.get("mode")) == mode]
    name = f"{STAGES[stage]}, {mode}" if mode else STAGES[stage]
    look = stage.replace("_", "-") + (" dashed" if mode == "greedy" else "")
    return Series(name, trace(chosen, scale, read_estimate), look)


def _training_series(data: ReportData, phase: str, key: str, scale: Scale) -> Series:
    rows = [row for row in data.metrics if row.get("phase") == phase]
    points = thin_out(trace(rows, scale, lambda row: _estimate(row, key)))
    bare = tuple(Point(point.x, point.y) for point in points)
    return Series(f"{STAGES[phase]}, training batches", bare, phase.replace("_", "-"), thin=True)


def _estimate(row: JsonObject, key: str) -> Estimate | None:
    value = number(row.get(key))
    return None if value is None else Estimate(value)


def trace(rows: Iterable[JsonObject], scale: Scale, read: Read) -> tuple[Point, ...]:
    """Return the points of one curve; of several seeds, their mean at each step and a bootstrap band."""
    seeds: dict[str, dict[float, Point]] = {}
    for row in rows:
        x, estimate = scale.read(row), read(row)
        if x is not None and estimate is not None:
            step = number(row.get("step"))
            point = Point(x, estimate.mean, estimate.low, estimate.high)
            seeds.setdefault(text(row.get("seed")), {})[x if step is None else step] = point
    curves = list(seeds.values())
    points = _over_seeds(curves) if len(curves) > 1 else [*curves[0].values()] if curves else []
    return tuple(sorted(points, key=lambda point: point.x))


def _over_seeds(curves: Sequence[Mapping[float, Point]]) -> list[Point]:
    steps = sorted(set().union(*curves))
    missing = Point(np.nan, np.nan)
    table = np.array([[curve.get(step, missing).y for step in steps] for curve in curves])
    band = bootstrap_band(table, resamples=400)
    places = [[curve[step].x for curve in curves if step in curve] for step in steps]
    return [
        Point(sum(xs) / len(xs), float(mean), float(low), float(high))
        for xs, mean, low, high in zip(places, band.mean, band.low, band.high, strict=True)
    ]


def thin_out(points: Sequence[Point]) -> tuple[Point, ...]:
    """Average neighbours until a curve has at most `MOST_POINTS` points."""
    size = -(-len(points) // MOST_POINTS) or 1
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple(
        Point(sum(point.x for point in chunk) / len(chunk), sum(point.y for point in chunk) / len(chunk))
        for chunk in chunks
    )


def health_panels(data: ReportData) -> Markup:
    """Return small multiples of everything that tells whether training is well."""
    drawn = [_panel(data, panel) for panel in PANELS]
    if not any(drawn):
        return Markup()
    phases = {row.get("phase") for row in data.metrics}
    swatches = [(STAGES[stage], stage) for stage in ("rl", "control") if stage in phases]
    axes = [element("p", f"against {scale.title}", class_=f"note {scale.look}") for scale in scales(data)]
    head = element("div", legend(swatches), *axes, class_="health-head")
    return join([head, element("div", join(drawn), class_="panels")])


def _panel(data: ReportData, panel: Panel) -> Markup:
    drawn = join(_panel_plot(data, panel, scale) for scale in scales(data))
    if not drawn:
        return Markup()
    title = element("figcaption", panel.title, element("small", panel.hint))
    return element("figure", title, drawn, class_="card small")


def _panel_plot(data: ReportData, panel: Panel, scale: Scale) -> Markup:
    stages = ("rl", "control")
    found = [_training_series(data, stage, panel.key, scale) for stage in stages]
    series = [
        Series(STAGES[stage], curve.points, curve.look, thin=True)
        for stage, curve in zip(stages, found, strict=True)
        if curve.points
    ]
    if not series:
        return Markup()
    y = nice_axis([point.y for curve in series for point in curve.points], panel.write, count=3)
    drawing = plot(series, _horizontal(series, scale), y, panel.title)
    return element("div", drawing, class_=scale.look)


def _horizontal(series: Sequence[Series], scale: Scale) -> Axis:
    places = [point.x for curve in series for point in curve.points]
    return nice_axis([min(0.0, *places), *places], scale.write, tight=True)


def _success_axis() -> Axis:
    return Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), percent)


def _axis_title(scale: Scale) -> Markup:
    return element("p", scale.title, class_="axis-title")

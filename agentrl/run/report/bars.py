"""Before and after in bars: headline numbers, success by task type, reasons to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.run.progress import duration
from agentrl.run.report.data import (
    Estimate,
    JsonObject,
    ReportData,
    items,
    mapping,
    number,
    over_seeds,
    read_estimate,
)
from agentrl.run.report.figures import legend, range_bar
from agentrl.run.report.markup import Markup, element, join

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BEFORE_AFTER = (("warm_start", "After warm start", "warm-start"), ("final", "After training", "rl"))
LIFTS = (("lift", "Lift over warm start"), ("lift_over_control", "Lift over control"))
CARDS = (*BEFORE_AFTER, ("control", "Control", "control"))


def headline(data: ReportData) -> Markup:
    """Return the numbers that answer what the run achieved, each with its interval."""
    cards = [_success_card(data, stage, title, look) for stage, title, look in CARDS]
    cards += [_lift_card(mapping(data.summary.get(key)), title) for key, title in LIFTS]
    return element("div", join(cards), class_="cards") if any(cards) else Markup()


def _success_card(data: ReportData, stage: str, title: str, look: str) -> Markup:
    estimate = data.estimate(stage)
    if estimate is None:
        return Markup()
    unit = "seeds" if "" not in data.summaries and len(data.summaries) > 1 else "tasks"
    return element(
        "div",
        element("h3", element("i", class_=f"swatch {look}"), title),
        element("p", share(estimate.mean), class_="number"),
        range_bar(estimate.mean, estimate.low, estimate.high, look),
        element("p", interval(estimate, unit), class_="note"),
        class_="card",
    )


def _lift_card(lift: JsonObject, title: str) -> Markup:
    difference = number(lift.get("difference", lift.get("mean")))
    if difference is None:
        return Markup()
    bounds = [number(bound) for bound in items(lift.get("ci")) or (lift.get("low"), lift.get("high"))]
    p_value = number(lift.get("p_value", lift.get("p")))
    known = [points(bound) for bound in bounds if bound is not None]
    notes = [
        " to ".join(known) if len(known) == 2 else "",
        p_text(p_value),
        "paired",
    ]
    return element(
        "div",
        element("h3", title),
        element("p", points(difference), element("small", " points"), class_="number"),
        element("p", " · ".join(note for note in notes if note), class_="note"),
        class_="card",
    )


def share(value: float) -> str:
    """Write a share in percent with one decimal.

    >>> share(0.70349)
    '70.3 %'
    """
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """Write a difference of shares in percentage points.

    >>> points(0.1), points(-0.25)
    ('+10.0', '−25.0')
    """
    return f"{100 * value:+.1f}".replace("-", "−")


def p_text(value: float | None) -> str:
    """Write a p-value, never as zero.

    >>> p_text(0.04), p_text(1e-9)
    ('p = 0.04', 'p < 0.001')
    """
    if value is None:
        return ""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def interval(estimate: Estimate, unit: str = "tasks") -> str:
    """Write the interval and size of an estimate.

    >>> interval(Estimate(0.5, 0.4, 0.6, 30))
    '40.0 – 60.0 % · 30 tasks'
    """
    parts = []
    if estimate.low is not None and estimate.high is not None:
        parts.append(f"{100 * estimate.low:.1f} – {share(estimate.high)}")
    if estimate.count is not None:
        parts.append(f"{estimate.count} {unit}")
    return " · ".join(parts) or "no interval known"


def facts(data: ReportData) -> Markup:
    """Return the line below the title: how long, how much, how many seeds, how programs were held."""
    seconds, spent = number(data.summary.get("seconds")), data.summary.get("cpu_seconds")
    cpu = number(mapping(spent).get("total", spent))
    seeds = {str(row["seed"]) for row in data.metrics if "seed" in row}
    steps = [value for row in data.metrics if row.get("phase") == "rl" and (value := number(row.get("step")))]
    skipped = [value for row in data.metrics if (value := number(row.get("skipped_steps")))]
    tiers = data.sandbox_tiers()
    found = [
        f"{max(steps):.0f} training steps" if steps else "",
        f"{duration(cpu)} of CPU" if cpu is not None else "",
        f"{duration(seconds)} by the clock" if seconds is not None else "",
        f"{len(seeds)} seeds" if len(seeds) > 1 else "",
        f"up to {max(skipped):.0f} skipped steps" if skipped else "",
        f"programs held by the sandbox as {', '.join(tiers)}" if tiers else "",
        f"{data.unreadable} unreadable lines left out" if data.unreadable else "",
    ]
    return element("p", " · ".join(fact for fact in found if fact), class_="facts")


def task_types(data: ReportData) -> Markup:
    """Return success by task type before and after, as paired bars with intervals."""
    tables = {stage: _by_type(data, stage) for stage, _, _ in BEFORE_AFTER}
    names = sorted(set().union(*tables.values()))
    if not names:
        return Markup()
    groups = [
        _group(name, [(look, tables[stage].get(name)) for stage, _, look in BEFORE_AFTER]) for name in names
    ]
    return _figure("Success by task type", groups)


def _by_type(data: ReportData, stage: str) -> dict[str, Estimate]:
    found: dict[str, list[Estimate]] = {}
    for summary in [data.summaries[""]] if "" in data.summaries else data.summaries.values():
        table = mapping(mapping(summary.get("by_task_type")).get(stage))
        for name, row in table.items():
            estimate = read_estimate(mapping(row))
            if estimate is not None:
                found.setdefault(name, []).append(estimate)
    return {name: rows[0] if len(rows) == 1 else over_seeds(rows) for name, rows in found.items()}


def stop_reasons(data: ReportData) -> Markup:
    """Return why episodes ended, before and after, as shares."""
    tables = {stage: _reasons(data, stage) for stage, _, _ in BEFORE_AFTER}
    names = sorted(
        {*tables["warm_start"], *tables["final"]}, key=lambda name: -tables["final"].get(name, 0.0)
    )
    if not names:
        return Markup()
    groups = [
        _group(
            name.replace("_", " "),
            [
                (look, Estimate(tables[stage].get(name, 0.0)))
                for stage, _, look in BEFORE_AFTER
                if tables[stage]
            ],
        )
        for name in names
    ]
    return _figure("Why episodes ended", groups)


def _reasons(data: ReportData, stage: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for summary in [data.summaries[""]] if "" in data.summaries else data.summaries.values():
        for name, value in mapping(mapping(summary.get("stop_reasons")).get(stage)).items():
            total[name] = total.get(name, 0.0) + max(0.0, number(value) or 0.0)
    return shares(total)


def shares(counts: Mapping[str, float]) -> dict[str, float]:
    """Return counts as shares of their sum.

    >>> shares({"a": 3, "b": 1})
    {'a': 0.75, 'b': 0.25}
    """
    whole = sum(counts.values())
    return {name: value / whole for name, value in counts.items()} if whole else {}


def _group(name: str, rows: Iterable[tuple[str, Estimate | None]]) -> Markup:
    bars = [_bar(look, estimate) for look, estimate in rows if estimate is not None]
    return element("div", element("h4", name), element("div", join(bars)), class_="bars")


def _bar(look: str, estimate: Estimate) -> Markup:
    known = estimate.low is not None or estimate.count is not None
    return element(
        "div",
        range_bar(estimate.mean, estimate.low, estimate.high, look),
        element("span", share(estimate.mean), class_="value"),
        class_="bar-row",
        title=interval(estimate) if known else None,
    )


def _figure(title: str, groups: Iterable[Markup]) -> Markup:
    swatches = [(name, look) for _, name, look in BEFORE_AFTER]
    return element("figure", element("figcaption", title), legend(swatches), join(groups), class_="card wide")

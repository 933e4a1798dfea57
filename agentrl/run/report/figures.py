"""Line plots and bars as SVG that stretches to any width.

The drawing is in percent of the plot area and stretches with it, strokes and dots do not
(`vector-effect: non-scaling-stroke`), and labels are HTML beside it, so the same figure reads at 1280 and at
420 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from agentrl.run.report.markup import Markup, element, embed_json, join

Number: TypeAlias = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a curve; the bounds are None where it has no interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A named curve. `look` is a CSS class (a colour), `thin` a faint line without dots and band."""

    name: str
    points: tuple[Point, ...]
    look: str
    thin: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A range with its ticks and how its numbers are written."""

    low: float
    high: float
    ticks: tuple[float, ...]
    write: Number = field(default=lambda value: f"{value:g}")

    def place(self, value: float) -> float:
        """Return where a value lies, in percent from the low end, kept inside the plot."""
        return min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low)))


def nice_axis(values: Sequence[float], write: Number, count: int = 4, *, tight: bool = False) -> Axis:
    """Return an axis with about `count` round ticks around the values; a tight one ends at the values."""
    low, high = min(values), max(values)
    if high == low:
        margin = abs(low) * 0.5
        low, high = (low - margin, high + margin) if margin else (0.0, 1.0)
    step = _round_step((high - low) / count)
    if not tight:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first = math.ceil(low / step - 1e-9)
    ticks = [
        index * step for index in range(first, first + 4 * count + 4) if index * step <= high + step * 1e-9
    ]
    return Axis(low, high, tuple(ticks), write)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)


def plot(series: Sequence[Series], x: Axis, y: Axis, label: str, guide: Point | None = None) -> Markup:
    """Return a line plot. `label` is read out; `guide` draws a dashed level at its y."""
    drawn = [_grid(y)]
    if guide is not None:
        drawn.append(_path(f"M0 {_n(100 - y.place(guide.y))}H100", "guide"))
    drawn += [_band(curve, x, y) for curve in series if not curve.thin]
    drawn += [_line(curve, x, y) for curve in series]
    # A line of one point is nothing to see, so it gets its dot.
    drawn += [_dots(curve, x, y) for curve in series if not curve.thin or len(curve.points) == 1]
    area = element(
        "svg", join(drawn), viewBox="0 0 100 100", preserveAspectRatio="none", role="img", aria_label=label
    )
    y_labels = [element("span", y.write(tick), style=f"bottom:{_n(y.place(tick))}%") for tick in y.ticks]
    x_labels = [element("span", x.write(tick), style=f"left:{_n(x.place(tick))}%") for tick in x.ticks]
    return element(
        "div",
        element("div", join(y_labels), class_="y-axis", aria_hidden="true"),
        element("div", area, _readings(series, x, y), class_="area"),
        element("div", join(x_labels), class_="x-axis", aria_hidden="true"),
        class_="plot",
    )


def _readings(series: Sequence[Series], x: Axis, y: Axis) -> Markup:
    """What the page's script shows under the pointer: place and text of every point."""
    curves = [
        {
            "name": curve.name,
            "look": curve.look,
            "points": [
                [round(x.place(point.x), 2), x.write(point.x), _describe(point, y)] for point in curve.points
            ],
        }
        for curve in sorted(series, key=lambda curve: curve.thin)
    ]
    return element("script", embed_json(curves), type="application/json")


def _grid(y: Axis) -> Markup:
    lines = "".join(f"M0 {_n(100 - y.place(tick))}H100" for tick in y.ticks)
    return _path(lines, "grid")


def _line(curve: Series, x: Axis, y: Axis) -> Markup:
    spots = [f"{_n(x.place(point.x))} {_n(100 - y.place(point.y))}" for point in curve.points]
    return (
        _path("M" + "L".join(spots), f"line {curve.look}{' thin' if curve.thin else ''}")
        if spots
        else Markup()
    )


def _band(curve: Series, x: Axis, y: Axis) -> Markup:
    bounded = [point for point in curve.points if point.low is not None and point.high is not None]
    if len(bounded) < 2:
        return _whiskers(bounded, curve.look, x, y)
    upper = [f"{_n(x.place(point.x))} {_n(100 - y.place(point.high or 0.0))}" for point in bounded]
    lower = [f"{_n(x.place(point.x))} {_n(100 - y.place(point.low or 0.0))}" for point in reversed(bounded)]
    return _path("M" + "L".join(upper + lower) + "Z", f"band {curve.look}")


def _whiskers(points: Sequence[Point], look: str, x: Axis, y: Axis) -> Markup:
    spans = [
        f"M{_n(x.place(p.x))} {_n(100 - y.place(p.low or 0.0))}V{_n(100 - y.place(p.high or 0.0))}"
        for p in points
    ]
    return _path("".join(spans), f"whisker {look}") if spans else Markup()


def _dots(curve: Series, x: Axis, y: Axis) -> Markup:
    """A dot is a line of no length with round ends: it stays round when the drawing is stretched."""
    dots = [
        element(
            "path",
            element("title", f"{curve.name}: {_describe(point, y)} at {x.write(point.x)}"),
            d=f"M{_n(x.place(point.x))} {_n(100 - y.place(point.y))}h0",
            class_=f"dot {curve.look}",
            vector_effect="non-scaling-stroke",
        )
        for point in curve.points
    ]
    return join(dots)


def _describe(point: Point, y: Axis) -> str:
    if point.low is None or point.high is None:
        return y.write(point.y)
    return f"{y.write(point.y)} [{y.write(point.low)}, {y.write(point.high)}]"


def range_bar(mean: float, low: float | None, high: float | None, look: str) -> Markup:
    """Return a bar from 0 to `mean` of 1 with its interval as a whisker."""
    parts = [
        _rectangle(0, 100, 5, 10, "track"),
        _rectangle(0, 100 * mean, 5, 10, f"bar {look}"),
    ]
    if low is not None and high is not None:
        parts += [_rectangle(100 * low, 100 * (high - low), 9.25, 1.5, "interval")]
        parts += [_rectangle(100 * bound, None, 6, 8, "interval") for bound in (low, high)]
    return element("svg", join(parts), class_="range", width="100%", height="20", aria_hidden="true")


def _rectangle(left: float, width: float | None, top: float, height: float, look: str) -> Markup:
    left = min(100.0, max(0.0, left))
    wide = "1.5" if width is None else f"{_n(min(100 - left, max(0.0, width)))}%"
    return element("rect", x=f"{_n(left)}%", y=top, width=wide, height=height, class_=look)


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Return swatches with names; an entry is (name, look)."""
    return element(
        "ul",
        join(element("li", element("i", class_=f"swatch {look}"), name) for name, look in entries),
        class_="legend",
    )


def _path(shape: str, look: str) -> Markup:
    return element("path", d=shape, class_=look, vector_effect="non-scaling-stroke")


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")

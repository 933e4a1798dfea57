"""What a training run shows while it works: live bars on a terminal, a plain line now and then elsewhere.

Progress is decoration: where it cannot be shown (a closed pipe, a broken terminal) it says so once in the log
and goes quiet, and training goes on.
"""

from __future__ import annotations

import functools
import logging
import math
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, Self, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichBars

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

MOVING_UPDATES = 20
"""Success is shown as the mean over this many updates."""

PHASE_TITLES = {
    "warm_start": "Warm start",
    "rl": "Reinforcement learning",
    "control": "Control",
    "evaluation": "Evaluation",
}

_logger = logging.getLogger(__name__)
_Parameters = ParamSpec("_Parameters")
_Display = TypeVar("_Display", bound="_Quiet")


class Progress(Protocol):
    """Is told about every step. A context manager; none of its methods raises into training."""

    def update(self, phase: str, step: int, total: int | None, metrics: Mapping[str, object]) -> None:
        """Show that `step` of `total` steps of `phase` are done; `total` is None where it is not known.

        Args:
            phase: `warm_start`, `rl`, `control`, `evaluation` or another name, shown as it is.
            step: steps done.
            total: steps that there will be.
            metrics: a row of figures; `success`, `turns` and `tokens_per_second` are shown if numbers.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Pace:
    """Moving success and time left of the phase that is running."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase: str | None = None
        self._started = (0.0, 0)
        self._successes: deque[float] = deque(maxlen=MOVING_UPDATES)

    def update(self, phase: str, step: int, metrics: Mapping[str, object]) -> None:
        """Count a step; a new phase starts afresh."""
        if phase != self._phase:
            self._phase, self._started = phase, (self._clock(), step)
            self._successes.clear()
        success = _finite(metrics, "success")
        if success is not None:
            self._successes.append(success)

    @property
    def success(self) -> float | None:
        """Mean success of the last updates of this phase."""
        return sum(self._successes) / len(self._successes) if self._successes else None

    def seconds_left(self, step: int, total: int | None) -> float | None:
        """Return the seconds until `total` at this phase's pace so far; None while the pace is not known."""
        start, first = self._started
        if total is None or step <= first:
            return None
        return max(0, total - step) * (self._clock() - start) / (step - first)


def _never_raises(
    method: Callable[Concatenate[_Display, _Parameters], None],
) -> Callable[Concatenate[_Display, _Parameters], None]:
    """Log the first failure and make every later call do nothing."""

    @functools.wraps(method)
    def guarded(self: _Display, /, *arguments: _Parameters.args, **named: _Parameters.kwargs) -> None:
        if self.broken:
            return
        try:
            method(self, *arguments, **named)
        except Exception as error:  # noqa: BLE001 - whatever a terminal does, training goes on
            self.broken = True
            _logger.warning("Progress cannot be shown any more (%r); training goes on.", error)

    return guarded


class _Quiet:
    """Base of displays that never raise; `broken` after the first failure."""

    broken: bool = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to show."""

    def stop(self) -> None:
        """Leave the last state standing and give the terminal back."""


class SilentProgress(_Quiet):
    """Shows nothing; for tests and libraries."""

    def update(self, phase: str, step: int, total: int | None, metrics: Mapping[str, object]) -> None:
        """Do nothing."""


class LineProgress(_Quiet):
    """Prints one line at most every `interval` seconds, and one at the start and the end of each phase."""

    def __init__(
        self,
        stream: TextIO | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._clock = clock
        self._pace = Pace(clock)
        self._printed_at = -math.inf
        self._phase: str | None = None
        self._pending: str | None = None

    @_never_raises
    def update(self, phase: str, step: int, total: int | None, metrics: Mapping[str, object]) -> None:
        """Print a line if one is due."""
        self._pace.update(phase, step, metrics)
        if phase != self._phase:
            self._flush()
        due = phase != self._phase or step == total or self._clock() - self._printed_at >= self._interval
        self._phase = phase
        self._pending = _line(phase, step, total, metrics, self._pace)
        if due:
            self._flush()

    @_never_raises
    def stop(self) -> None:
        """Print the last step if it has not been."""
        self._flush()

    def _flush(self) -> None:
        if self._pending is not None:
            print(self._pending, file=self._stream or sys.stdout, flush=True)
            self._pending, self._printed_at = None, self._clock()


class QuietConsole(Console):
    """A console that goes quiet where rich's own would end the programme: when the other end is closed."""

    def on_broken_pipe(self) -> None:
        """Write nothing from now on."""
        self.quiet = True
        _logger.warning("Progress cannot be shown any more (the terminal is closed); training goes on.")


class LiveProgress(_Quiet):
    """A bar for each phase on a terminal, drawn when it is updated and never from a thread."""

    def __init__(
        self, console: QuietConsole | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bars = RichBars(
            TextColumn("{task.fields[title]}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[counter]}", markup=False),
            TextColumn("{task.fields[numbers]}", style="dim", markup=False),
            console=console or QuietConsole(),
            auto_refresh=False,
        )
        self._pace = Pace(clock)
        self._tasks: dict[str, TaskID] = {}

    @_never_raises
    def start(self) -> None:
        """Take the bottom of the terminal."""
        self._bars.start()

    @_never_raises
    def update(self, phase: str, step: int, total: int | None, metrics: Mapping[str, object]) -> None:
        """Move the bar of this phase."""
        self._pace.update(phase, step, metrics)
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(
                "", total=total, title=_title(phase), counter="", numbers=""
            )
        self._bars.update(
            self._tasks[phase],
            completed=step,
            total=total,
            counter=_counter(step, total),
            numbers=" · ".join(_numbers(step, total, metrics, self._pace)),
            refresh=True,
        )

    @_never_raises
    def stop(self) -> None:
        """Leave the bars standing."""
        self._bars.stop()


def show_progress(stream: TextIO | None = None, interval: float = 10.0) -> Progress:
    """Return a live display where `stream` (stdout) is a terminal, and plain lines where it is not."""
    console = QuietConsole(file=stream)
    return LiveProgress(console) if console.is_terminal else LineProgress(stream, interval)


def _line(phase: str, step: int, total: int | None, metrics: Mapping[str, object], pace: Pace) -> str:
    return "  ".join([_title(phase), _counter(step, total), *_numbers(step, total, metrics, pace)])


def _numbers(step: int, total: int | None, metrics: Mapping[str, object], pace: Pace) -> list[str]:
    success, turns = pace.success, _finite(metrics, "turns")
    speed, left = _finite(metrics, "tokens_per_second"), pace.seconds_left(step, total)
    shown = [
        None if success is None else f"success {success:.1%}",
        None if turns is None else f"{turns:.1f} turns",
        None if speed is None else f"{speed:,.0f} tokens/s",
        None if left is None else f"{duration(left)} left",
    ]
    return [part for part in shown if part is not None]


def _title(phase: str) -> str:
    return PHASE_TITLES.get(phase, phase)


def _counter(step: int, total: int | None) -> str:
    return f"step {step}" if total is None else f"step {step}/{total}"


def _finite(metrics: Mapping[str, object], name: str) -> float | None:
    value = metrics.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def duration(seconds: float) -> str:
    """Write a duration with its two largest units.

    >>> [duration(value) for value in (4.2, 75, 7384, 180000)]
    ['4 s', '1 min 15 s', '2 h 03 min', '2 d 02 h']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"

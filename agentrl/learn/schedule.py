"""Schedules: numbers that change with the progress of training, 0 at the start and 1 at the end.

Any number of a part may be one: `KlToReference(Linear(0.01, 0.0))`. `algorithm.at(progress)` puts in the
numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from agentrl.credit.part import Number, Schedule, fixed
from agentrl.errors import AlgorithmError

__all__ = ["Constant", "Cosine", "Linear", "Number", "Schedule", "Staircase", "WarmupLinear", "fixed"]


@dataclass(frozen=True)
class Constant(Schedule):
    """Always the same number."""

    value: float

    def __call__(self, progress: float) -> float:
        """Return the number."""
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line.

    >>> Linear(1.0, 0.0)(0.25)
    0.75
    """

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        """Return the number at `progress`."""
        return self.start + (self.end - self.start) * _clip(progress)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine wave: flat, steep, flat."""

    start: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        """Return the number at `progress`."""
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * _clip(progress))) / 2


@dataclass(frozen=True)
class WarmupLinear(Schedule):
    """Up from 0 to `peak` during the share `warmup` of training, then straight down to `end`.

    >>> [WarmupLinear(2.0, warmup=0.5)(p) for p in (0.0, 0.25, 0.5, 1.0)]
    [0.0, 1.0, 2.0, 0.0]
    """

    peak: float
    warmup: float = 0.1
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        """Return the number at `progress`."""
        progress = _clip(progress)
        if progress < self.warmup:
            return self.peak * progress / self.warmup
        rest = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 0.0
        return self.peak + (self.end - self.peak) * rest


@dataclass(frozen=True)
class Staircase(Schedule):
    """Equal shares of training at each of the `steps`, in order.

    >>> [Staircase((5, 8, 10))(p) for p in (0.0, 0.4, 1.0)]
    [5, 8, 10]
    """

    steps: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise AlgorithmError("a Staircase needs at least one number.")

    def __call__(self, progress: float) -> float:
        """Return the number at `progress`."""
        return self.steps[min(int(_clip(progress) * len(self.steps)), len(self.steps) - 1)]


def _clip(progress: float) -> float:
    return min(max(progress, 0.0), 1.0)

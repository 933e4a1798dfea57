"""Task samplers: which tasks a step takes. They remember nothing but the ledger, so resumed runs agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from agentrl.credit.part import Number, Printed, fixed
from agentrl.errors import AlgorithmError

MOST_SHUFFLED = 1 << 22
"""Tasks of the largest split whose order is drawn whole."""

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agentrl.credit.ledger import Ledger, TaskRecord

    Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Supply:
    """The tasks there are, and what is known of them.

    Attributes:
        split: its name; `size`: number of its tasks, None where it has no end.
        first: the first task that training takes; `dealt`: how many it has taken.
        seed: of the run; `step`, `round`: key the noise of this call.
    """

    split: str
    size: int | None
    first: int
    dealt: int
    seed: int
    step: int
    round: int
    ledger: Ledger

    @property
    def rng(self) -> np.random.Generator:
        """The noise of this call."""
        return np.random.default_rng([self.seed, 6, self.step, self.round])

    def record(self, index: int) -> TaskRecord:
        """What the ledger knows of a task; an empty record for a new one."""
        return self.ledger.record_of(f"{self.split}/{index}")


class Sampler(Protocol):
    """A sampler slot."""

    def __call__(self, supply: Supply, count: int, /) -> Sequence[int]:
        """Return the indices of `count` tasks."""
        ...


@dataclass(frozen=True)
class InOrder:
    """New tasks in their order; a split that ends is dealt again, in shuffled rounds.

    One of more than `MOST_SHUFFLED` tasks goes on from its beginning instead: no round would fit in memory.
    """

    def __call__(self, supply: Supply, count: int, /) -> Sequence[int]:
        """Return the next tasks."""
        size, places = supply.size, range(supply.dealt, supply.dealt + count)
        if size is None or supply.first + places.stop <= size:
            return [supply.first + place for place in places]
        if size > MOST_SHUFFLED:
            return [(supply.first + place) % size for place in places]
        number = {place // size for place in places}
        order = {each: np.random.default_rng([supply.seed, 2, each]).permutation(size) for each in number}
        return [int(order[place // size][place % size]) for place in places]


class Weight(Protocol):
    """How much a task is wanted, given what the ledger knows of it."""

    def __call__(self, record: TaskRecord, /) -> float:
        """Return a figure of 0 or more."""
        ...


def pass_rate(record: TaskRecord, /) -> float:
    """Return the success rate, as if one attempt had succeeded and one had failed before."""
    return (record.successes + 1) / (record.attempts + 2)


def alike(record: TaskRecord, /) -> float:
    """Every task is wanted alike."""
    del record
    return 1.0


def uncertain(record: TaskRecord, /) -> float:
    """sqrt(p (1 - p)), most at a pass rate p of one half. Source: Single-stream PO (arXiv 2509.13232)."""
    rate = pass_rate(record)
    return float(np.sqrt(rate * (1 - rate)))


def hard(record: TaskRecord, /) -> float:
    """1 - p: the rarer the success, the more."""
    return 1.0 - pass_rate(record)


@dataclass(frozen=True)
class Acceptance:
    """1 / sqrt(p + `small` / p) of the pass rate p, and 0 for a task that has never succeeded: GVM.

    How many rollouts a task is worth where only successes teach: the rarer they are, the more, until there
    are none. A task that was never tried counts as one of p = 1/2. Source: RLHFlow/GVM (arXiv 2505.02391),
    alpha 1e-3 and beta 2. Departure: without the norms of gradients that it weighs tasks by.
    """

    small: Number = 1e-3

    def __call__(self, record: TaskRecord, /) -> float:
        """Return a figure of 0 or more."""
        rate = record.successes / record.attempts if record.attempts else 0.5
        return float(1 / np.sqrt(rate + fixed(self.small) / rate)) if rate else 0.0


@dataclass(frozen=True)
class NearRate:
    """Tasks whose pass rate is near `rate`, a Gaussian of width `width`; a schedule makes it a curriculum.

    `NearRate(Linear(0.8, 0.3))` goes from easy tasks to hard ones.
    """

    rate: Number = 0.5
    width: Number = 0.2

    def __call__(self, record: TaskRecord, /) -> float:
        """Return at most 1."""
        return float(np.exp(-(((pass_rate(record) - fixed(self.rate)) / fixed(self.width)) ** 2) / 2))


@dataclass(frozen=True)
class Within:
    """Tasks whose pass rate lies within [low, high], and those tried less than `attempts` times.

    The online difficulty filter of curricula such as arXiv 2504.03380.
    """

    low: Number = 0.1
    high: Number = 0.9
    attempts: int = 4

    def __call__(self, record: TaskRecord, /) -> float:
        """Return 1 or 0."""
        rate = record.successes / max(record.attempts, 1)
        return float(record.attempts < self.attempts or fixed(self.low) <= rate <= fixed(self.high))


@dataclass(frozen=True, repr=False)
class Weighted(Printed):
    """Draws tasks from a pool, each as likely as it is wanted, none twice in a step.

    Attributes:
        pool: the first so many tasks of the split, from `rl.first_task` on.
        floor: added to every weight, so that no task is forgotten.
    """

    weight: Weight = uncertain
    pool: Number = 256
    floor: float = 0.01

    def __post_init__(self) -> None:
        if self.floor <= 0:
            raise AlgorithmError(f"the floor of a sampler's weights must be above 0; got {self.floor}.")

    def __call__(self, supply: Supply, count: int, /) -> Sequence[int]:
        """Return the drawn tasks, in the order drawn."""
        pool = int(fixed(self.pool))
        first = supply.first if supply.size is None or supply.first < supply.size else 0
        size = pool if supply.size is None else min(pool, supply.size - first)
        if size < count:
            raise AlgorithmError(
                f"a pool of {size} tasks cannot give {count} different ones; raise the sampler's pool, or "
                "lower rl.tasks."
            )
        wanted = np.array([self.weight(supply.record(first + place)) for place in range(size)]) + self.floor
        drawn = supply.rng.choice(size, count, replace=False, p=wanted / wanted.sum())
        return [first + int(place) for place in drawn]


in_order = InOrder()

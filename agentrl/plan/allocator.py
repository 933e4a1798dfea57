"""Allocators: how many members the group of each task gets, given what the ledger knows of the tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agentrl.credit.part import Printed
from agentrl.errors import AlgorithmError
from agentrl.plan.sampler import Weight, uncertain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentrl.credit.ledger import TaskRecord


class Allocator(Protocol):
    """An allocator slot."""

    def __call__(self, records: Sequence[TaskRecord], members: int, /) -> Sequence[int]:
        """Return the members of each task's group; `members` is their mean."""
        ...


@dataclass(frozen=True)
class Even:
    """Every group gets the same."""

    def __call__(self, records: Sequence[TaskRecord], members: int, /) -> Sequence[int]:
        """Return `members` for each."""
        return [members] * len(records)


@dataclass(frozen=True, repr=False)
class Proportional(Printed):
    """`least` members for each task; what is left goes by weight, the largest remainders first.

    `hard` gives DARS's bias towards hard tasks (arXiv 2508.13755) without its constants, `Acceptance` is
    GVM's rule, `uncertain` follows the spread of outcomes.

    >>> from agentrl.credit.ledger import TaskRecord
    >>> Proportional()([TaskRecord(8, 4), TaskRecord(8, 8), TaskRecord(8, 0)], 4)
    [5, 4, 3]
    """

    weight: Weight = uncertain
    least: int = 2

    def __post_init__(self) -> None:
        if self.least < 1:
            raise AlgorithmError(f"a group has at least 1 member; got least={self.least}.")

    def __call__(self, records: Sequence[TaskRecord], members: int, /) -> Sequence[int]:
        """Return the members; they add up to `members` for each task."""
        spare = (members - self.least) * len(records)
        if spare < 0:
            raise AlgorithmError(
                f"each group is to get at least {self.least} members, and rl.members is {members}; raise it."
            )
        wanted = np.array([self.weight(record) for record in records]) + 1e-9
        share = spare * wanted / wanted.sum()
        whole = np.floor(share + 1e-9).astype(int)
        # Rounded, so that equal remainders go to the first task and not to the last bit of a weight.
        order = np.argsort(-np.round(share - whole, 9), kind="stable")
        whole[order[: spare - int(whole.sum())]] += 1
        return [self.least + int(count) for count in whole]


even = Even()

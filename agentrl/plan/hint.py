"""Hints: how much of a task the expert plays before the agent begins. The expert's turns carry no loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agentrl.credit.part import Number, fixed

if TYPE_CHECKING:
    from agentrl.credit.ledger import TaskRecord


class Hint(Protocol):
    """A hint slot: the share of the expert's turns that it plays, the same for all members of a group."""

    def __call__(self, record: TaskRecord, /) -> float:
        """Return a share in [0, 1]; the last turn is always left to the agent."""
        ...


@dataclass(frozen=True)
class ExpertPrefix:
    """The expert plays this share of every task; `ExpertPrefix(Linear(0.8, 0.0))` hands over step by step."""

    share: Number = 0.5

    def __call__(self, record: TaskRecord, /) -> float:
        """Return the share."""
        del record
        return fixed(self.share)


@dataclass(frozen=True)
class WhenFailing:
    """The expert plays its share where at least `attempts` attempts at the task succeeded `rate` or less.

    After Scaf-GRPO (arXiv 2510.19807) and Guide (arXiv 2506.13923), which hint in words; a task is met again
    only under a sampler that goes back to it.
    """

    share: Number = 0.5
    attempts: int = 8
    rate: Number = 0.0

    def __call__(self, record: TaskRecord, /) -> float:
        """Return the share, or 0."""
        tried = record.attempts >= max(self.attempts, 1)
        failing = tried and record.successes / record.attempts <= fixed(self.rate)
        return fixed(self.share) if failing else 0.0

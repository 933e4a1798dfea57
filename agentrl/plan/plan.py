"""A plan: what an algorithm rolls out. Slots filled by values, as everywhere in an algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.credit.part import Number, Printed, fixed
from agentrl.plan.allocator import Allocator, even
from agentrl.plan.sampler import Sampler, in_order
from agentrl.rollout.memory import Memory, whole_history

if TYPE_CHECKING:
    from agentrl.plan.hint import Hint
    from agentrl.plan.refill import Refill, Replay
    from agentrl.rollout.branch import Brancher


@dataclass(frozen=True, repr=False)
class Plan(Printed):
    """What a step rolls out; the default is new tasks in their order, in groups of equal size.

    Attributes:
        sampler: which tasks; `allocator`: how many members each group gets.
        brancher: where members begin, None for all at the beginning.
        hint: what the expert plays before the agent begins, None for nothing.
        turns: most turns of a trajectory, None for `limits.turns` alone, which bounds it in any case. A
            schedule such as `Staircase` makes horizons grow (ScalingInter-RL, arXiv 2509.08755).
        repeats: ends a trajectory that repeats itself so often in a row (see `Limits.repeats`), None for
            `limits.repeats` alone.
        memory: what of its past the agent is shown; it holds in evaluations too.
        refill: dynamic sampling; `replay`: groups of earlier steps.
    """

    sampler: Sampler = in_order
    allocator: Allocator = even
    brancher: Brancher | None = None
    hint: Hint | None = None
    turns: Number | None = None
    repeats: int | None = None
    memory: Memory = whole_history
    refill: Refill | None = None
    replay: Replay | None = None

    def most_turns(self, limit: int) -> int:
        """Return the most turns of a trajectory of this step, within the run's limit."""
        return limit if self.turns is None else max(1, min(limit, int(fixed(self.turns))))

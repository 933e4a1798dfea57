"""World meets policy: assignments in, trajectories or typed failures out."""

from agentrl.rollout.assignment import Assignment, assign_groups
from agentrl.rollout.collect import (
    Harvest,
    Stock,
    check_invalid_share,
    collect,
    collect_async,
    complete_groups,
)
from agentrl.rollout.episode import Play
from agentrl.rollout.limits import Limits

__all__ = [
    "Assignment",
    "Harvest",
    "Limits",
    "Play",
    "Stock",
    "assign_groups",
    "check_invalid_share",
    "collect",
    "collect_async",
    "complete_groups",
]

"""Plans: what an algorithm rolls out, as slots filled by values. Nothing here needs torch."""

from agentrl.plan.allocator import Allocator, Even, Proportional, even
from agentrl.plan.brancher import (
    BalancedForks,
    EntropyForks,
    Expand,
    MonteCarlo,
    Recover,
    Segments,
    entropy,
    surprisal,
)
from agentrl.plan.hint import ExpertPrefix, Hint, WhenFailing
from agentrl.plan.plan import Plan
from agentrl.plan.refill import Group, Refill, Replay, groups_of
from agentrl.plan.sampler import (
    MOST_SHUFFLED,
    Acceptance,
    InOrder,
    NearRate,
    Sampler,
    Supply,
    Weighted,
    Within,
    alike,
    hard,
    in_order,
    uncertain,
)
from agentrl.rollout.memory import Memory, Recap, WholeHistory, Window, whole_history

__all__ = [
    "MOST_SHUFFLED",
    "Acceptance",
    "Allocator",
    "BalancedForks",
    "EntropyForks",
    "Even",
    "Expand",
    "ExpertPrefix",
    "Group",
    "Hint",
    "InOrder",
    "Memory",
    "MonteCarlo",
    "NearRate",
    "Plan",
    "Proportional",
    "Recap",
    "Recover",
    "Refill",
    "Replay",
    "Sampler",
    "Segments",
    "Supply",
    "Weighted",
    "WhenFailing",
    "WholeHistory",
    "Window",
    "Within",
    "alike",
    "entropy",
    "even",
    "groups_of",
    "hard",
    "in_order",
    "surprisal",
    "uncertain",
    "whole_history",
]

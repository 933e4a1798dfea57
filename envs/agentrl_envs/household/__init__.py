"""A household in ALFWorld's language: a fast simulator, task generator, expert and environment.

Everything but ``HouseholdEnv`` needs the standard library only; the environment is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl_envs.household.demonstrations import Turn, noisy_demonstration
from agentrl_envs.household.expert import Expert
from agentrl_envs.household.generate import make_task
from agentrl_envs.household.settings import (
    ALFWORLD,
    MEDIUM,
    PRESETS,
    SMALL,
    SPLITS,
    TWO_ROOMS,
    HouseholdSettings,
)
from agentrl_envs.household.sim import State, World
from agentrl_envs.household.tasks import TASK_TYPES, Goal, House, Task

if TYPE_CHECKING:
    from agentrl_envs.household.env import HouseholdEnv

__all__ = [
    "ALFWORLD",
    "MEDIUM",
    "PRESETS",
    "SMALL",
    "SPLITS",
    "TASK_TYPES",
    "TWO_ROOMS",
    "Expert",
    "Goal",
    "House",
    "HouseholdEnv",
    "HouseholdSettings",
    "State",
    "Task",
    "Turn",
    "World",
    "make_task",
    "noisy_demonstration",
]


def __getattr__(name: str) -> type[HouseholdEnv]:
    if name == "HouseholdEnv":
        from agentrl_envs.household.env import HouseholdEnv

        return HouseholdEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""agentrl: agentic multi-turn reinforcement learning of language models.

The public names stand here and are loaded when they are first used, so that `import agentrl` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from agentrl.errors import AgentrlError, MissingExtraError

if TYPE_CHECKING:
    from agentrl.interchange.export import export
    from agentrl.learn.algorithm import Algorithm
    from agentrl.policy.base import Policy, Request, Sample, Sampling
    from agentrl.policy.scripted import RandomPolicy, ScriptedPolicy
    from agentrl.rollout.easy import collect
    from agentrl.rollout.limits import Limits
    from agentrl.run.evaluate import evaluate
    from agentrl.run.settings import TrainSettings
    from agentrl.run.suite import EvaluationSuite
    from agentrl.run.train import train
    from agentrl.testing.environment import check_env
    from agentrl.testing.tools import check_tool
    from agentrl.trajectory.batch import Batch
    from agentrl.trajectory.pack import pack
    from agentrl.trajectory.turn import Invalid, StopReason, Trajectory, Turn, TurnKind
    from agentrl.trajectory.unpack import unpack
    from agentrl.world.asynchronous import AsyncTextEnv
    from agentrl.world.env import Task, TextEnv
    from agentrl.world.protocol import Fenced, JsonCalls, PlainText, Tags
    from agentrl.world.registry import list_envs, make, register, spec
    from agentrl.world.space import TextSpace
    from agentrl.world.tool import Tool, ToolResult, tool

    __version__: str

__all__ = [
    "AgentrlError",
    "Algorithm",
    "AsyncTextEnv",
    "Batch",
    "EvaluationSuite",
    "Fenced",
    "Invalid",
    "JsonCalls",
    "Limits",
    "PlainText",
    "Policy",
    "RandomPolicy",
    "Request",
    "Sample",
    "Sampling",
    "ScriptedPolicy",
    "StopReason",
    "Tags",
    "Task",
    "TextEnv",
    "TextSpace",
    "Tool",
    "ToolResult",
    "TrainSettings",
    "Trajectory",
    "Turn",
    "TurnKind",
    "__version__",
    "check_env",
    "check_tool",
    "collect",
    "evaluate",
    "export",
    "list_envs",
    "make",
    "pack",
    "register",
    "spec",
    "tool",
    "train",
    "unpack",
]

_ROOMS: Final[dict[str, tuple[str, ...]]] = {
    "agentrl.interchange.export": ("export",),
    "agentrl.learn.algorithm": ("Algorithm",),
    "agentrl.policy.base": ("Policy", "Request", "Sample", "Sampling"),
    "agentrl.policy.scripted": ("RandomPolicy", "ScriptedPolicy"),
    "agentrl.rollout.easy": ("collect",),
    "agentrl.rollout.limits": ("Limits",),
    "agentrl.run.evaluate": ("evaluate",),
    "agentrl.run.settings": ("TrainSettings",),
    "agentrl.run.suite": ("EvaluationSuite",),
    "agentrl.run.train": ("train",),
    "agentrl.testing.environment": ("check_env",),
    "agentrl.testing.tools": ("check_tool",),
    "agentrl.trajectory.batch": ("Batch",),
    "agentrl.trajectory.pack": ("pack",),
    "agentrl.trajectory.turn": ("Invalid", "StopReason", "Trajectory", "Turn", "TurnKind"),
    "agentrl.trajectory.unpack": ("unpack",),
    "agentrl.world.asynchronous": ("AsyncTextEnv",),
    "agentrl.world.env": ("Task", "TextEnv"),
    "agentrl.world.protocol": ("Fenced", "JsonCalls", "PlainText", "Tags"),
    "agentrl.world.registry": ("list_envs", "make", "register", "spec"),
    "agentrl.world.space": ("TextSpace",),
    "agentrl.world.tool": ("Tool", "ToolResult", "tool"),
}
_ROOM_OF: Final = {name: room for room, names in _ROOMS.items() for name in names}
_TRAIN_EXTRA: Final = frozenset({"torch", "transformers", "tokenizers", "safetensors"})


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("agentrl")
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module 'agentrl' has no attribute {name!r}")
    try:
        found: object = getattr(importlib.import_module(room), name)
    except ModuleNotFoundError as error:
        if error.name in _TRAIN_EXTRA:
            raise MissingExtraError(f"agentrl.{name}", "train") from error
        raise
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)

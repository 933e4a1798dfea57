"""The contracts of a world: environment, tool and protocol; and the registry that finds them by name."""

from agentrl.world.asynchronous import AsyncTextEnv
from agentrl.world.env import ResetOptions, StepResult, Task, TextEnv
from agentrl.world.json_text import Json
from agentrl.world.ledger import CallKey, CallLedger
from agentrl.world.protocol import Call, Fenced, JsonCalls, Parsed, PlainText, Protocol, Tags, TextSpan
from agentrl.world.registry import (
    AnyEnv,
    EnvSpec,
    list_envs,
    list_tools,
    load_tool,
    make,
    make_any,
    mirror_to_gymnasium,
    register,
    rescan,
    spec,
)
from agentrl.world.signature import Signature
from agentrl.world.space import TextSpace
from agentrl.world.terms import Meter, Terms
from agentrl.world.tool import Tool, ToolResult, tool, tools_of
from agentrl.world.toolbox import Reply, Toolbox

__all__ = [
    "AnyEnv",
    "AsyncTextEnv",
    "Call",
    "CallKey",
    "CallLedger",
    "EnvSpec",
    "Fenced",
    "Json",
    "JsonCalls",
    "Meter",
    "Parsed",
    "PlainText",
    "Protocol",
    "Reply",
    "ResetOptions",
    "Signature",
    "StepResult",
    "Tags",
    "Task",
    "Terms",
    "TextEnv",
    "TextSpace",
    "TextSpan",
    "Tool",
    "ToolResult",
    "Toolbox",
    "list_envs",
    "list_tools",
    "load_tool",
    "make",
    "make_any",
    "mirror_to_gymnasium",
    "register",
    "rescan",
    "spec",
    "tool",
    "tools_of",
]

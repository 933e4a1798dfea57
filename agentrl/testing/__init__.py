"""For tests of your own worlds, tools and runs: contracts, policies without a model, faults on purpose."""

from agentrl.policy.scripted import HumanPolicy, RandomPolicy, ReplayPolicy, ScriptedPolicy
from agentrl.testing.environment import check_env
from agentrl.testing.faults import Faults, FaultyEnv, FaultyTool
from agentrl.testing.report import CheckReport, Finding
from agentrl.testing.tools import check_tool
from agentrl.testing.worlds import WordWorld

__all__ = [
    "CheckReport",
    "Faults",
    "FaultyEnv",
    "FaultyTool",
    "Finding",
    "HumanPolicy",
    "RandomPolicy",
    "ReplayPolicy",
    "ScriptedPolicy",
    "WordWorld",
    "check_env",
    "check_tool",
]

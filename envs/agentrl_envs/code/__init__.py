"""`agentrl/Code-v0`: problems to compute and functions to write, with Python in a jail."""

from agentrl_envs.code.env import CodeEnv
from agentrl_envs.code.expert import Solver
from agentrl_envs.code.files import read_tasks
from agentrl_envs.code.work import Exercise, Problem

__all__ = ["CodeEnv", "Exercise", "Problem", "Solver", "read_tasks"]

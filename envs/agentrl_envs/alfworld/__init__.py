"""ALFWorld: the user's own ALFWorld data, played by TextWorld's PDDL engine."""

from __future__ import annotations

from agentrl_envs.alfworld.data import Game, Logic, write_games
from agentrl_envs.alfworld.env import ALFWorldEnv
from agentrl_envs.alfworld.session import Session

__all__ = ["ALFWorldEnv", "Game", "Logic", "Session", "write_games"]

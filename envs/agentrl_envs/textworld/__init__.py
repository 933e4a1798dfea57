"""TextWorld: real interactive fiction, generated and compiled on the spot by the `textworld` package."""

from __future__ import annotations

from agentrl_envs.textworld.env import TextWorldEnv
from agentrl_envs.textworld.expert import WalkthroughExpert
from agentrl_envs.textworld.settings import CoinCollector, Cooking, Custom, Game, Grammar, TreasureHunter

__all__ = [
    "CoinCollector",
    "Cooking",
    "Custom",
    "Game",
    "Grammar",
    "TextWorldEnv",
    "TreasureHunter",
    "WalkthroughExpert",
]

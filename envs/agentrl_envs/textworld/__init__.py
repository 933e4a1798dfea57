"""TextWorld: interactive fiction by the `textworld` package, made on the spot or read from your files."""

from __future__ import annotations

from agentrl_envs.textworld.env import TextWorldEnv
from agentrl_envs.textworld.expert import WalkthroughExpert
from agentrl_envs.textworld.reader import Reader
from agentrl_envs.textworld.settings import (
    CoinCollector,
    Cooking,
    Custom,
    Files,
    Game,
    Grammar,
    TreasureHunter,
)
from agentrl_envs.textworld.walker import Planned

__all__ = [
    "CoinCollector",
    "Cooking",
    "Custom",
    "Files",
    "Game",
    "Grammar",
    "Planned",
    "Reader",
    "TextWorldEnv",
    "TreasureHunter",
    "WalkthroughExpert",
]

"""Who plays a family of games from its texts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentrl_envs.textworld.cook import cook
from agentrl_envs.textworld.reader import Reader, spelled_out
from agentrl_envs.textworld.settings import CoinCollector, Cooking
from agentrl_envs.textworld.walker import Planned, collect_coin

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentrl_envs.textworld.settings import Source
    from agentrl_envs.textworld.walker import Plan

_PLANS: Final[dict[type, Callable[[str], Plan]]] = {CoinCollector: collect_coin, Cooking: cook}


def has_player(game: Source) -> bool:
    """Return whether somebody plays these games from texts alone."""
    return type(game) in _PLANS or spelled_out(game)


def player_of(game: Source, opening: str) -> Planned | Reader:
    """Return who plays the game that begins with `opening`; see `has_player`."""
    plan = _PLANS.get(type(game))
    return Reader(opening) if plan is None else Planned(plan(opening))

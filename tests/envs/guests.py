"""Two packages that behave like TextArena and GEM at their worst, to stand in for them."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from enum import Enum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pytest

GEM_OVER = "<over>"


class Kind(Enum):
    PROMPT = 0
    PLAYER_ACTION = 1
    GAME_ADMIN = 2


class State:
    """As TextArena's: seeds the global generator, queues messages for each seat, allows one error."""

    def __init__(self, num_players: int, seed: int) -> None:
        random.seed(seed)
        self.current_player_id, self.done, self.error_count = 0, False, 0
        self.rewards: dict[int, Any] | None = None
        self.role_mapping = {-1: "GAME"} | {player: f"Player {player}" for player in range(num_players)}
        self.game_info: dict[int, dict[str, object]] = {player: {} for player in range(num_players)}
        self.observations: dict[int, list[tuple[int, str, Kind]]] = {
            player: [(-1, f"You are player {player}. Say [high] or [low].", Kind.PROMPT)]
            for player in range(num_players)
        }


class SinglePlayerState(State):
    """The name by which TextArena's games for one are known."""


class Coin:
    """Guess a global coin. It prints, draws in `step`, and crashes on [boom]."""

    single = True

    def reset(self, num_players: int, seed: int) -> None:
        if (num_players == 1) is not self.single:
            raise AssertionError(num_players)
        self.state = (SinglePlayerState if self.single else State)(num_players, seed)
        print("debugging output of the game")

    def step(self, action: str) -> None:
        state, player = self.state, self.state.current_player_id
        for told in state.observations.values():
            told.append((player, action, Kind.PLAYER_ACTION))
        if "[boom]" in action:
            raise ZeroDivisionError("the game broke")
        if "[odd]" in action:
            state.done, state.rewards = True, {player: "a text"}
            return
        if action not in {"[high]", "[low]"}:
            self._refuse(player)
            return
        drawn = "[high]" if random.random() < 0.5 else "[low]"
        state.error_count = 0
        if player == len(state.game_info) - 1:
            state.done, state.rewards = True, dict.fromkeys(state.game_info, 1.0 if drawn == action else 0.0)
            state.game_info[0]["reason"] = f"It was {drawn}."
        state.current_player_id = (player + 1) % len(state.game_info)

    def _refuse(self, player: int) -> None:
        self.state.error_count += 1
        self.state.observations[player].append((-1, "That is no move.", Kind.GAME_ADMIN))
        if self.state.error_count > 1:
            self.state.done, self.state.rewards = True, dict.fromkeys(self.state.game_info, -1)
            self.state.game_info[player] |= {"invalid_move": True, "reason": "Invalid move."}


class Pair(Coin):
    """The same for two: the first player's guess is public, the second one's decides."""

    single = False


class Broken(Coin):
    """Needs a word list that is not there."""

    def __init__(self) -> None:
        raise LookupError("Resource words not found. Please use the NLTK Downloader")


class Wrapper:
    def __init__(self, env: Any) -> None:
        self.env = env

    def __getattr__(self, name: str) -> Any:
        if name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)


class WholeHistory(Wrapper):
    """An observation wrapper, which is to be left out."""


class ActionWrapper(Wrapper):
    """Puts a bare word in brackets, and has to stay."""

    def step(self, action: str) -> None:
        self.env.step(action if "[" in action else f"[{action}]")


def textarena(patch: pytest.MonkeyPatch) -> None:
    """Install the first package for one test."""
    games = {"Coin-v0": Coin, "Pair-v0": Pair, "Broken-v0": Broken}

    def make(name: str, **settings: object) -> Any:
        return WholeHistory(ActionWrapper(games[name](**settings)))

    install(patch, "textarena", make=make, Wrapper=Wrapper, ActionWrapper=ActionWrapper)
    install(patch, "textarena.envs")
    install(patch, "textarena.envs.registration", ENV_REGISTRY=games)


@dataclass
class Entry:
    entry_point: str


class Board:
    """As GEM's games: the board is in the suffix, and both flags are set at the turn limit."""

    def __init__(self, size: int = 2) -> None:
        self.idx, self.size, self.turn = 0, size, 0

    def reset(self, seed: int) -> tuple[str, dict[str, object]]:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # as the package does
        self.idx, self.turn = self.idx + 1, 0
        if self.idx > 1:
            random.random()  # the count of episodes changes the task
        self.number = random.randrange(1000)
        return f"Find {self.number}.", {"suffix": "The board: . ."}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, object]]:
        self.turn += 1
        if "boxed" not in action:
            return "No move.", -0.1, True, False, {"suffix": "x"}
        if self.turn == self.size:
            return GEM_OVER, 1 / self.size, True, True, {}
        return "Go on.\n", 1 / self.size, False, False, {"suffix": f"The board: {self.turn} ."}


def gem(patch: pytest.MonkeyPatch) -> None:
    """Install the second package for one test."""

    class LanguageGameReward:
        format_error_reward = -0.1

    registry = {"game:Board-v0": Entry("b:B"), "code:Exec": Entry("gem.envs.code_env:CodeEnv")}

    def make(name: str, **settings: Any) -> Board:
        del name
        return Board(**settings)

    install(patch, "reasoning_gym")
    install(patch, "gem")
    install(patch, "gem.envs")
    install(patch, "gem.envs.registration", ENV_REGISTRY=registry, make=make)
    install(patch, "gem.utils")
    install(patch, "gem.utils.constants", TERMINAL_STATE=GEM_OVER, LanguageGameReward=LanguageGameReward)


def install(patch: pytest.MonkeyPatch, name: str, **content: object) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__path__ = []
    vars(module).update(content)
    patch.setitem(sys.modules, name, module)
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)

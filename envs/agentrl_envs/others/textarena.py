"""`textarena:<id>`: the games of TextArena, alone or against an opponent of your choice."""

from __future__ import annotations

import copy
import importlib.util
import random
from typing import TYPE_CHECKING, Any, ClassVar, Final

from agentrl.errors import ConfigError, EnvironmentFault, MissingExtraError, did_you_mean
from agentrl.world.protocol import PlainText
from agentrl_envs.others.guests import Chance, Pristine, made
from agentrl_envs.others.opponents import Situation, bracketed, opponent_of
from agentrl_envs.others.seeded import SeededEnv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl.world.env import StepResult
    from agentrl_envs.others.opponents import Opponent

MOST_PLAYERS: Final = 15
_MOST_MOVES: Final = 1000
_MOST_CANDIDATES: Final = 64


class TextArenaEnv(SeededEnv):
    """A game of TextArena; the other seats are played by an opponent.

    The agent reads each message of the game once, when it comes. TextArena's own observation wrappers repeat
    the whole history instead; they are left out, and wrappers of actions (brackets around a bare move) stay.
    The reward is the game's own, given at its end: 1, 0 or -1 in games against others, a share between 0 and
    1 in most games for one. The game's turn limit is part of its rules and ends an episode; `max_steps` cuts
    it. A refused move is what the game says of it: most allow one, and the second in a row ends the game.

    Args:
        name: TextArena's id, for example "TicTacToe-v0".
        opponent: "random" (among the moves that the game accepts), "scripted", "module:attribute", or a
            value of `opponents`.
        moves: what the opponent may play, or plays in order.
        players: of the game; by default the smallest number that it takes.
        seat: of the agent; in most games seat 0 begins.
        success: smallest reward that is a success.
        max_steps: turns of the agent before the episode is cut.
        settings: passed to the game, for example `{"max_turns": 5}`.
        render_mode: None or "ansi".

    Raises:
        MissingExtraError: textarena is not installed.
        ConfigError: there is no such game, or it cannot be made here.
    """

    blocks: ClassVar[bool] = True  # type: ignore[misc]  # of the class: some games search long for a puzzle

    def __init__(  # noqa: PLR0913  # settings with defaults
        self,
        name: str,
        *,
        opponent: str | Opponent = "random",
        moves: Sequence[str] = (),
        players: int | None = None,
        seat: int = 0,
        success: float = 1.0,
        max_steps: int = 200,
        settings: Mapping[str, object] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if importlib.util.find_spec("textarena") is None:
            raise MissingExtraError("textarena:", "textarena")
        super().__init__(render_mode=render_mode)
        self.protocol = PlainText()
        self.name, self.seat, self.max_steps, self.success = name, seat, max_steps, success
        self.opponent = opponent_of(opponent, moves)
        self._chance = Chance()
        self._dice = random.Random()
        self.game = made(f"the game {name!r}", lambda: _game(name, dict(settings or {})), self._chance)
        self._pristine = Pristine(copy.deepcopy(self.game))
        self.players = made(f"the game {name!r}", lambda: _players(self.game, players, name), self._chance)
        if not 0 <= seat < self.players:
            raise ConfigError(f"{name!r} has {self.players} seats, numbered from 0; got seat={seat}.")
        self._steps = 0
        self._read: dict[int, list[str]] = {}
        self._moved: dict[int, int] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin a game with the seed of the task; opponents before the agent's seat have moved."""
        super().reset(seed=seed, options=options)
        self._dice = random.Random(int(self.rng.integers(2**63)))
        self._chance.seed(self.task_seed)
        self._steps = 0
        self._read = {player: [] for player in range(self.players)}
        self._moved = dict.fromkeys(range(self.players), 0)
        self.game = self._pristine.copy()
        with self._chance.at_work():
            self.game.reset(num_players=self.players, seed=self.task_seed)
            self._others_move()
        if self.game.state.done:
            raise EnvironmentFault(f"{self.name!r} ended before the agent could move.")
        return self._news(self.seat), {"domain": "textarena", "task_type": self.name}

    def step(self, action: str) -> StepResult:
        """Make a move, and let the others move until it is the agent's turn again."""
        self._steps += 1
        with self._chance.at_work():
            refused = _move(self.game, action)
            refusals = self._others_move()
        done = bool(self.game.state.done)
        late = self._steps >= self.max_steps and not done
        info: dict[str, object] = {"valid": not refused}
        if self.players > 1:
            info["metrics"] = {"opponent_refused": float(refusals)}
        reward = self._reward() if done else 0.0
        if done or late:
            info["success"] = done and reward >= self.success
        return self._news(self.seat), reward, done, late, info

    def admissible(self) -> Sequence[str] | None:
        """Return the moves in brackets in the rules and the last message that a copy of the game accepts."""
        texts = self._read.get(self.seat, [])
        if self._phase != "running" or not texts:
            return None
        found = list(bracketed("\n".join(dict.fromkeys((texts[0], texts[-1])))))[:_MOST_CANDIDATES]
        return [move for move in found if self._accepts(move)] or None

    def _others_move(self) -> int:
        """Let the other seats move; return how many of their moves were refused."""
        refused = 0
        for _ in range(_MOST_MOVES):
            state = self.game.state
            if state.done or state.current_player_id == self.seat:
                return refused
            refused += self._opponent_moves(int(state.current_player_id))
        raise EnvironmentFault(f"the other seats of {self.name!r} moved {_MOST_MOVES} times in a row.")

    def _opponent_moves(self, player: int) -> bool:
        self._news(player)
        situation = Situation("\n".join(self._read[player]), self._moved[player], self._accepts)
        self._moved[player] += 1
        return _move(self.game, self.opponent(situation, self._dice))

    def _accepts(self, move: str) -> bool:
        trial = copy.deepcopy(self.game)
        with self._chance.on_trial():
            try:
                return not _move(trial, move)
            except Exception:  # noqa: BLE001  # what breaks the game is no move
                return False

    def _news(self, player: int) -> str:
        """What a seat has not read yet, as one text, without the echo of its own moves."""
        state = self.game.state
        texts = [
            f"[{state.role_mapping.get(sender, f'Player {sender}')}] {message}"
            if sender >= 0
            else str(message)
            for sender, message, kind in map(_ordered, state.observations[player])
            if not (sender == player and getattr(kind, "name", "PLAYER_ACTION") == "PLAYER_ACTION")
        ]
        state.observations[player] = []
        if state.done and (reason := state.game_info[player].get("reason")):
            texts.append(str(reason))
        news = "\n".join(texts).strip()
        if news:
            self._read[player].append(news)
        return news

    def _reward(self) -> float:
        given = (self.game.state.rewards or {}).get(self.seat)
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise EnvironmentFault(f"{self.name!r} ended with the reward {given!r} for seat {self.seat}.")
        return float(given)


def _game(name: str, settings: dict[str, Any]) -> Any:  # noqa: ANN401  # an untyped package's object
    """Make a game without the wrappers of its observations."""
    import textarena  # pyright: ignore[reportMissingImports]  # an extra that may be absent
    from textarena.envs.registration import ENV_REGISTRY  # pyright: ignore[reportMissingImports]  # as above

    if name not in ENV_REGISTRY:
        raise ConfigError(f"TextArena has no game {name!r}.{did_you_mean(name, ENV_REGISTRY)}")
    game = textarena.make(name, **settings)
    around_actions = []
    while isinstance(game, textarena.Wrapper):
        if isinstance(game, textarena.ActionWrapper):
            around_actions.append(type(game))
        game = game.env
    for wrapper in reversed(around_actions):
        game = wrapper(game)
    return game


def _players(game: Any, given: int | None, name: str) -> int:  # noqa: ANN401  # as above
    """Return the number of players, found by asking the game, which says it nowhere."""
    for number in range(1, MOST_PLAYERS + 1) if given is None else (given,):
        try:
            game.reset(num_players=number, seed=0)
        except (AssertionError, ValueError):
            continue
        # Some games for several accept one player, and then wait for the others.
        if given is not None or number > 1 or type(game.state).__name__ == "SinglePlayerState":
            return number
    raise ConfigError(
        f"{name!r} does not take {'1 to 15' if given is None else given} players; say how many with players=."
    )


def _ordered(message: tuple[Any, Any, Any]) -> tuple[int, object, object]:
    """Return sender, text and kind; some games confuse sender and kind, and mean a message of the game."""
    sender, text, kind = message
    return (sender, text, kind) if isinstance(sender, int) else (-1, text, sender)


def _move(game: Any, move: str) -> bool:  # noqa: ANN401  # as above
    """Make a move of the seat whose turn it is; return whether the game refused it."""
    player = game.state.current_player_id
    errors = getattr(game.state, "error_count", 0)
    game.step(move)
    state = game.state
    return bool(state.game_info[player].get("invalid_move")) or getattr(state, "error_count", 0) > errors

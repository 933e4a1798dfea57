"""Who plays the other seats of a game: values that choose a move from what their seat has read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from agentrl.errors import ConfigError, EnvironmentFault, did_you_mean
from agentrl.world.entrypoints import load_attribute

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

_MOVE: Final = re.compile(r"\[[^\[\]\n]{1,60}\]")


@dataclass(frozen=True, slots=True)
class Situation:
    """What an opponent knows when it is to move.

    Attributes:
        text: everything that its seat has read, the newest last.
        turn: how many moves it has made before, refused ones included.
        accepts: whether the game would accept a move now.
    """

    text: str
    turn: int
    accepts: Callable[[str], bool]


class Opponent(Protocol):
    """Chooses a move; its draws come from `rng` alone, so that equal seeds give equal games."""

    def __call__(self, situation: Situation, rng: random.Random) -> str:
        """Return the move as text."""
        ...


@dataclass(frozen=True, slots=True)
class RandomMoves:
    """Any move that the game accepts, drawn from `moves`, or from what stands in brackets in its texts.

    >>> import random
    >>> RandomMoves()(Situation("Take '[3]' or [12].", 0, lambda move: move == "[12]"), random.Random(0))
    '[12]'
    """

    moves: tuple[str, ...] = ()

    def __call__(self, situation: Situation, rng: random.Random) -> str:
        """Return a move; the first one where the game accepts none."""
        found = list(self.moves or bracketed(situation.text))
        if not found:
            raise EnvironmentFault(
                "the opponent's texts show no move in brackets; give it some: moves=['[heads]', '[tails]']."
            )
        rng.shuffle(found)
        return next((move for move in found if situation.accepts(move)), found[0])


@dataclass(frozen=True, slots=True)
class ScriptedMoves:
    """The given moves in order, then again from the first; a single one is a fixed opponent."""

    moves: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.moves:
            raise ConfigError("a scripted opponent needs its moves, such as moves=['[heads]'].")

    def __call__(self, situation: Situation, rng: random.Random) -> str:
        """Return the next move."""
        del rng
        return self.moves[situation.turn % len(self.moves)]


OPPONENTS: Final[dict[str, Callable[[tuple[str, ...]], Opponent]]] = {
    "random": RandomMoves,
    "scripted": ScriptedMoves,
}


def opponent_of(given: str | Opponent, moves: Sequence[str]) -> Opponent:
    """Return the opponent that settings name: one of `OPPONENTS`, "module:attribute", or a value.

    Raises:
        ConfigError: there is no such opponent.
    """
    if not isinstance(given, str):
        return given
    if given in OPPONENTS:
        return OPPONENTS[given](tuple(moves))
    if ":" not in given:
        raise ConfigError(
            f"there is no opponent {given!r}; opponent is {', '.join(OPPONENTS)}, or 'module:attribute'."
            + did_you_mean(given, OPPONENTS)
        )
    found = load_attribute(given, "the opponent")
    if isinstance(found, type):
        found = found()
    if not callable(found):
        raise ConfigError(f"the opponent {given!r} cannot be called; got {type(found).__name__}.")
    return cast("Opponent", found)


def bracketed(text: str) -> Iterator[str]:
    """Yield what stands in brackets, each once, in order.

    >>> list(bracketed("'[0]', '[1]', and [0] again"))
    ['[0]', '[1]']
    """
    yield from dict.fromkeys(_MOVE.findall(text))

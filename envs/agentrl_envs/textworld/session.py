"""One interpreter with one game: commands in, clean text out, the true state beside it."""

from __future__ import annotations

import functools
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from agentrl_envs.textworld.engine import ONE_AT_A_TIME, undisturbed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    class Frotz(Protocol):
        """What we use of `jericho.FrotzEnv`."""

        def reset(self) -> tuple[str, dict[str, int]]: ...  # noqa: D102  # jericho documents it
        def step(self, action: str) -> tuple[str, int, bool, dict[str, int]]: ...  # noqa: D102  # jericho documents it
        def get_state(self) -> tuple[object, ...]: ...  # noqa: D102  # jericho documents it
        def set_state(self, state: tuple[object, ...]) -> None: ...  # noqa: D102  # jericho documents it
        def close(self) -> None: ...  # noqa: D102  # jericho documents it


_SEED: Final = 1
"""Of the interpreter (0 would mean the clock); the rules of these games draw nothing."""

_EVENT: Final = re.compile(r"\[([^]\n]+)\]\n?")
_SUBRULE: Final = re.compile(r"^(\(\d+\) )+")
_SCORE: Final = re.compile(r"<score>\n(-?\d+)\n</score>")
_HIDDEN: Final = re.compile(r"<(score|moves)>\n.*?</\1>", re.DOTALL)
_STATUS_LINE: Final = re.compile(r"\n*>? {16,}-= [^\n]*$")
_BANNER: Final = re.compile(r"\A.*\$\$[^\n]*\n", re.DOTALL)
_ENDING: Final = re.compile(r"\s*Would you like to RESTART.*\Z", re.DOTALL)
_REFUSED_CHARACTERS: Final = re.compile(r"[^ -~]|[.,;:\[\]<>\"]")
_SHORTCUTS: Final = frozenset({
    "n", "s", "e", "w", "north", "south", "east", "west", "go", "l", "look", "x", "examine",
    "i", "inv", "inventory", "get", "pick", "goal", "help",
})  # fmt: skip
_MAX_CHARACTERS: Final = 150
_UNKNOWN_VERB: Final = "That's not a verb I recognise."
_ONE_COMMAND: Final = "Write one short command."


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command gave. `valid` is whether the game carried out an action."""

    text: str
    valid: bool
    score: int
    won: bool = False
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of a game: the interpreter's whole memory (37 kB) and what has been done so far."""

    path: Path
    memory: tuple[object, ...]
    progression: Any
    score: int


class Session:
    """Plays compiled games. One native library and one interpreter for each session; not for two threads.

    The agent's commands are filtered before the game sees them: only verbs of the game, one command for each
    action. Everything else that these games understand would tell the state (`print_state`), leave the game
    (`quit`), or act several times in one turn (`look. go west`).
    """

    def __init__(self) -> None:
        self._frotz: Frotz | None = None
        self._path: Path | None = None
        self._events: list[str] = []
        self._score = 0

    def start(self, path: Path) -> str:
        """Begin the game at `path` and return its opening: objective and first room."""
        if self._frotz is None or self._path != path:
            self.close()
            self._frotz, self._path = _open_frotz(path), path
        opening, _ = self._frotz.reset()
        for command in ("tw-extra-infos score", "tw-trace-actions"):
            self._frotz.step(command)
        self._game, self._inform = _load_game(path)
        self._progression = _new_progression(self._game)
        self._verbs = _SHORTCUTS.union(self._game.verbs)
        self._events, self._score = [], 0
        return _clean(_BANNER.sub("", opening))

    def send(self, command: str) -> Reply:
        """Carry out one command of the agent's."""
        command = " ".join(command.split()).rstrip(".!")
        refusal = self._refusal(command)
        if refusal is not None:
            return Reply(refusal, valid=False, score=self._score)
        assert self._frotz is not None  # noqa: S101  # start() came first: TextEnv checks the phase
        raw = self._frotz.step(command)[0]
        done = [name[: -len(" - succeeded")] for name in _EVENT.findall(raw) if name.endswith(" - succeeded")]
        self._events += done
        if scores := _SCORE.findall(raw):
            self._score = int(scores[-1])
        won, lost = "*** The End ***" in raw, "*** You lost! ***" in raw
        valid = won or lost or any(not _SUBRULE.match(name) for name in done)
        return Reply(_clean(raw), valid, self._score, won, lost)

    def _refusal(self, command: str) -> str | None:
        if len(command) > _MAX_CHARACTERS or _REFUSED_CHARACTERS.search(command):
            return _ONE_COMMAND
        words = command.lower().split()
        if not words or words[0] not in self._verbs:
            return _UNKNOWN_VERB
        return _ONE_COMMAND if "then" in words else None

    @property
    def walkthrough(self) -> tuple[str, ...]:
        """The generator's own solution from the beginning of the game; empty where the file holds none."""
        return tuple(self._game.metadata.get("walkthrough") or ())

    @property
    def max_score(self) -> int:
        """The score of a game that was won."""
        return int(self._game.max_score)

    @property
    def verbs(self) -> tuple[str, ...]:
        """The verbs of the game."""
        return tuple(self._game.verbs)

    def facts(self) -> frozenset[str]:
        """Return every fact that is true now, such as `in(o_0: o, c_0: c)`."""
        self._follow()
        return frozenset(map(str, self._progression.state.facts))

    def commands(self) -> list[str]:
        """Return the commands that would do something now, sorted."""
        with ONE_AT_A_TIME:
            self._follow()
            return sorted(set(self._inform.gen_commands_from_actions(self._progression.valid_actions)))

    def mark(self) -> Mark:
        """Return this moment of the game."""
        assert self._frotz is not None  # noqa: S101  # start() came first
        assert self._path is not None  # noqa: S101  # start() came first
        self._follow()
        return Mark(self._path, self._frotz.get_state(), self._progression.copy(), self._score)

    def back_to(self, mark: Mark) -> None:
        """Go back to a moment, also one of another session."""
        if self._path != mark.path:
            self.start(mark.path)
        assert self._frotz is not None  # noqa: S101  # start() opened it
        self._frotz.set_state(mark.memory)
        self._progression = mark.progression.copy()
        self._events, self._score = [], mark.score

    def close(self) -> None:
        """Free the interpreter."""
        if self._frotz is not None:
            self._frotz.close()
        self._frotz = self._path = None

    def _follow(self) -> None:
        """Apply to the facts what the interpreter has done since they were last asked for.

        Events traced as part of another one ("(1) taking the worm") count too where they are an action that
        is possible then; usually they are not, and the outer event carries the change.
        """
        with ONE_AT_A_TIME:
            for event in self._events:
                action = self._inform.detect_action(_SUBRULE.sub("", event), self._progression.valid_actions)
                if action is not None:
                    self._progression.update(action)
            self._events = []


def _clean(raw: str) -> str:
    """Return the game's text without status line, prompt, trace and closing question."""
    text = _STATUS_LINE.sub("", raw)
    text = _ENDING.sub("", _EVENT.sub("", _HIDDEN.sub("", text)))
    lines = [line.strip() for line in text.strip().rstrip(">").splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _open_frotz(path: Path) -> Frotz:
    with undisturbed():
        import jericho
    # jericho warns for every game that is not on its own list; textworld's filter for that does not outlive a
    # caller's `catch_warnings`, pytest's for instance.
    with ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore", jericho.UnsupportedGameWarning)
        frotz: Frotz = jericho.FrotzEnv(str(path), _SEED)
    return frotz


def _load_game(path: Path) -> tuple[Any, Any]:
    with ONE_AT_A_TIME:  # a cache by itself would load one game in several threads
        return _loaded_game(path)


@functools.lru_cache(maxsize=64)
def _loaded_game(path: Path) -> tuple[Any, Any]:
    """Return the game's description and its command writer; both are only read."""
    with undisturbed():
        from textworld.generator.game import Game
        from textworld.generator.inform7 import Inform7Game

        game = Game.load(str(path.with_suffix(".json")))
    return game, Inform7Game(game)


def _new_progression(game: Any) -> Any:  # noqa: ANN401  # an untyped package's objects
    from textworld.generator.game import GameProgression

    with ONE_AT_A_TIME:
        return GameProgression(game, track_quests=False)


def walkthrough_of(path: Path) -> Sequence[str]:
    """Return the walkthrough of a compiled game without starting it."""
    return tuple(_load_game(path)[0].metadata["walkthrough"])

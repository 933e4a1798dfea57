"""Where the games of the splits come from: made from recipes, or files of the user's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from agentrl.errors import ConfigError
from agentrl_envs.textworld.settings import MAX_GAMES, SPLITS, Files, recipe_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl_envs.textworld.settings import Game
    from agentrl_envs.textworld.store import Library

_SUFFIXES: Final = (".z8", ".ulx", ".json")
_GAME_KEYS: Final = frozenset({"version", "world", "quests", "infos", "KB"})


class Shelf(Protocol):
    """The games of each split, by number."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        ...

    def size(self, split: str) -> int:
        """Return the number of games of a split."""
        ...

    def about(self, split: str, index: int) -> Mapping[str, object]:
        """Return what tells this game from others; nothing is read or made."""
        ...

    def get(self, split: str, index: int) -> Path:
        """Return the game's `.z8`, with its `.json` beside it. Raises `EnvironmentFault`."""
        ...

    def prepare(self, split: str, indices: Sequence[int], *, workers: int) -> int:
        """Make these games ahead of time and return how many were new."""
        ...


@dataclass(frozen=True, slots=True)
class MadeGames:
    """Games of one family, made from recipes when they are first asked for."""

    game: Game
    store: Library
    train_games: int
    valid_games: int

    def __post_init__(self) -> None:
        if not (1 <= self.train_games <= MAX_GAMES and 1 <= self.valid_games <= MAX_GAMES):
            given = f"{self.train_games} and {self.valid_games}"
            raise ConfigError(f"a split has 1 to {MAX_GAMES} games; got {given}.")

    @property
    def splits(self) -> tuple[str, ...]:
        """All three splits."""
        return SPLITS

    def size(self, split: str) -> int:
        """Return the number of games, as set."""
        return self.train_games if split == "train" else self.valid_games

    def about(self, split: str, index: int) -> Mapping[str, object]:
        """Return the seed of the generator."""
        return {"seed": recipe_of(self.game, split, index).seed}

    def get(self, split: str, index: int) -> Path:
        """Return the game, made now if it is new."""
        return self.store.get(recipe_of(self.game, split, index))

    def prepare(self, split: str, indices: Sequence[int], *, workers: int) -> int:
        """Make these games in `workers` processes."""
        return self.store.make([recipe_of(self.game, split, index) for index in indices], workers=workers)


@dataclass(frozen=True, slots=True)
class GivenGames:
    """Games that somebody wrote with TextWorld: a file, or those of a folder in the order of their names."""

    files: Mapping[str, tuple[Path, ...]]
    store: Library

    @classmethod
    def of(cls, given: Files, library: Library) -> GivenGames:
        """Find the games. Raises `ConfigError` where there is none, or one lacks its `.json`."""
        root = Path(given.path).expanduser()
        if not root.exists():
            raise ConfigError(f"there is no game file or folder {given.path!r}.")
        if root.is_file():
            return cls({"train": (_checked(root),)}, library)
        folders = {split: root / split for split in SPLITS if (root / split).is_dir()} or {"train": root}
        files = {split: _games_in(folder) for split, folder in folders.items()}
        return cls(files, library)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have a folder; `train` alone for a file, or a folder without such folders."""
        return tuple(self.files)

    def size(self, split: str) -> int:
        """Return the number of files."""
        return len(self.files[split])

    def about(self, split: str, index: int) -> Mapping[str, object]:
        """Return the name of the file."""
        return {"file": self.files[split][index].name}

    def get(self, split: str, index: int) -> Path:
        """Return the compiled game: the file itself, or one compiled now from its `.json`."""
        file = self.files[split][index]
        if file.suffix == ".z8":
            return file
        self.store.compile([file])
        return self.store.compiled(file)

    def prepare(self, split: str, indices: Sequence[int], *, workers: int) -> int:
        """Compile what is not compiled yet."""
        files = [self.files[split][index] for index in indices]
        return self.store.compile([file for file in files if file.suffix != ".z8"], workers=workers)


def _games_in(folder: Path) -> tuple[Path, ...]:
    """Return one file for each game of a folder: its `.z8` where there is one, else its `.json`."""
    stems = sorted({file.with_suffix("") for file in folder.iterdir() if file.suffix in _SUFFIXES})
    found = [_best(stem) for stem in stems]
    games = tuple(_checked(file) for file in found if file.suffix != ".json" or _is_game(file))
    if not games:
        raise ConfigError(f"{folder} holds no game: TextWorld writes a .z8 and a .json for each one.")
    return games


def _best(stem: Path) -> Path:
    return next(file for suffix in _SUFFIXES if (file := stem.with_suffix(suffix)).is_file())


def _checked(file: Path) -> Path:
    """Return the file to play for the file that was given. Raises `ConfigError`."""
    if file.suffix not in _SUFFIXES:
        raise ConfigError(f"a TextWorld game is a .z8, .ulx or .json file; got {file}.")
    description = file.with_suffix(".json")
    if not description.is_file():
        raise ConfigError(
            f"{file} stands without {description.name}. TextWorld writes both: put the .json beside it, "
            "for the score, the facts and the commands are read from it."
        )
    if not _is_game(description):
        raise ConfigError(f"{description} is no description of a game as TextWorld writes it.")
    compiled = file.with_suffix(".z8")
    return compiled if compiled.is_file() else description


def _is_game(file: Path) -> bool:
    try:
        content = json.loads(file.read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() >= _GAME_KEYS

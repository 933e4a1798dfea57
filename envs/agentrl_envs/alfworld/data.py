"""ALFWorld's data folder: which games it holds, and how to add games that were generated here."""

from __future__ import annotations

import functools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentrl.errors import ConfigError, EnvironmentFault
from agentrl_envs.household.pddl import problem
from agentrl_envs.household.tasks import TASK_TYPES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from agentrl_envs.household.tasks import Task

SPLITS: Final = ("train", "valid_seen", "valid_unseen")
VARIABLE: Final = "ALFWORLD_DATA"
_GAMES: Final = "json_2.1.1"
_FILE: Final = "game.tw-pddl"
_UNSUPPORTED: Final = ("movable", "Sliced")
"""Parts of the paths of games that ALFWorld itself leaves out."""
_SOLVABLE: Final = re.compile(rb'"solvable":\s*true')
_GOAL_SLOT: Final = "UNKNOWN GOAL"


@dataclass(frozen=True, slots=True)
class Logic:
    """ALFWorld's rules and words: the texts of `alfred.pddl` and `alfred.twl2`."""

    domain: str
    grammar: str

    @classmethod
    def read(cls, folder: Path) -> Logic:
        """Read both files from a folder, `$ALFWORLD_DATA/logic` for instance."""
        names = "alfred.pddl", "alfred.twl2"
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ConfigError(f"{folder} holds no {' and no '.join(missing)}; ALFWorld's package has both.")
        return cls(*((folder / name).read_text() for name in names))


@dataclass(frozen=True, slots=True)
class Game:
    """What decides one game; equal games play alike."""

    logic: Logic
    problem: str

    @classmethod
    def read(cls, path: Path) -> Game:
        """Read a `game.tw-pddl`. Raises `EnvironmentFault` where it is none."""
        try:
            content = json.loads(path.read_bytes())
            texts = [content[name] for name in ("pddl_domain", "grammar", "pddl_problem")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EnvironmentFault(f"{path} cannot be read as a game of ALFWorld: {error!r}.") from error
        return cls(Logic(str(texts[0]), str(texts[1])), str(texts[2]))


def of_household(task: Task, logic: Logic) -> Game:
    """Return a task of our household world as a game of ALFWorld."""
    return Game(Logic(logic.domain, logic.grammar.replace(_GOAL_SLOT, task.goal.sentence)), problem(task))


def find_data(given: str | Path | None) -> Path:
    """Return the data folder: the one given, `$ALFWORLD_DATA`, or ALFWorld's own default.

    Raises:
        ConfigError: there is none.
    """
    named = given if given is not None else os.environ.get(VARIABLE)
    folder = Path(named).expanduser() if named else Path.home() / ".cache" / "alfworld"
    if (folder / _GAMES).is_dir():
        return folder
    asked = f"{folder} holds no folder {_GAMES}" if named else f"{VARIABLE} is not set"
    raise ConfigError(
        f"ALFWorld's games were not found: {asked}. Fetch them with `pip install alfworld` and "
        f"`alfworld-download`, and name their folder with {VARIABLE} or the argument `data`."
    )


@functools.lru_cache(maxsize=16)
def games_of(data: Path, task_types: tuple[str, ...]) -> Mapping[str, tuple[Path, ...]]:
    """Return the playable games of each split, in the order of their paths.

    Left out is what ALFWorld leaves out: other task types, movable receptacles, slices, and games not
    known to be solvable.

    Raises:
        ConfigError: no split holds a game.
    """
    root = data / _GAMES
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    found = {split: tuple(_playable(folder, task_types)) for split, folder in folders.items()}
    games = {split: paths for split, paths in found.items() if paths}
    if not games:
        kinds = ", ".join(task_types)
        raise ConfigError(f"{root} holds no solvable game of the types {kinds} in {', '.join(SPLITS)}.")
    return games


def _playable(folder: Path, task_types: Collection[str]) -> Iterable[Path]:
    for path in sorted(folder.rglob(_FILE)):
        inside = str(path.relative_to(folder))
        if any(part in inside for part in _UNSUPPORTED) or type_of(path) not in task_types:
            continue
        if _SOLVABLE.search(path.read_bytes()):
            yield path


def type_of(game: Path) -> str:
    """Return the task type in a path `<type>-<object>-<movable>-<target>-<scene>/<trial>/game.tw-pddl`."""
    return game.parent.parent.name.partition("-")[0]


def task_types_of(given: Iterable[str] | None) -> tuple[str, ...]:
    """Return the task types asked for, all six by default. Raises `ConfigError` for an unknown one."""
    kinds = TASK_TYPES if given is None else tuple(dict.fromkeys(given))
    unknown = [kind for kind in kinds if kind not in TASK_TYPES]
    if unknown or not kinds:
        raise ConfigError(f"ALFWorld has the task types {', '.join(TASK_TYPES)}; got {unknown or 'none'}.")
    return kinds


def write_games(data: str | Path, logic: Logic, tasks: Iterable[Task]) -> list[Path]:
    """Write household tasks into a data folder as games of ALFWorld, and return the files.

    So ALFWorld's engine can be played without its games: only its two logic files are needed.

    Args:
        data: the folder, made where it is missing; each task goes to its own split.
        logic: ALFWorld's domain and grammar.
        tasks: of `agentrl_envs.household.make_task`; their houses need no AI2-THOR scene.
    """
    return [_write(Path(data), logic, task) for task in tasks]


def _write(data: Path, logic: Logic, task: Task) -> Path:
    goal, game = task.goal, of_household(task, logic)
    thing, target = goal.object_type.capitalize(), goal.target_type.capitalize()
    folder = (
        data / _GAMES / task.split / f"{goal.task_type}-{thing}-None-{target}-0" / f"trial_{task.index:07d}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "pddl_domain": game.logic.domain,
        "grammar": game.logic.grammar,
        "pddl_problem": game.problem,
        "solvable": True,
    }
    (folder / _FILE).write_text(json.dumps(content))
    (folder / "traj_data.json").write_text(json.dumps({"task_type": goal.task_type}))
    return folder / _FILE

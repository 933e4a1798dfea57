"""Which games there are: a family of games is a frozen value, one game is a family and a seed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, TypeVar

from agentrl.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentrl.world.json_text import Json

SPLITS: Final = ("train", "valid_seen", "valid_unseen")
MAX_GAMES: Final = 1_000_000
"""Games of a split at most: the seeds of split k are [k, k + 1) * MAX_GAMES, so splits never share a seed."""

_RECIPE_VERSION: Final = 1
"""Part of every file name in the cache; raise it when `maker.py` makes other games from the same recipe."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """How texts are written (the fields of TextWorld's `GrammarOptions`).

    Attributes:
        theme: `"house"` or `"basic"` (bare words, for debugging).
        include_adj: names carry adjectives ("spherical key").
        only_last_action: the objective tells the goal only; by default it spells out every step.
        blend_instructions, blend_descriptions: several facts share a sentence.
        ambiguous_instructions: the objective names things by type or adjective.
    """

    theme: str = "house"
    include_adj: bool = False
    only_last_action: bool = False
    blend_instructions: bool = False
    blend_descriptions: bool = False
    ambiguous_instructions: bool = False


@dataclass(frozen=True, slots=True)
class Custom:
    """A world of rooms, doors, containers, keys and food with a generated quest (`tw-make custom`).

    Attributes:
        rooms: number of rooms.
        objects: number of objects at least; the quest brings its own.
        quest_length: commands of the quest.
        quest_breadth: subquests that can be done in any order; each scores.
        parallel_quests: independent quests.
    """

    family: ClassVar[str] = "custom"
    rooms: int = 3
    objects: int = 6
    quest_length: int = 3
    quest_breadth: int = 1
    parallel_quests: int = 1
    grammar: Grammar = field(default_factory=Grammar)

    def __post_init__(self) -> None:
        for name in ("rooms", "quest_length", "quest_breadth", "parallel_quests"):
            _within(self, name, 1, 100)
        _within(self, "objects", 0, 200)


@dataclass(frozen=True, slots=True)
class CoinCollector:
    """A chain of `level` rooms, a coin in the last; level 100 + n has n rooms and n dead ends (n <= 50)."""

    family: ClassVar[str] = "coin_collector"
    level: int = 3
    grammar: Grammar = field(default_factory=Grammar)

    def __post_init__(self) -> None:
        _within(self, "level", 1, 300)
        rooms = ((self.level - 1) // 100 + 1) * ((self.level - 1) % 100 + 1)
        if rooms > 100:
            raise ConfigError(f"level={self.level} has {rooms} rooms; a .z8 game holds at most 100.")


@dataclass(frozen=True, slots=True)
class TreasureHunter:
    """Find one object in a maze; `level` 1-10 easy, 11-20 with doors and containers, 21-30 with locks."""

    family: ClassVar[str] = "treasure_hunter"
    level: int = 3
    grammar: Grammar = field(default_factory=Grammar)

    def __post_init__(self) -> None:
        _within(self, "level", 1, 30)


@dataclass(frozen=True, slots=True)
class Cooking:
    """Read a recipe, fetch, cut and cook its ingredients, eat the meal (First TextWorld Problems).

    Attributes:
        recipe: ingredients of the recipe; `take` of them must be fetched.
        go: number of rooms: 1, 6, 9 or 12.
        open, cook, cut: containers are closed; ingredients must be cooked; must be cut.
        drop: the inventory is limited.
    """

    family: ClassVar[str] = "cooking"
    recipe: int = 1
    take: int = 1
    go: int = 1
    open: bool = False
    cook: bool = False
    cut: bool = False
    drop: bool = False
    grammar: Grammar = field(default_factory=Grammar)

    def __post_init__(self) -> None:
        _within(self, "recipe", 1, 5)
        _within(self, "take", 0, self.recipe)
        if self.go not in {1, 6, 9, 12}:
            raise ConfigError(f"Cooking.go must be 1, 6, 9 or 12 rooms; got {self.go}.")


@dataclass(frozen=True, slots=True)
class Files:
    """Games that somebody wrote with TextWorld.

    Attributes:
        path: a `.z8`, `.ulx` or `.json` file; or a folder of them, with or without folders for the splits
            (`train`, `valid_seen`, `valid_unseen`).
    """

    family: ClassVar[str] = "files"
    path: str = ""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("Files needs the path of a game, or of a folder of games.")


Game: TypeAlias = Custom | CoinCollector | TreasureHunter | Cooking
"""A family of games that are made here."""
Source: TypeAlias = Game | Files
_T = TypeVar("_T", bound=Grammar | Custom | CoinCollector | TreasureHunter | Cooking | Files)
FAMILIES: Final[dict[str, type[Source]]] = {
    kind.family: kind for kind in (Custom, CoinCollector, TreasureHunter, Cooking, Files)
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides one game; equal recipes give byte-identical files.

    Attributes:
        seed: of TextWorld's generator.
        foods: Cooking only: which of TextWorld's own three sets of foods and preparations to draw from.
    """

    game: Game
    seed: int
    foods: str = ""

    def to_json(self) -> dict[str, Json]:
        """Return the recipe as plain values, as `maker.py` reads it."""
        settings = dataclasses.asdict(self.game)
        grammar = settings.pop("grammar")
        return {
            "family": self.game.family,
            "settings": settings,
            "grammar": grammar,
            "seed": self.seed,
            "foods": self.foods,
        }

    def key(self, version: str) -> str:
        """Return the name of the game's files under this version of the textworld package."""
        text = json.dumps([_RECIPE_VERSION, version, self.to_json()], sort_keys=True)
        return f"{self.game.family}-{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"


def recipe_of(game: Game, split: str, index: int) -> Recipe:
    """Return the recipe of the game at (split, index).

    >>> recipe_of(CoinCollector(), "valid_seen", 7).seed
    1000007
    """
    foods = {"train": "train", "valid_seen": "train", "valid_unseen": "test"}[split]
    seed = SPLITS.index(split) * MAX_GAMES + index
    return Recipe(game, seed, foods if isinstance(game, Cooking) else "")


def game_of(game: Source | str, settings: Mapping[str, object] | None = None) -> Source:
    """Return a family by name with some of its fields set, as a TOML file gives them.

    >>> game_of("cooking", {"recipe": 2, "grammar": {"theme": "basic"}})
    Cooking(recipe=2, take=1, go=1, ..., grammar=Grammar(theme='basic', ...))
    """
    given = dict(settings or {})
    if not isinstance(game, str):
        if given:
            raise ConfigError("settings go with the name of a family; this game is a value: set its fields.")
        return game
    kind = FAMILIES.get(game)
    if kind is None:
        near = did_you_mean(game, FAMILIES)
        raise ConfigError(f"TextWorld has no family {game!r}; it has {', '.join(FAMILIES)}.{near}")
    grammar = given.pop("grammar", None) if "grammar" in kind.__dataclass_fields__ else None
    found = _filled(kind, given)
    if grammar is None or isinstance(found, Files):
        return found
    return replace(found, grammar=grammar if isinstance(grammar, Grammar) else _filled(Grammar, grammar))


def _filled(kind: type[_T], given: object) -> _T:
    """Return a `kind` with the given fields, checked by name and by the type of the field's default."""
    if not isinstance(given, dict):
        raise ConfigError(f"the settings of {kind.__name__} must be a table; got {given!r}.")
    defaults = {item.name: item.default for item in dataclasses.fields(kind) if item.name != "grammar"}
    for name, value in given.items():
        if name not in defaults:
            raise ConfigError(f"{kind.__name__} has no setting {name!r}.{did_you_mean(str(name), defaults)}")
        if type(value) is not type(defaults[name]):
            wanted = type(defaults[name]).__name__
            raise ConfigError(f"{kind.__name__}.{name} must be {wanted}; got {value!r}.")
    return kind(**given)


def _within(game: object, name: str, least: int, most: int) -> None:
    value = getattr(game, name)
    if not least <= value <= most:
        raise ConfigError(f"{type(game).__name__}.{name} must lie in [{least}, {most}]; got {value}.")

"""A player of the cooking games: it reads the recipe, fetches what it needs, cuts, cooks, and eats."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentrl_envs.textworld.walker import Walker

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from agentrl_envs.textworld.walker import Plan, Search

DONE: Final = {
    "chop": "chopped",
    "slice": "sliced",
    "dice": "diced",
    "fry": "fried",
    "roast": "roasted",
    "grill": "grilled",
}
"""What a food is called after each verb of a recipe."""
_HEAT: Final = {"fry": "stove", "roast": "oven", "grill": "BBQ"}
_STATE: Final = "|".join((*DONE.values(), "raw", "uncut", "burned"))
_RECIPE: Final = re.compile(r"Ingredients:\s*\n(.*?)\n\s*\n?\s*Directions:\s*\n(.*)", re.DOTALL)
_TAKEN: Final = re.compile(r"^You (?:take|pick up)\b|^Taken\b", re.MULTILINE)
_OPEN: Final = re.compile(r"\bopen(?:ed)? (?:the )?fridge\b|\bfridge (?:contains|is empty)\b")
_ITEM: Final = re.compile(
    rf"\b(?:an?|some|the) (?:(?:{_STATE}) )*(.+?)(?=,| and (?:an?|some|the) |\.?$)", re.MULTILINE
)


@dataclass(frozen=True)
class Recipe:
    """Foods by name, and steps as (verb, food)."""

    foods: tuple[str, ...]
    steps: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, text: str) -> Recipe | None:
        r"""Return the recipe that a cookbook shows, or None.

        >>> page = "Ingredients:\n  apple\n  salt\n\nDirections:\n  dice the apple\n  prepare meal"
        >>> Recipe.read(page)
        Recipe(foods=('apple', 'salt'), steps=(('dice', 'apple'),))
        """
        found = _RECIPE.search(text)
        if found is None:
            return None
        foods = tuple(line.strip() for line in found[1].splitlines() if line.strip())
        orders = [line.strip().partition(" the ") for line in found[2].splitlines()]
        return cls(foods, tuple((verb, food) for verb, _, food in orders if verb in DONE))


@dataclass
class Cook:
    """What the player has read and holds.

    Attributes:
        held: what the inventory said at first; `spare`: things in it that the recipe does not name.
    """

    walker: Walker = field(default_factory=Walker)
    recipe: Recipe = Recipe((), ())
    held: str = ""
    spare: list[str] = field(default_factory=list[str])
    kitchen: str = ""

    def plan(self, opening: str) -> Plan:
        """Cook the meal of the recipe and eat it."""
        self.walker.read(opening)
        self.held = yield "inventory"
        yield from self.walker.explore(self._look_around)
        steps = sorted(self._steps(), key=lambda step: list(DONE).index(step[0]))
        carried = _ITEM.findall(self.held)
        self.spare = [thing for thing in carried if thing not in self.recipe.foods]
        for food in self.recipe.foods:
            if food not in carried:
                yield from self.walker.to(self._place(food))
                yield from self._take(food)
        for verb, food in steps:
            yield from (self._heat(verb, food) if verb in _HEAT else self._cut(verb, food))
        yield from self.walker.to(self.kitchen)
        yield "prepare meal"
        yield "eat meal"

    def _look_around(self) -> Search:
        """Open the fridge and read the cookbook where they stand; whether everything has been found."""
        here = self.walker.here
        if "cookbook" in self.walker.seen[here] and not self.recipe.foods:
            self.kitchen = here
            self.recipe = Recipe.read((yield "examine cookbook")) or self.recipe
        if _named("fridge", self.walker.seen[here]) and not _OPEN.search(self.walker.seen[here]):
            yield from self.walker.open("fridge")
        return bool(self.recipe.foods) and all(self._knows(name) for name in self._needed())

    def _needed(self) -> list[str]:
        return [*self.recipe.foods, *(_HEAT[verb] for verb, _ in self._steps() if verb in _HEAT)]

    def _knows(self, name: str) -> bool:
        return _named(name, self.held) or any(_named(name, text) for text in self.walker.seen.values())

    def _place(self, name: str) -> str:
        """The room in which a thing was seen; this one where it was not."""
        rooms = (room for room, text in self.walker.seen.items() if _named(name, text))
        return next(rooms, self.walker.here)

    def _steps(self) -> list[tuple[str, str]]:
        """What is left to do: a food that is fried already burns when it is fried."""
        known = "\n".join((self.held, *self.walker.seen.values()))
        return [(verb, food) for verb, food in self.recipe.steps if DONE[verb] not in _states(food, known)]

    def _heat(self, verb: str, food: str) -> Plan:
        yield from self.walker.to(self._place(_HEAT[verb]))
        yield f"cook {food} with {_HEAT[verb]}"

    def _cut(self, verb: str, food: str) -> Plan:
        """Take the knife, if need be in place of another food, and lay it down again."""
        yield from self.walker.to(self._place("knife"))
        laid_down = yield from self._take("knife", [name for name in self.recipe.foods if name != food])
        yield f"{verb} {food} with knife"
        yield "drop knife"
        if laid_down:
            yield f"take {laid_down}"

    def _take(self, thing: str, instead: Sequence[str] = ()) -> Generator[str, str, str]:
        """Take a thing; with full hands lay down what is spare, else the first of `instead`; that one."""
        if _TAKEN.search((yield f"take {thing}")):
            return ""
        laid_down = next(iter((*self.spare, *instead)), "")
        if laid_down:
            yield f"drop {laid_down}"
            yield f"take {thing}"
        if laid_down in self.spare:
            self.spare.remove(laid_down)
            return ""
        return laid_down


def _named(name: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


def _states(food: str, text: str) -> set[str]:
    """What is said of a food, wherever it is named."""
    found = re.findall(rf"((?:\b(?:{_STATE}) )*)\b{re.escape(food)}\b", text)
    return {word for words in found for word in words.split()}


def cook(opening: str) -> Plan:
    """Play a cooking game."""
    return Cook().plan(opening)

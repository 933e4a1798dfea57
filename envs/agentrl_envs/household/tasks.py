"""The frozen facts of one task: the house, where everything lies at first, and the goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentrl_envs.household.vocabulary import can_contain

PICK_AND_PLACE: Final = "pick_and_place_simple"
LOOK_AT_OBJECT: Final = "look_at_obj_in_light"
CLEAN_THEN_PLACE: Final = "pick_clean_then_place_in_recep"
HEAT_THEN_PLACE: Final = "pick_heat_then_place_in_recep"
COOL_THEN_PLACE: Final = "pick_cool_then_place_in_recep"
PLACE_TWO: Final = "pick_two_obj_and_place"
TASK_TYPES: Final = (
    PICK_AND_PLACE,
    LOOK_AT_OBJECT,
    CLEAN_THEN_PLACE,
    HEAT_THEN_PLACE,
    COOL_THEN_PLACE,
    PLACE_TWO,
)

GOAL_TEMPLATES: Final[dict[str, tuple[str, str]]] = {
    PICK_AND_PLACE: ("put a {object} in {target}", "put some {object} on {target}"),
    LOOK_AT_OBJECT: ("look at {object} under the {target}", "examine the {object} with the {target}"),
    CLEAN_THEN_PLACE: ("put a clean {object} in {target}", "clean some {object} and put it in {target}"),
    HEAT_THEN_PLACE: ("put a hot {object} in {target}", "heat some {object} and put it in {target}"),
    COOL_THEN_PLACE: ("put a cool {object} in {target}", "cool some {object} and put it in {target}"),
    PLACE_TWO: ("put two {object} in {target}", "find two {object} and put them in {target}"),
}


@dataclass(frozen=True, slots=True)
class Goal:
    """What the task asks for.

    Args:
        task_type: one of ``TASK_TYPES``.
        object_type: the type to move or to hold.
        target_type: a receptacle type, or the lamp type of ``look_at_obj_in_light``.
        template: which of the two sentences of ``GOAL_TEMPLATES`` words it, 0 or 1.
    """

    task_type: str
    object_type: str
    target_type: str
    template: int = 0

    @property
    def sentence(self) -> str:
        """The wording the agent reads.

        >>> Goal("pick_heat_then_place_in_recep", "egg", "countertop").sentence
        'put a hot egg in countertop'
        """
        words = GOAL_TEMPLATES[self.task_type][self.template]
        return words.format(object=self.object_type, target=self.target_type)


@dataclass(frozen=True, slots=True)
class House:
    """The things of one room, named "type k", in the order in which texts list them.

    Args:
        room: one of ``vocabulary.ROOMS``; the agent is never told.
        receptacles: (R,) names.
        objects: (O,) names.
        randomized: whether anything may lie anywhere, against the customs of rooms.
    """

    room: str
    receptacles: tuple[str, ...]
    objects: tuple[str, ...]
    randomized: bool = False

    def accepts(self, receptacle_type: str, object_type: str) -> bool:
        """Say whether an object of this type may lie in a receptacle of that type."""
        return self.randomized or can_contain(receptacle_type, object_type)


@dataclass(frozen=True, slots=True)
class Task:
    """One task: a house, a placement and a goal.

    Args:
        house: the things in the room.
        placement: (O,) index into ``house.receptacles`` for each object at the start.
        goal: what to achieve.
        split: where the task comes from.
        index: its number in the split.
    """

    house: House
    placement: tuple[int, ...]
    goal: Goal
    split: str = "custom"
    index: int = 0


def listing_order(name: str) -> tuple[str, int]:
    """Sort key of ALFWorld's lists: types A to Z, numbers downwards.

    >>> sorted(["mug 1", "apple 1", "mug 2"], key=listing_order)
    ['apple 1', 'mug 2', 'mug 1']
    """
    kind, _, number = name.rpartition(" ")
    return kind, -int(number)

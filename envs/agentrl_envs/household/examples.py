"""One small hand-made house, for tests, documentation and first steps."""

from __future__ import annotations

from typing import Final

from agentrl_envs.household.tasks import (
    CLEAN_THEN_PLACE,
    COOL_THEN_PLACE,
    HEAT_THEN_PLACE,
    LOOK_AT_OBJECT,
    PICK_AND_PLACE,
    PLACE_TWO,
    Goal,
    House,
    Task,
)

EXAMPLE_START: Final = {
    "apple 1": "countertop 1",
    "book 1": "sidetable 1",
    "desklamp 1": "sidetable 1",
    "egg 1": "fridge 1",
    "knife 1": "countertop 2",
    "mug 2": "cabinet 1",
    "mug 1": "countertop 1",
}
"""Where each object of the example house lies at first."""

EXAMPLE_HOUSE: Final = House(
    "kitchen",
    ("cabinet 1", "countertop 2", "countertop 1", "fridge 1", "microwave 1", "sidetable 1", "sinkbasin 1"),
    tuple(EXAMPLE_START),
)

EXAMPLE_GOALS: Final = {
    PICK_AND_PLACE: Goal(PICK_AND_PLACE, "mug", "sidetable"),
    LOOK_AT_OBJECT: Goal(LOOK_AT_OBJECT, "book", "desklamp"),
    CLEAN_THEN_PLACE: Goal(CLEAN_THEN_PLACE, "apple", "microwave"),
    HEAT_THEN_PLACE: Goal(HEAT_THEN_PLACE, "egg", "countertop"),
    COOL_THEN_PLACE: Goal(COOL_THEN_PLACE, "mug", "cabinet"),
    PLACE_TWO: Goal(PLACE_TWO, "mug", "sidetable"),
}
"""A goal of each task type that the example house can fulfil."""


def example_task(task_type: str = HEAT_THEN_PLACE, template: int = 0) -> Task:
    """Set a task in the example house.

    >>> example_task().goal.sentence
    'put a hot egg in countertop'
    """
    goal = EXAMPLE_GOALS[task_type]
    placement = tuple(EXAMPLE_HOUSE.receptacles.index(place) for place in EXAMPLE_START.values())
    return Task(EXAMPLE_HOUSE, placement, Goal(task_type, goal.object_type, goal.target_type, template))

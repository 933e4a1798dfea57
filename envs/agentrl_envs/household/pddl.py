"""A household task as a PDDL problem of ALFWorld's own domain, `alfred.pddl`.

So ALFWorld's engine can play our houses: as games for `agentrl/ALFWorld-v0`, and as the oracle that our
simulator is compared with. Only names and facts are written here; domain and grammar are the user's files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentrl_envs.household import vocabulary
from agentrl_envs.household.sim import TREATMENTS
from agentrl_envs.household.tasks import (
    CLEAN_THEN_PLACE,
    COOL_THEN_PLACE,
    HEAT_THEN_PLACE,
    LOOK_AT_OBJECT,
    PLACE_TWO,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agentrl_envs.household.tasks import Goal, House, Task

_TREATED: Final = {CLEAN_THEN_PLACE: "isClean", HEAT_THEN_PLACE: "isHot", COOL_THEN_PLACE: "isCool"}
_ABILITY: Final = {"heat": "heatable", "clean": "cleanable", "cool": "coolable"}
_KEPT_SUFFIX: Final = "basin"
"""ALFWorld's engine appends this to the type of every id that contains it, so ids hold it behind the type."""


def problem(task: Task) -> str:
    """Write a task as a PDDL problem.

    Names come out as they are, "type k", through the rule by which ALFWorld numbers things: ids sorted
    backwards within a type.
    """
    receptacles = {name: _identifier(name) for name in task.house.receptacles}
    objects = {name: _identifier(name) for name in task.house.objects}
    facts = [*_places(receptacles), *_objects(task, receptacles, objects), *_fits(task.house)]
    return "\n".join([
        "(define (problem household)",
        "(:domain alfred)",
        f"(:objects {' '.join(_declarations(task.house, receptacles, objects))})",
        f"(:init (= (total-cost) 0) (atLocation agent1 loc_middle) {' '.join(facts)})",
        f"(:goal {_goal(task.goal)})",
        "(:metric minimize (total-cost)))",
    ])  # fmt: skip


def _identifier(name: str) -> str:
    """Return the id of a thing: its type, then a number that sorts backwards.

    >>> _identifier("mug 2"), _identifier("sinkbasin 1")
    ('Mug_bar_9998', 'Sink_bar_9999_bar_SinkBasin')
    """
    kind, _, number = name.rpartition(" ")
    order = 10_000 - int(number)
    if kind.endswith(_KEPT_SUFFIX):
        return f"{kind.removesuffix(_KEPT_SUFFIX).capitalize()}_bar_{order}_bar_{_type_word(kind)}"
    return f"{kind.capitalize()}_bar_{order}"


def _type_word(kind: str) -> str:
    """Return ALFWorld's word of a type; PDDL does not tell capitals from small letters."""
    if kind.endswith(_KEPT_SUFFIX):
        return f"{kind.removesuffix(_KEPT_SUFFIX).capitalize()}Basin"
    return kind.capitalize()


def _declarations(house: House, receptacles: dict[str, str], objects: dict[str, str]) -> Iterator[str]:
    yield "agent1 - agent loc_middle - location"
    for name, identifier in receptacles.items():
        yield f"{identifier} - receptacle {_location(name)} - location"
    yield from (f"{identifier} - object" for identifier in objects.values())
    # alfred.pddl names these types itself, so they exist in every problem.
    named = {"sinkbasin", "microwave", "fridge"}
    yield from (f"{_type_word(kind)}Type - rtype" for kind in sorted(_kinds(house.receptacles) | named))
    knives = set(vocabulary.KNIVES) | set(vocabulary.LAMPS)
    yield from (f"{_type_word(kind)}Type - otype" for kind in sorted(_kinds(house.objects) | knives))


def _kinds(names: Iterable[str]) -> set[str]:
    return {vocabulary.type_of(name) for name in names}


def _location(receptacle: str) -> str:
    return f"loc_{receptacle.replace(' ', '_')}"


def _places(receptacles: dict[str, str]) -> Iterator[str]:
    for name, identifier in receptacles.items():
        kind = vocabulary.type_of(name)
        yield f"(receptacleType {identifier} {_type_word(kind)}Type)"
        yield f"(receptacleAtLocation {identifier} {_location(name)})"
        if kind in vocabulary.OPENABLE:
            yield f"(openable {identifier})"


def _objects(task: Task, receptacles: dict[str, str], objects: dict[str, str]) -> Iterator[str]:
    for (name, identifier), place in zip(objects.items(), task.placement, strict=True):
        kind, receptacle = vocabulary.type_of(name), task.house.receptacles[place]
        yield f"(objectType {identifier} {_type_word(kind)}Type)"
        yield f"(inReceptacle {identifier} {receptacles[receptacle]})"
        yield f"(objectAtLocation {identifier} {_location(receptacle)})"
        yield f"({'toggleable' if kind in vocabulary.LAMPS else 'pickupable'} {identifier})"
        yield from (
            f"({_ABILITY[verb]} {identifier})" for verb, (_, fit) in TREATMENTS.items() if kind in fit
        )
        if kind in vocabulary.SLICEABLE:
            yield f"(sliceable {identifier})"
        if kind in vocabulary.NESTING:
            yield f"(isReceptacleObject {identifier})"


def _fits(house: House) -> Iterator[str]:
    for receptacle in sorted(_kinds(house.receptacles)):
        for kind in sorted(_kinds(house.objects)):
            if house.accepts(receptacle, kind):
                yield f"(canContain {_type_word(receptacle)}Type {_type_word(kind)}Type)"


def _goal(goal: Goal) -> str:
    """Write what is asked for; which thing of a type does it is left open, as in ALFWorld."""
    thing, target = f"{_type_word(goal.object_type)}Type", f"{_type_word(goal.target_type)}Type"
    if goal.task_type == LOOK_AT_OBJECT:
        return (
            f"(exists (?o - object ?a - agent ?lamp - object ?l - location) (and (objectType ?o {thing}) "
            f"(holds ?a ?o) (objectType ?lamp {target}) (isToggled ?lamp) (atLocation ?a ?l) "
            "(objectAtLocation ?lamp ?l)))"
        )
    if goal.task_type == PLACE_TWO:
        return (
            f"(exists (?r - receptacle ?o1 - object ?o2 - object) (and (receptacleType ?r {target}) "
            f"(objectType ?o1 {thing}) (objectType ?o2 {thing}) (not (= ?o1 ?o2)) "
            "(inReceptacle ?o1 ?r) (inReceptacle ?o2 ?r)))"
        )
    condition = f"({_TREATED[goal.task_type]} ?o)" if goal.task_type in _TREATED else ""
    return (
        f"(exists (?r - receptacle ?o - object) (and (receptacleType ?r {target}) (objectType ?o {thing}) "
        f"{condition} (inReceptacle ?o ?r)))"
    )

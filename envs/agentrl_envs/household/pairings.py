"""Which (object type, target type) goals exist, and which of them training never shows."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from typing import TYPE_CHECKING, Final

from agentrl_envs.household import vocabulary
from agentrl_envs.household.tasks import (
    CLEAN_THEN_PLACE,
    COOL_THEN_PLACE,
    HEAT_THEN_PLACE,
    LOOK_AT_OBJECT,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

HELD_OUT_SHARE: Final = 0.2
COMMON_TYPES: Final = 8
"""The smallest number of object types of a room for which every type stays a goal in training."""

_TREATABLE: Final = {
    CLEAN_THEN_PLACE: (vocabulary.CLEANABLE, "sinkbasin"),
    HEAT_THEN_PLACE: (vocabulary.HEATABLE, "microwave"),
    COOL_THEN_PLACE: (vocabulary.COOLABLE, "fridge"),
}
"""Task type -> objects it fits, and the appliance, which is too easy a target."""


def stable_hash(*parts: object) -> int:
    """Hash to 64 bits, the same in every process and version (unlike ``hash``)."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def targets_of(
    task_type: str, object_type: str, homes_of: Mapping[str, frozenset[str]] = vocabulary.HOMES
) -> frozenset[str]:
    """The target types that a goal may name with this object, where it may lie in those of ``homes_of``."""
    if task_type == LOOK_AT_OBJECT:
        return frozenset(vocabulary.LAMPS)
    homes = homes_of[object_type]
    if task_type not in _TREATABLE:
        return homes
    objects, appliance = _TREATABLE[task_type]
    return homes - {appliance} if object_type in objects else frozenset()


def rooms_of(task_type: str) -> tuple[str, ...]:
    """The rooms in which a task type can be set."""
    if task_type == LOOK_AT_OBJECT:
        return vocabulary.LIVINGROOM, vocabulary.BEDROOM
    if task_type == CLEAN_THEN_PLACE:
        return vocabulary.KITCHEN, vocabulary.BATHROOM
    if task_type in _TREATABLE:
        return (vocabulary.KITCHEN,)
    return vocabulary.ROOMS


@functools.cache
def all_pairings(object_types_per_room: int | None = None) -> tuple[tuple[str, str], ...]:
    """Every (object type, target type) that some room allows, sorted; perhaps of common objects only."""
    found: set[tuple[str, str]] = set()
    for room, kinds in vocabulary.ROOM_OBJECTS.items():
        lamps = set(vocabulary.LAMPS) if room in vocabulary.LAMP_ROOMS else set[str]()
        for kind in kinds[:object_types_per_room]:
            targets = vocabulary.HOMES[kind] & set(vocabulary.ROOM_RECEPTACLES[room])
            found |= {(kind, target) for target in targets | lamps}
    return tuple(sorted(found))


@functools.cache
def held_out_pairings() -> frozenset[tuple[str, str]]:
    """The fixed fifth of all pairings that only ``valid_unseen`` asks for.

    Taken in the order of a stable hash, skipping a pairing when half of those of its object or of its target
    are taken already, among all and among those of the commonest objects: so each type stays a goal, and a
    target, in training, in small houses too.
    """
    common = frozenset(all_pairings(COMMON_TYPES))
    limit: Counter[tuple[str, bool]] = Counter()
    for pair in all_pairings():
        limit.update(_ends(pair, common))
    wanted = math.ceil(HELD_OUT_SHARE * len(all_pairings()))
    taken: Counter[tuple[str, bool]] = Counter()
    chosen: list[tuple[str, str]] = []
    for pair in sorted(all_pairings(), key=lambda pair: stable_hash("pairing", *pair)):
        ends = _ends(pair, common)
        if len(chosen) < wanted and all(taken[end] < limit[end] // 2 for end in ends):
            chosen.append(pair)
            taken.update(ends)
    return frozenset(chosen)


def _ends(pair: tuple[str, str], common: frozenset[tuple[str, str]]) -> list[tuple[str, bool]]:
    """What a pairing counts for: its two types, and once more each if it is a common one."""
    return [(end, among) for end in pair for among in sorted({False, pair in common})]

"""Draw tasks: a pure function of (settings, split, index).

Three splits. ``valid_seen`` shares the layouts and the goal pairings of ``train`` but none of its tasks;
``valid_unseen`` has layouts and pairings that training never shows, made of types that it does show.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentrl.errors import EnvironmentUsageError
from agentrl_envs.household import vocabulary
from agentrl_envs.household.expert import Expert
from agentrl_envs.household.pairings import held_out_pairings, rooms_of, stable_hash, targets_of
from agentrl_envs.household.settings import TRAIN, VALID_UNSEEN, HouseholdSettings
from agentrl_envs.household.sim import World
from agentrl_envs.household.tasks import LOOK_AT_OBJECT, PLACE_TWO, Goal, House, Task, listing_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_REDRAWS: Final = 2000
_LAYOUT_CLASSES: Final = 5
"""One in so many layout signatures is kept for ``valid_unseen``."""
_TASK_CLASSES: Final = 4
"""One in so many tasks on seen layouts belongs to ``valid_seen`` and never to ``train``."""
_LAMP_SHARE: Final = 0.25
"""How often a living room or bedroom has a lamp that the goal does not name."""


_ANYWHERE: Final = dict.fromkeys(vocabulary.HOMES, frozenset[str]().union(*vocabulary.HOMES.values()))
"""Object type -> receptacle types, where anything may lie anywhere."""


@dataclass(frozen=True, slots=True)
class _Customs:
    """Which object types are found in a room, and where they may lie."""

    room: str
    kinds: tuple[str, ...]
    homes: Mapping[str, frozenset[str]]
    randomized: bool


@functools.lru_cache(maxsize=2048)
def make_task(settings: HouseholdSettings, split: str, index: int) -> Task:
    """Draw one task; kept for a while, since the members of a group and repeated evaluations ask again.

    Args:
        settings: the size of the household.
        split: "train", "valid_seen" or "valid_unseen".
        index: 0 <= index < ``settings.size_of(split)``.

    Raises:
        EnvironmentUsageError: the index is outside the split, or the settings admit no task.
    """
    size = settings.size_of(split)
    if not 0 <= index < size:
        raise EnvironmentUsageError(f"Split {split!r} has tasks 0 to {size - 1}; got index {index}.")
    rng = random.Random(stable_hash("task", settings, split, index))
    task_type = rng.choice(settings.task_types)
    for _ in range(_REDRAWS):
        task = _draw(settings, split, index, task_type, rng)
        if task is not None and _belongs(task) and expert_steps(task) >= settings.min_expert_steps:
            return task
    raise EnvironmentUsageError(
        f"No {task_type} task was found for {split}/{index} in {_REDRAWS} draws; "
        f"widen {settings}: more receptacles, objects or rooms, or a smaller min_expert_steps."
    )


def expert_steps(task: Task, limit: int = 1000) -> int:
    """Count the commands that the deterministic expert needs; ``limit`` if it needs more."""
    world = World(task)
    expert = Expert(world.intro())
    for step in range(limit):
        if world.won():
            return step
        command = expert.act()
        expert.observe(command, world.do(command))
    return limit


@functools.lru_cache(maxsize=8192)
def draw_layout(settings: HouseholdSettings, room: str, number: int, *, unseen: bool) -> tuple[str, ...]:
    """Name the receptacles of one layout, in listing order.

    Args:
        settings: the size of the household.
        room: one of ``settings.rooms``.
        number: which layout, 0 <= number < ``settings.layouts``.
        unseen: whether it is one that training never shows.
    """
    rng = random.Random(
        stable_hash("layout", settings.receptacles, settings.max_receptacles_per_type, room, number)
    )
    while True:
        layout = _numbered(_receptacle_types(settings, room, rng))
        if is_held_out_layout(room, layout) == unseen:
            return layout


def is_held_out_layout(room: str, receptacles: Sequence[str]) -> bool:
    """Say whether a layout is kept for ``valid_unseen``, by a stable hash of its receptacles."""
    return stable_hash("signature", room, *receptacles) % _LAYOUT_CLASSES == 0


def fingerprint(task: Task) -> int:
    """Hash what distinguishes a task: the house, where things lie, and the goal, not its wording."""
    goal = task.goal
    house = task.house
    return stable_hash(
        "fingerprint",
        house.room,
        house.receptacles,
        house.objects,
        task.placement,
        goal.task_type,
        goal.object_type,
        goal.target_type,
    )


def _belongs(task: Task) -> bool:
    """Whether the task may be in its split: train and valid_seen divide the tasks on seen layouts."""
    if task.split == VALID_UNSEEN:
        return True
    reserved = fingerprint(task) % _TASK_CLASSES == 0
    return reserved != (task.split == TRAIN)


def _draw(
    settings: HouseholdSettings, split: str, index: int, task_type: str, rng: random.Random
) -> Task | None:
    """Draw a task once; None if room, layout and split leave no goal or no place for its objects."""
    unseen = split == VALID_UNSEEN
    rooms = [room for room in settings.rooms if room in rooms_of(task_type)]
    if not rooms:
        return None
    room = rng.choice(rooms)
    receptacles = draw_layout(settings, room, rng.randrange(settings.layouts), unseen=unseen)
    customs = _customs_of(settings, split, index, room)
    goal = _draw_goal(customs, receptacles, task_type, rng, unseen=unseen)
    if goal is None:
        return None
    names = _numbered(_object_types(settings, customs, receptacles, goal, rng))
    places = [_start_of(name, receptacles, customs, goal, rng) for name in names]
    if None in places:
        return None
    placement = tuple(place for place in places if place is not None)
    return Task(House(room, receptacles, names, customs.randomized), placement, goal, split, index)


def _customs_of(settings: HouseholdSettings, split: str, index: int, room: str) -> _Customs:
    if split != TRAIN or stable_hash("randomized", index) >= settings.randomized * 2**64:
        kinds = vocabulary.ROOM_OBJECTS[room][: settings.object_types_per_room]
        return _Customs(room, kinds, vocabulary.HOMES, randomized=False)
    known = (vocabulary.ROOM_OBJECTS[other][: settings.object_types_per_room] for other in settings.rooms)
    return _Customs(room, tuple(sorted(set[str]().union(*known))), _ANYWHERE, randomized=True)


def _draw_goal(
    customs: _Customs, receptacles: Sequence[str], task_type: str, rng: random.Random, *, unseen: bool
) -> Goal | None:
    present = {vocabulary.type_of(name) for name in receptacles} | set(vocabulary.LAMPS)
    held_out = held_out_pairings()
    pairs = [
        (kind, target)
        for kind in customs.kinds
        for target in sorted(targets_of(task_type, kind, customs.homes) & present)
        if ((kind, target) in held_out) == unseen
    ]
    if not pairs:
        return None
    kind, target = rng.choice(pairs)
    return Goal(task_type, kind, target, rng.randrange(2))


def _receptacle_types(settings: HouseholdSettings, room: str, rng: random.Random) -> list[str]:
    weights = vocabulary.ROOM_RECEPTACLES[room]
    kinds = list(vocabulary.ROOM_CORE[room])
    count = rng.randint(*settings.receptacles)

    def has_room(kind: str) -> bool:
        limit = 1 if kind in vocabulary.UNIQUE else settings.max_receptacles_per_type
        return kinds.count(kind) < limit

    _fill(kinds, count, weights, has_room, rng)
    return kinds


def _object_types(
    settings: HouseholdSettings,
    customs: _Customs,
    receptacles: Sequence[str],
    goal: Goal,
    rng: random.Random,
) -> list[str]:
    """Choose the objects: those of the goal, sometimes a lamp, then anything that finds a home."""
    kinds = [goal.object_type] * (2 if goal.task_type == PLACE_TWO else 1)
    if goal.task_type == LOOK_AT_OBJECT:
        kinds.append(goal.target_type)
    elif customs.room in vocabulary.LAMP_ROOMS and rng.random() < _LAMP_SHARE:
        kinds.append(rng.choice(vocabulary.LAMPS))
    holders = {vocabulary.type_of(name) for name in receptacles}

    def has_room(kind: str) -> bool:
        if kinds.count(kind) >= settings.max_objects_per_type:
            return False
        return bool(_homes(kind, customs, goal) & holders)

    _fill(kinds, rng.randint(*settings.objects), dict.fromkeys(customs.kinds, 1), has_room, rng)
    return kinds


def _fill(
    kinds: list[str],
    count: int,
    weights: Mapping[str, int],
    has_room: Callable[[str], bool],
    rng: random.Random,
) -> None:
    """Draw types into ``kinds`` until there are ``count`` of them, or no type has room for one more."""
    while len(kinds) < count:
        free = [kind for kind in weights if has_room(kind)]
        if not free:
            return
        kinds += rng.choices(free, [weights[kind] for kind in free])


def _homes(kind: str, customs: _Customs, goal: Goal) -> frozenset[str]:
    """Where an object may lie at first: things of the goal's type never in the goal's target."""
    homes = customs.homes[kind]
    return homes - {goal.target_type} if kind == goal.object_type else homes


def _start_of(
    name: str, receptacles: Sequence[str], customs: _Customs, goal: Goal, rng: random.Random
) -> int | None:
    homes = _homes(vocabulary.type_of(name), customs, goal)
    places = [number for number, place in enumerate(receptacles) if vocabulary.type_of(place) in homes]
    return rng.choice(places) if places else None


def _numbered(kinds: Sequence[str]) -> tuple[str, ...]:
    """Name things "type k", in listing order."""
    names = [f"{kind} {number}" for kind, count in Counter(kinds).items() for number in range(1, count + 1)]
    return tuple(sorted(names, key=listing_order))

"""How large a household is, and what its tasks ask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from agentrl.errors import ConfigError
from agentrl_envs.household.tasks import TASK_TYPES
from agentrl_envs.household.vocabulary import ROOMS

TRAIN: Final = "train"
VALID_SEEN: Final = "valid_seen"
VALID_UNSEEN: Final = "valid_unseen"
SPLITS: Final = (TRAIN, VALID_SEEN, VALID_UNSEEN)


@dataclass(frozen=True, slots=True)
class HouseholdSettings:
    """The size of a household.

    Args:
        receptacles: least and most receptacles in a room.
        objects: least and most objects in a room.
        max_receptacles_per_type: the largest k of "drawer k".
        max_objects_per_type: the largest k of "mug k"; at least 2.
        object_types_per_room: how many of a room's portable object types exist (the commonest first).
        rooms: the kinds of room in use.
        task_types: the task types in use.
        min_expert_steps: tasks that the expert solves in fewer steps are drawn again.
        layouts: how many layouts of each room a split draws from.
        train_tasks: size of the split ``train``.
        valid_tasks: size of each of the two other splits.
        randomized: the share of the tasks of ``train``, in [0, 1], in whose houses any object of any room in
            use may lie anywhere, and whose goals may name any pairing that is not held out. What an agent
            cannot know by heart it must read. The other tasks, and the other splits, do not depend on it.

    Raises:
        ConfigError: a range is empty, a share is none, or a room or task type is unknown.
    """

    receptacles: tuple[int, int] = (6, 8)
    objects: tuple[int, int] = (5, 7)
    max_receptacles_per_type: int = 3
    max_objects_per_type: int = 2
    object_types_per_room: int = 8
    rooms: tuple[str, ...] = ROOMS
    task_types: tuple[str, ...] = TASK_TYPES
    min_expert_steps: int = 6
    layouts: int = 256
    train_tasks: int = 2**31
    valid_tasks: int = 1024
    randomized: float = field(default=0.0, repr=False)  # tasks are drawn by a hash of what repr shows

    def __post_init__(self) -> None:
        for name, (least, most) in (("receptacles", self.receptacles), ("objects", self.objects)):
            if not 3 <= least <= most:
                raise ConfigError(
                    f"{name} must be (least, most) with 3 <= least <= most; got {(least, most)}."
                )
        unknown = set(self.rooms) - set(ROOMS) | set(self.task_types) - set(TASK_TYPES)
        if unknown:
            raise ConfigError(f"Unknown {sorted(unknown)}; rooms are {ROOMS}, task types are {TASK_TYPES}.")
        if not _is_share(self.randomized):
            raise ConfigError(f"randomized is a share in [0, 1]; got {self.randomized!r}.")
        if self.max_objects_per_type < 2:
            raise ConfigError(
                "max_objects_per_type must be at least 2: a task type asks for two objects of a type."
            )

    def size_of(self, split: str) -> int:
        """The number of tasks in a split.

        Raises:
            ConfigError: the split is unknown.
        """
        if split not in SPLITS:
            raise ConfigError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
        return self.train_tasks if split == TRAIN else self.valid_tasks


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0.0 <= value <= 1.0


SMALL: Final = HouseholdSettings()
"""For training a small model on a CPU."""

TWO_ROOMS: Final = HouseholdSettings(
    rooms=("kitchen", "bedroom"), object_types_per_room=6, max_receptacles_per_type=1
)
"""As small, with a third of the names: kitchens and bedrooms, each receptacle of another type."""

MEDIUM: Final = HouseholdSettings(
    receptacles=(12, 16),
    objects=(12, 18),
    max_receptacles_per_type=5,
    max_objects_per_type=3,
    object_types_per_room=16,
)

ALFWORLD: Final = HouseholdSettings(
    receptacles=(24, 30),
    objects=(34, 42),
    max_receptacles_per_type=10,
    max_objects_per_type=5,
    object_types_per_room=64,
)
"""About the size of an ALFWorld room."""

PRESETS: Final = {"two_rooms": TWO_ROOMS, "small": SMALL, "medium": MEDIUM, "alfworld": ALFWORLD}

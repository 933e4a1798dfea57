"""How large a generated world is, and what is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from agentrl.errors import ConfigError, did_you_mean

TRAIN: Final = "train"
VALID: Final = "valid"
TEST: Final = "test"
SPLITS: Final = (TRAIN, VALID, TEST)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """A family of worlds.

    Args:
        documents: in each world, one for each entity; from 20 to 2,000,000.
        hops: how many relations a question follows; one of these, drawn for each task.
        tasks_per_world: consecutive tasks that ask about one world; the next ones ask about another.
        train_tasks: size of the split `train`; `valid_tasks`: of each other split. No two splits share a
            world.
        seed: of everything.

    Raises:
        ConfigError: a number is out of its range.
    """

    documents: int = 100
    hops: tuple[int, ...] = (1, 2, 3, 4)
    tasks_per_world: int = 64
    train_tasks: int = 2**31
    valid_tasks: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("documents", "tasks_per_world", "train_tasks", "valid_tasks", "seed"):
            value: object = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(f"{name} of the search settings is a whole number; got {value!r}.")
        if not 20 <= self.documents <= 2_000_000:
            raise ConfigError(f"a world has 20 to 2,000,000 documents; got {self.documents}.")
        if not self.hops or not all(1 <= hops <= 4 for hops in self.hops):
            raise ConfigError(f"hops are numbers from 1 to 4; got {self.hops}.")
        for name in ("tasks_per_world", "train_tasks", "valid_tasks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a number of at least 1.")

    def size_of(self, split: str) -> int:
        """Return the number of tasks of a split."""
        return self.train_tasks if split == TRAIN else self.valid_tasks


ONE_WORLD: Final = 2**31
PRESETS: Final = {
    "tiny": SearchSettings(documents=40, hops=(1, 2), tasks_per_world=8),
    "small": SearchSettings(),
    "medium": SearchSettings(documents=10_000, tasks_per_world=ONE_WORLD),
    "large": SearchSettings(documents=1_000_000, tasks_per_world=ONE_WORLD),
}
"""`tiny` is for a small model on a CPU; in `medium` and `large` all tasks of a split share one world."""


def settings_of(given: SearchSettings | str | Mapping[str, object]) -> SearchSettings:
    """Return settings from a value, the name of a preset, or a table whose `preset` names what it changes.

    Raises:
        ConfigError: there is no such preset or field.

    >>> settings_of({"preset": "tiny", "hops": [2]}).hops
    (2,)
    """
    if isinstance(given, SearchSettings):
        return given
    other: object = given
    if not isinstance(other, str | Mapping):
        raise ConfigError(f"search settings are the name of a preset or a table; got {given!r}.")
    table: dict[str, object] = {"preset": given} if isinstance(given, str) else dict(given)
    name = str(table.pop("preset", "small"))
    if name not in PRESETS:
        raise ConfigError(
            f"there is no search preset {name!r}.{did_you_mean(name, PRESETS)} "
            f"The presets are {', '.join(PRESETS)}."
        )
    known = [field.name for field in dataclasses.fields(SearchSettings)]
    for key in table:
        if key not in known:
            raise ConfigError(
                f"search settings have no field {key!r}.{did_you_mean(key, known)} "
                f"They have {', '.join(known)}."
            )
    if "hops" in table:
        table["hops"] = _whole_numbers(table["hops"])
    return dataclasses.replace(PRESETS[name], **cast("dict[str, int]", table))  # type: ignore[arg-type]  # checked by name


def _whole_numbers(value: object) -> tuple[int, ...]:
    items = cast("list[object]", list(value)) if isinstance(value, list | tuple) else [value]
    try:
        return tuple(int(str(item)) for item in items)
    except ValueError as error:
        raise ConfigError(f"hops are whole numbers, such as [1, 2]; got {value!r}.") from error

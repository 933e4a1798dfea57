"""The slots of a plan as settings write them: `[rl.plan]` of a run's TOML."""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import fields, is_dataclass, replace
from types import FunctionType
from typing import TYPE_CHECKING, cast

import agentrl.plan as parts
from agentrl.credit.part import Description, Schedule, rebuild
from agentrl.errors import AgentrlError, ConfigError, as_sentence, did_you_mean
from agentrl.learn import schedule
from agentrl.plan import Plan, Refill, Replay
from agentrl.rollout.memory import whole_history

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentrl.rollout.memory import Memory

_KINDS: dict[str, type[object]] = {"turns": Schedule, "refill": Refill, "replay": Replay}


def _is_part(value: object) -> bool:
    """Whether settings can name it: a weight or a measure, or the class of a part."""
    if isinstance(value, FunctionType):
        return value.__name__ not in {"groups_of", "fixed"}
    kinds = tuple(_KINDS.values())
    return (
        is_dataclass(value)
        and isinstance(value, type)
        and ("__call__" in dir(value) or issubclass(value, kinds))
    )


_FOUND = {name: getattr(room, name) for room in (parts, schedule) for name in room.__all__}
NAMES = frozenset(name for name, value in _FOUND.items() if _is_part(value))


def with_slots(plan: Plan, given: Mapping[str, Description]) -> Plan:
    """Return a plan with slots as settings write them.

    A part is a table `{part = "Expand", trees = 2}`, a function `{function = "..."}`, `turns` also a number,
    `repeats` always; names without a module are those of `agentrl.plan`. `false` empties a slot.

    Raises:
        ConfigError: there is no such slot, part or field.

    >>> with_slots(Plan(), {"memory": {"part": "Window", "turns": 3}}).memory
    Window(turns=3)
    """
    slots = {item.name for item in fields(Plan)}
    for name in given:
        if name not in slots:
            raise ConfigError(
                f"rl.plan has no slot {name!r}.{did_you_mean(name, slots)} Slots: {', '.join(sorted(slots))}."
            )
    slots_given = {name: _slot(name, value) for name, value in given.items()}
    return replace(plan, **slots_given)  # type: ignore[arg-type]  # a settings file says what stands there


def memory_of(card: Mapping[str, object]) -> Memory:
    """Return the memory of the algorithm that a run card describes; the whole history where it names none."""
    described = card.get("plan")
    memory = cast("dict[str, Description]", described).get("memory") if isinstance(described, dict) else None
    return whole_history if memory is None else cast("Memory", rebuild(memory))


def _slot(name: str, value: Description) -> object:
    if value is False:
        return getattr(Plan(), name)
    if name == "turns" and isinstance(value, int | float):
        return value
    if name == "repeats":
        if not isinstance(value, int) or value < 2:
            raise ConfigError(f"rl.plan.repeats is {value!r}; write a whole number of at least 2.")
        return value
    if not isinstance(value, dict) or not {"part", "function"} & value.keys():
        raise ConfigError(
            f"rl.plan.{name} is {value!r}; write a table such as {{ part = 'NAME' }}, with its fields."
        )
    try:
        found = rebuild(_full(value))
    except (TypeError, KeyError, AgentrlError) as error:
        raise ConfigError(
            f"rl.plan.{name} cannot be built: {as_sentence(error)}{_fields_of(value)}"
        ) from error
    if not isinstance(found, _KINDS[name]) if name in _KINDS else not callable(found):
        raise ConfigError(f"rl.plan.{name} cannot be {found!r}, which is no part for that slot.")
    return found


def _fields_of(value: Mapping[str, Description]) -> str:
    """A sentence with the fields of the part that a table names, where there is such a part."""
    part = value.get("part")
    if not isinstance(part, str):
        return ""
    with contextlib.suppress(AgentrlError, ImportError, AttributeError, ValueError):
        module, _, name = (part if ":" in part else _address(part)).partition(":")
        known = fields(getattr(importlib.import_module(module), name))
        return f" Its fields are {', '.join(field.name for field in known) or 'none'}."
    return ""


def _full(value: Description) -> Description:
    """The description with every short name written out."""
    if isinstance(value, list):
        return [_full(item) for item in value]
    if not isinstance(value, dict):
        return value
    full = {name: _full(item) for name, item in value.items()}
    for kind in ("part", "function"):
        name = full.get(kind)
        if isinstance(name, str) and ":" not in name:
            full[kind] = _address(name)
    return full


def _address(name: str) -> str:
    if name not in NAMES:
        raise ConfigError(
            f"agentrl.plan has no {name!r}.{did_you_mean(name, NAMES)} It has "
            f"{', '.join(sorted(NAMES))}; a part of your own is named 'my_module:NAME'."
        )
    part = cast("type[object]", _FOUND[name])
    return f"{part.__module__}:{part.__qualname__}"

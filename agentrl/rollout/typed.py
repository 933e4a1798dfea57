"""What an environment returned, checked once at the door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from agentrl.trajectory import ToolCall, TurnKind

if TYPE_CHECKING:
    from agentrl.world.env import StepResult

FIGURES = ("rewards", "measures", "metrics")
"""Reserved keys of `info` that hold named numbers."""

# Every step is checked, and a union written in place would be built anew each time.
_TRUTHS = (bool, np.bool_)
_NUMBERS = (float, int, np.integer, np.floating, np.bool_)


def reset_result(value: object) -> str:
    """Return the observation of `reset`. Raises `TypeError` where it is not (text, mapping)."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"reset() returned {_short(value)}; return (observation, info).")
    observation, info = cast("tuple[object, object]", value)
    if not isinstance(observation, str) or not isinstance(info, Mapping):
        raise TypeError(f"reset() returned {_short(value)}; return a text and a dictionary.")
    return observation


def step_result(value: object) -> StepResult:
    """Return the results of `step` as plain types. Raises `TypeError` or `ValueError` with a sentence."""
    if not isinstance(value, tuple) or len(value) != 5:
        raise TypeError(
            f"step() returned {_short(value)}; return (observation, reward, terminated, truncated, info)."
        )
    observation, reward, terminated, truncated, info = cast("tuple[object, ...]", value)
    if not isinstance(observation, str):
        raise TypeError(f"step() returned the observation {_short(observation)}; return a text.")
    if not isinstance(terminated, _TRUTHS) or not isinstance(truncated, _TRUTHS):
        raise TypeError("step() returned terminated or truncated that is no boolean.")
    if not isinstance(info, Mapping):
        raise TypeError(f"step() returned the info {_short(info)}; return a dictionary.")
    known = dict(cast("Mapping[str, object]", info))
    _check_info(known)
    return observation, _number(reward, "reward"), bool(terminated), bool(truncated), known


def _check_info(info: dict[str, object]) -> None:
    for name in FIGURES:
        if name not in info:
            continue
        figures = info[name]
        if not isinstance(figures, Mapping):
            raise TypeError(f"info[{name!r}] is {_short(figures)}; give names with numbers.")
        info[name] = {
            str(key): _number(item, name, key)
            for key, item in cast("Mapping[object, object]", figures).items()
        }
    if type(info.get("turn_kind", TurnKind.OK)) is not TurnKind:
        info["turn_kind"] = TurnKind(cast("str", info["turn_kind"]))
    _check_tuple(info, "results", str, "texts")
    _check_tuple(info, "tool_calls", ToolCall, "ToolCall")


def _check_tuple(info: Mapping[str, object], name: str, kind: type, what: str) -> None:
    if name not in info:
        return
    items = info[name]
    if not isinstance(items, tuple) or not all(isinstance(item, kind) for item in items):
        raise TypeError(f"info[{name!r}] is {_short(items)}; give a tuple of {what}.")


def _number(value: object, name: str, key: object = None) -> float:
    if not isinstance(value, _NUMBERS):
        raise TypeError(f"step() returned the {_place(name, key)} {_short(value)}; return a number.")
    if not math.isfinite(value):
        raise ValueError(f"step() returned the {_place(name, key)} {value}; return a finite number.")
    return float(value)


def _place(name: str, key: object) -> str:
    return name if key is None else f"info[{name!r}][{key!r}]"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

"""Whether `reset` and `step` return what they must."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Final

import numpy as np

from agentrl.testing.report import Finding
from agentrl.trajectory import ToolCall, TurnKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agentrl.world.env import TextEnv

_INFO_TYPES: Final[Mapping[str, type]] = {
    "success": bool,
    "valid": bool,
    "turn_kind": TurnKind,
    "tool_calls": tuple,
    "domain": str,
    "task_type": str,
}


def wrong_types(where: str, observation: object, info: object) -> Iterator[Finding]:
    """What is wrong with an observation and an info; `where` says of which call."""
    if not isinstance(observation, str):
        yield Finding("error", "types", f"{where}: the observation must be str; got {_kind(observation)}")
    elif (surrogate := lone_surrogate(observation)) is not None:
        text = f"the observation has the lone surrogate {surrogate!r}, which UTF-8 cannot hold; replace it"
        yield Finding("error", "types", f"{where}: {text}")
    if not isinstance(info, dict):
        yield Finding("error", "types", f"{where}: info must be a dict; got {_kind(info)}")
        return
    for name, expected in _INFO_TYPES.items():
        if name in info and not isinstance(info[name], expected):
            text = f"info[{name!r}] must be {expected.__name__}; got {type(info[name]).__name__}"
            yield Finding("error", "types", f"{where}: {text}")
    calls = info.get("tool_calls", ())
    if isinstance(calls, tuple) and not all(isinstance(call, ToolCall) for call in calls):
        yield Finding("error", "types", f"{where}: info['tool_calls'] must hold ToolCall only")
    for name in ("rewards", "metrics"):
        values = info.get(name, {})
        if not isinstance(values, dict) or not all(_finite(value) for value in values.values()):
            yield Finding("error", "types", f"{where}: info[{name!r}] must map names to finite numbers")


def without_success(where: str, info: Mapping[str, object]) -> Iterator[Finding]:
    """What is wrong where an episode ends and nobody says whether it was a success; `where` says of which."""
    if "success" in info:
        return
    said = f"{where} ended without info['success'], so success is unknown in eval and train"
    near = difflib.get_close_matches("success", info, n=1, cutoff=0.75)
    if near:
        yield Finding("warning", "types", f"{said}; info has {near[0]!r}, which nobody reads")
    else:
        yield Finding("note", "types", f"{said}; set it to True or False where the episode ends")


def wrong_numbers(
    env: TextEnv, turn: int, reward: object, terminated: object, truncated: object
) -> Iterator[Finding]:
    """What is wrong with the reward and the two flags of a step."""
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool):
            yield Finding("error", "types", f"step {turn}: {name} must be bool; got {_kind(flag)}")
    if not _finite(reward):
        yield Finding("error", "types", f"step {turn}: the reward must be a finite number; got {reward!r}")
        return
    least, most = env.reward_range or (-1.0, 1.0)
    if least <= float(str(reward)) <= most:
        return
    if env.reward_range is None:
        text = f"the reward {reward} is outside of -1 to 1; set reward_range on the class if it is meant"
        yield Finding("warning", "types", f"step {turn}: {text}")
    else:
        yield Finding("error", "types", f"step {turn}: the reward {reward} is outside of {(least, most)}")


def lone_surrogate(text: object) -> str | None:
    """Return the first character of a text that UTF-8 cannot hold, or None."""
    found = re.search("[\ud800-\udfff]", text) if isinstance(text, str) else None
    return found.group() if found else None


def opposite(ends: Sequence[tuple[float, object]]) -> Iterator[Finding]:
    """A warning where an episode without success was paid more than each one with success.

    Args:
        ends: the sum of rewards of each episode that ended, and its success.
    """
    failed = [total for total, success in ends if success is False]
    succeeded = [total for total, success in ends if success is True]
    if failed and succeeded and max(failed) > max(succeeded):
        text = (
            f"an episode with the reward {max(failed):g} has success False, and none with success True has "
            f"more than {max(succeeded):g}; is success the wrong way round?"
        )
        yield Finding("warning", "types", text)


def paid(reward: object) -> float:
    """Return a reward as a number, NaN where it is none."""
    return float(str(reward)) if _finite(reward) else math.nan


def _kind(value: object) -> str:
    """The name of a type, with its module where that is not Python's: numpy has a bool, too."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return math.isfinite(value)

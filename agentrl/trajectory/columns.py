"""The columns of a batch: their types, axes and neutral values, and the typed keys of the optional ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentrl.errors import BatchError, did_you_mean
from agentrl.trajectory.turn import StopReason, TurnKind

if TYPE_CHECKING:
    from collections.abc import Mapping

Axis: TypeAlias = Literal["E", "S", "T", "N"]
Ints: TypeAlias = NDArray[np.int32]
Keys: TypeAlias = NDArray[np.int64]
Places: TypeAlias = NDArray[np.int64]
"""Rows of another axis. numpy gathers by 64-bit indices, and would convert narrower ones at each use."""
Floats: TypeAlias = NDArray[np.float32]
Bools: TypeAlias = NDArray[np.bool_]
Texts: TypeAlias = NDArray[np.str_]

NO_KEY = -1
"""The value of a key column where a turn makes no anchor."""

NO_SPAN = -1
"""The value of the span column where a sampled token has no role."""

KINDS = tuple(TurnKind)
STOPS = tuple(StopReason)


@dataclass(frozen=True, slots=True)
class Column:
    """The typed key of an optional column: its name, its axis, and the probe that provides it.

    >>> ENTROPY.axis
    'N'
    """

    name: str
    axis: Axis
    probe: str = field(compare=False)


REFERENCE_LOGPROB = Column("reference_logprob", "N", "agentrl.learn.probes.reference_logprob")
LOGPROB_BEFORE_UPDATE = Column("logprob_before_update", "N", "agentrl.learn.probes.current_logprob")
CURRENT_LOGPROB = Column("current_logprob", "N", "the run, before each optimizer step after the first")
VOCABULARY_LOGPROB = Column("vocabulary_logprob", "N", "agentrl.learn.probes.vocabulary_logprob")
CURRENT_VOCABULARY_LOGPROB = Column(
    "current_vocabulary_logprob", "N", "the run, before each optimizer step after the first"
)
ENTROPY = Column("entropy", "N", "agentrl.learn.probes.entropy")
VALUE = Column("value", "N", "a critic: give the algorithm one, Algorithm(critic=Critic())")
SPAN = Column("span", "N", "turns whose text has marked spans, such as reasoning between <think> tags")
SENTENCE = Column("sentence", "N", "agentrl.learn.sentences.with_sentences")
GOLD_LOGPROB = Column("gold_logprob", "S", "agentrl.learn.belief.gold_belief")
GOLD_LOGPROB_FINAL = Column("gold_logprob_final", "E", "agentrl.learn.belief.gold_belief")

KNOWN_COLUMNS = (
    REFERENCE_LOGPROB, LOGPROB_BEFORE_UPDATE, CURRENT_LOGPROB, VOCABULARY_LOGPROB,
    CURRENT_VOCABULARY_LOGPROB, ENTROPY, VALUE, SPAN, SENTENCE, GOLD_LOGPROB,
    GOLD_LOGPROB_FINAL,
)  # fmt: skip

_REWARD_PREFIX = "reward:"


def reward_component(name: str) -> Column:
    """Return the key of the (S,) column of one named reward component; 0 in a turn that lacks it.

    >>> reward_component("format").name
    'reward:format'
    """
    return Column(_REWARD_PREFIX + name, "S", f"the environment, as Turn.rewards[{name!r}]")


def is_reward_component(column: Column) -> bool:
    """Return whether the column is one of `reward_component`."""
    return column.axis == "S" and column.name.startswith(_REWARD_PREFIX)


AXES: dict[str, Axis] = {
    **dict.fromkeys(
        ("group", "member", "success", "stop", "parent", "branch_turn", "hint_level", "task", "domain",
         "final_observation_key", "final_state_key"), "E"),
    **dict.fromkeys(
        ("reward", "kind", "valid", "spoofed", "fresh", "observation_key", "state_key", "policy_version",
         "role",
         "tool_calls", "tool_errors", "tool_cost", "tool_seconds"), "S"),
    **dict.fromkeys(("token", "sampled"), "T"),
    "logprob": "N",
}  # fmt: skip

DEFAULTS: dict[str, tuple[object, type[np.generic]]] = {
    "member": (0, np.int32), "success": (-1, np.int8), "stop": (0, np.int8), "parent": (-1, np.int32),
    "branch_turn": (-1, np.int32), "hint_level": (0, np.int32), "task": ("", np.str_),
    "domain": ("", np.str_),
    "final_observation_key": (NO_KEY, np.int64), "final_state_key": (NO_KEY, np.int64), "kind": (0, np.int8),
    "valid": (True, np.bool_), "spoofed": (False, np.bool_), "fresh": (False, np.bool_),
    "observation_key": (NO_KEY, np.int64), "state_key": (NO_KEY, np.int64), "policy_version": (0, np.int32),
    "role": ("agent", np.str_), "tool_calls": (0, np.int32), "tool_errors": (0, np.int32),
    "tool_cost": (0.0, np.float32), "tool_seconds": (0.0, np.float32), "token": (0, np.int32),
    "sampled": (True, np.bool_), "logprob": (0.0, np.float32),
}  # fmt: skip


def keyed(
    columns: Mapping[Column, NDArray[np.generic]] | Mapping[str, NDArray[np.generic]],
    sizes: Mapping[Axis, int],
) -> dict[Column, NDArray[np.generic]]:
    """Return optional columns under their typed keys; names of known columns are accepted as keys.

    Args:
        columns: arrays by `Column` or by name.
        sizes: length of each axis, by letter.

    Raises:
        BatchError: a name is unknown or an array has the wrong length.
    """
    known = {column.name: column for column in KNOWN_COLUMNS}
    result: dict[Column, NDArray[np.generic]] = {}
    for given, values in columns.items():
        column = known.get(given) if isinstance(given, str) else given
        if column is None:
            raise BatchError(
                f"there is no known optional column {given!r}.{did_you_mean(str(given), known)} Use a "
                "key of your "
                f"own: columns={{Column({given!r}, axis, probe): values}}."
            )
        result[column] = np.asarray(values)
        check_length(column.name, result[column], sizes[column.axis])
    return result


def check_length(name: str, values: NDArray[np.generic], size: int) -> None:
    """Raise `BatchError` unless the column has shape (size,)."""
    if values.shape != (size,):
        raise BatchError(
            f"column {name!r} has shape {values.shape}; expected ({size},). Give one entry per row."
        )


def check_range(name: str, values: NDArray[np.integer], low: int, high: int) -> None:
    """Raise `BatchError` unless every entry lies in [low, high)."""
    if values.size and not (low <= int(values.min()) and int(values.max()) < high):
        raise BatchError(
            f"column {name!r} has entries from {values.min()} to {values.max()}; expected {low} to "
            f"{high - 1}."
        )

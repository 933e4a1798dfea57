"""Peers: against whom a turn is compared. A part gives (S,) ids; equal ids are peers, `NO_KEY` has none."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from agentrl.errors import AlgorithmError
from agentrl.trajectory.batch import NO_KEY
from agentrl.trajectory.segments import narrow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

    Ids: TypeAlias = NDArray[np.int64]


class Peers(Protocol):
    """A peers slot: (S,) int64 ids, `NO_KEY` for a turn that is compared with nothing."""

    def __call__(self, batch: Batch, /) -> Ids:
        """Return (S,)."""
        ...


def everyone(batch: Batch, /) -> Ids:
    """All turns of the batch."""
    return np.zeros(batch.num_turns, np.int64)


def same_task(batch: Batch, /) -> Ids:
    """Turns of the same group: one task, one environment seed."""
    return batch.group_of_turn


def same_turn(batch: Batch, /) -> Ids:
    """Turns at the same position within the same group."""
    return _within_group(batch, batch.turn_index)


def same_state(batch: Batch, /) -> Ids:
    """Turns that start in the same true state within the same group (privileged: training only)."""
    return _within_group(batch, batch.state_key)


def same_observation(batch: Batch, /) -> Ids:
    """Turns that start from the same observation key within the same group: GiGPO's anchor states."""
    return _within_group(batch, batch.observation_key)


@dataclass(frozen=True)
class SimilarObservation:
    """Turns whose observation texts are alike within the same group: GiGPO's similarity mode.

    Turns are scanned in order; each joins the first cluster whose first text has
    `difflib` ratio >= `threshold`, else it opens a cluster. So the result depends on the order of
    trajectories. Source: verl-agent `core_gigpo.py`. Same result, fewer comparisons: equal texts are looked
    up, and difflib's upper bounds are tried first.
    """

    threshold: float

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise AlgorithmError(f"the threshold must lie between 0 and 1; got {self.threshold}.")

    def __call__(self, batch: Batch, /) -> Ids:
        """Return (S,) cluster ids. Raises `AlgorithmError` where the batch holds no texts."""
        if len(batch.turn_details) != batch.num_turns:
            raise AlgorithmError(
                "SimilarObservation reads texts, and this batch holds none; build it with pack."
            )
        places: dict[tuple[int, str], int] = {}
        clusters: dict[int, list[tuple[int, SequenceMatcher[str]]]] = {}
        for group, turn in zip(batch.group_of_turn.tolist(), batch.turn_details, strict=True):
            key = (group, turn.observation)
            if key not in places:
                places[key] = self._place(turn.observation, clusters.setdefault(group, []), len(places))
        return np.array(
            [
                places[g, t.observation]
                for g, t in zip(batch.group_of_turn.tolist(), batch.turn_details, strict=True)
            ],
            np.int64,
        )

    def _place(self, text: str, clusters: list[tuple[int, SequenceMatcher[str]]], new: int) -> int:
        for number, matcher in clusters:
            matcher.set_seq1(text)
            bounds = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)
            if all(bound() >= self.threshold for bound in bounds):
                return number
        clusters.append((new, SequenceMatcher(None, "", text)))
        return new


def _within_group(batch: Batch, key: Ids) -> Ids:
    """Number the pairs (group, key); a turn without a key gets none."""
    number, bound, lowest = narrow(key)
    pair = batch.group_of_turn * bound + number
    if lowest <= NO_KEY:
        np.copyto(pair, NO_KEY, where=key == NO_KEY)
    return pair

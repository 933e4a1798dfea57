"""How often agents of a group meet in the same place: whether step-level credit has anything to compare."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from agentrl.trajectory.batch import NO_KEY

if TYPE_CHECKING:
    from agentrl.credit.peers import Ids, Peers
    from agentrl.trajectory.batch import Batch


@dataclass(frozen=True)
class AnchorStatistics:
    """Figures of the anchor groups of one batch.

    Attributes:
        groups: number of anchor groups; `mean_size`: turns per group.
        shared: share of all turns that have at least one peer.
        largest: share of all turns in the largest group (near 1 means that keys collapse).
        keyless: share of all turns without a key.
    """

    groups: int
    mean_size: float
    shared: float
    largest: float
    keyless: float

    def figures(self) -> dict[str, float]:
        """Return the figures by name."""
        return {f"anchor_{name}": float(value) for name, value in asdict(self).items()}


def anchor_groups(batch: Batch, peers: Peers) -> Ids:
    """Number the anchor groups from 0 without gaps: (S,), `NO_KEY` for a turn without a key."""
    ids = peers(batch)
    groups = np.full(len(ids), NO_KEY, np.int64)
    keyed = ids != NO_KEY
    groups[keyed] = np.unique(ids[keyed], return_inverse=True)[1]
    return groups


def anchor_statistics(batch: Batch, peers: Peers) -> AnchorStatistics:
    """Measure the anchor groups of a batch; all zero for a batch without turns.

    >>> from agentrl.credit.peers import same_state
    >>> from agentrl.trajectory.batch import Batch
    >>> batch = Batch.from_arrays(
    ...     group=[0, 0], turns_per_trajectory=[2, 2], reward=[0, 1, 0, 0], state_key=["a", "b", "a", None]
    ... )
    >>> anchor_statistics(batch, same_state)
    AnchorStatistics(groups=2, mean_size=1.5, shared=0.5, largest=0.5, keyless=0.25)
    """
    ids = anchor_groups(batch, peers)
    turns = max(len(ids), 1)
    sizes = np.bincount(ids[ids != NO_KEY])
    return AnchorStatistics(
        groups=len(sizes),
        mean_size=float(sizes.mean()) if len(sizes) else 0.0,
        shared=float(sizes[sizes > 1].sum() / turns),
        largest=float(sizes.max(initial=0) / turns),
        keyless=float((ids == NO_KEY).sum() / turns),
    )

"""Padded rows, as other trainers hold them, to a batch and back. Numpy only.

A row is one trajectory's completion: the mask is 1 on tokens that the policy sampled and 0 on what the world
said and on padding. Every unbroken run of ones is a turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from agentrl.errors import BatchError
from agentrl.trajectory.arrays import labels_of
from agentrl.trajectory.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from agentrl.learn.algorithm import Credit

Real = TypeVar("Real", np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class PaddedRows:
    """A batch made of padded rows.

    Attributes:
        batch: one trajectory for each row; one without a sampled token has a single turn of no tokens, so
            that its reward counts in means, as it does in verl and TRL.
        mask: (B, L) what was sampled; the batch's (N,) tokens are its ones, row after row.
    """

    batch: Batch
    mask: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        group: ArrayLike | Sequence[object],
        mask: ArrayLike,
        reward: ArrayLike,
        *,
        logprob: ArrayLike | None = None,
        keys: Sequence[Sequence[Hashable]] | None = None,
        success: ArrayLike | None = None,
    ) -> PaddedRows:
        """Read rows of B trajectories, padded to L tokens.

        Args:
            group: (B,) labels; rows with one label are compared with each other.
            mask: (B, L) 1 on sampled tokens.
            reward: (B,), each at the row's last turn, or (B, L), each at the turn that it stands in or
                follows; what stands before the first turn counts at the first.
            logprob: (B, L) as drawn; zeros by default.
            keys: an anchor for each run of sampled tokens of each row, for credit among equal
                places; None for none.
            success: (B,) 1 or 0; -1 where it is not known.

        Raises:
            BatchError: a shape does not fit.

        >>> rows = PaddedRows.of(["a", "a"], [[1, 1, 0, 1], [1, 0, 0, 0]], [1.0, 0.0])
        >>> rows.batch.turns_per_trajectory.tolist(), rows.batch.reward.tolist()
        ([2, 1], [0.0, 1.0, 0.0])
        """
        sampled = np.asarray(mask).astype(np.bool_)
        labels = labels_of("group", group)
        if sampled.ndim != 2 or len(labels) != len(sampled):
            raise BatchError(
                f"the mask has shape {sampled.shape} for {len(labels)} groups; give (B, L) and (B,)."
            )
        begins = sampled & ~np.pad(sampled, ((0, 0), (1, 0)))[:, :-1]
        runs = begins.sum(1)
        turns = np.maximum(runs, 1)
        first = turns.cumsum() - turns
        row, column = np.nonzero(sampled)
        turn_of_sample = begins.cumsum(1)[row, column] - 1 + first[row]
        flat_keys = None if keys is None else _flat_keys(keys, runs)
        optional = {} if success is None else {"success": success}
        if logprob is not None:
            optional["logprob"] = _like("logprob", np.asarray(logprob, np.float32), sampled)[sampled]
        batch = Batch.from_arrays(
            group=labels,
            turns_per_trajectory=turns,
            reward=_by_turn(np.asarray(reward, np.float64), begins, turns),
            tokens_per_turn=np.bincount(turn_of_sample, minlength=int(turns.sum())),
            observation_key=flat_keys,
            state_key=flat_keys,
            **optional,
        )
        return cls(batch, sampled)

    def spread(self, credit: Credit) -> NDArray[np.float64]:
        """(B, L) the advantage at every sampled token, 0 elsewhere and where a token carries no loss."""
        result = np.zeros(self.mask.shape)
        result[self.mask] = np.where(credit.keep_of_sample, credit.advantage_of_sample, 0.0)
        return result


def _by_turn(
    reward: NDArray[np.float64], begins: NDArray[np.bool_], turns: NDArray[np.integer]
) -> NDArray[np.float64]:
    """(S,) the reward of each turn."""
    first, result = turns.cumsum() - turns, np.zeros(int(turns.sum()))
    if reward.shape == (len(turns),):
        result[first + turns - 1] = reward
        return result
    row, column = np.nonzero(_like("reward", reward, begins, f"({len(turns)},) or "))
    place = np.maximum(begins.cumsum(1)[row, column] - 1, 0) + first[row]
    np.add.at(result, place, reward[row, column])
    return result


def _like(name: str, values: NDArray[Real], mask: NDArray[np.bool_], instead: str = "") -> NDArray[Real]:
    """Return the values. Raises `BatchError` unless they have the shape of the mask."""
    if values.shape != mask.shape:
        raise BatchError(f"the {name} has shape {values.shape}; give {instead}{mask.shape}, like the mask.")
    return values


def _flat_keys(keys: Sequence[Sequence[Hashable]], runs: NDArray[np.integer]) -> list[Hashable]:
    """(S,) the keys of all turns; None for the turn of a row that sampled nothing."""
    if len(keys) != len(runs):
        raise BatchError(f"there are {len(runs)} rows and keys for {len(keys)}; give a list for each row.")
    for number, (given, wanted) in enumerate(zip(keys, runs.tolist(), strict=True)):
        if len(given) != wanted:
            raise BatchError(
                f"row {number} has {wanted} turns and {len(given)} keys; give one for each turn."
            )
    return [key for row in keys for key in row or [None]]

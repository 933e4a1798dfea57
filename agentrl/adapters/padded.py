"""Padded rows, as other trainers hold them, to a batch and back. Numpy only.

A row is one trajectory's completion: the mask is 1 on tokens that the policy sampled and 0 on what the world
said and on padding. Every unbroken run of ones is a turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agentrl.errors import BatchError
from agentrl.trajectory.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from agentrl.learn.algorithm import Credit


@dataclass(frozen=True, eq=False)
class PaddedRows:
    """A batch made of padded rows.

    Attributes:
        batch: one trajectory for each row; a row without a sampled token has no turn.
        mask: (B, L) what was sampled; the batch's (N,) tokens are its ones, row after row.
    """

    batch: Batch
    mask: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        group: ArrayLike,
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
            keys: an anchor for each turn of each row, for credit among equal places; None for none.
            success: (B,) 1 or 0; -1 where it is not known.

        Raises:
            BatchError: a shape does not fit.

        >>> rows = PaddedRows.of(["a", "a"], [[1, 1, 0, 1], [1, 0, 0, 0]], [1.0, 0.0])
        >>> rows.batch.turns_per_trajectory.tolist(), rows.batch.reward.tolist()
        ([2, 1], [0.0, 1.0, 0.0])
        """
        sampled = np.asarray(mask).astype(np.bool_)
        labels = len(np.asarray(group))
        if sampled.ndim != 2 or labels != len(sampled):
            raise BatchError(f"the mask has shape {sampled.shape} for {labels} groups; give (B, L) and (B,).")
        begins = sampled & ~np.pad(sampled, ((0, 0), (1, 0)))[:, :-1]
        turns = begins.sum(1)
        row, column = np.nonzero(sampled)
        turn_of_sample = begins.cumsum(1)[row, column] - 1 + (turns.cumsum() - turns)[row]
        optional = {} if success is None else {"success": success}
        if logprob is not None:
            optional["logprob"] = np.asarray(logprob, np.float32)[sampled]
        batch = Batch.from_arrays(
            group=group,
            turns_per_trajectory=turns,
            reward=_by_turn(np.asarray(reward, np.float64), begins, turns),
            tokens_per_turn=np.bincount(turn_of_sample, minlength=int(turns.sum())),
            observation_key=_flat_keys(keys, turns),
            state_key=_flat_keys(keys, turns),
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
        result[(first + turns - 1)[turns > 0]] = reward[turns > 0]
        return result
    if reward.shape != begins.shape:
        raise BatchError(
            f"the reward has shape {reward.shape}; give ({len(turns)},) or {begins.shape}, like the mask."
        )
    row, column = np.nonzero(reward)
    known = turns[row] > 0
    place = np.maximum(begins.cumsum(1)[row, column] - 1, 0) + first[row]
    np.add.at(result, place[known], reward[row, column][known])
    return result


def _flat_keys(
    keys: Sequence[Sequence[Hashable]] | None, turns: NDArray[np.integer]
) -> list[Hashable] | None:
    if keys is None:
        return None
    for number, (given, wanted) in enumerate(zip(keys, turns.tolist(), strict=True)):
        if len(given) != wanted:
            raise BatchError(
                f"row {number} has {wanted} turns and {len(given)} keys; give one for each turn."
            )
    return [key for row in keys for key in row]

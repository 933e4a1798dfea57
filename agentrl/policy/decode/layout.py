"""How ragged rows are laid out for one step of the fused loop: index arithmetic only, on numpy.

Rows are packed without padding, so the linear layers see exactly the new tokens. Only attention pads: rows
are cut into groups of like chunk length, and a group of single tokens reads the cache in place where it can.
Axes: R rows, T new tokens of all rows, Q queries of a row in a group, L keys, H query heads, K key heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.policy.decode.engine import Chunks

GATHER_COST = 1.25
"""Measured: attending over gathered rows costs this much of attending over the same rows in place."""
WIDEST = 2.0
"""A group's longest chunk is at most this many times its shortest."""


@dataclass(frozen=True)
class Sizes:
    """The shape of the cache: slots, query heads, key heads, context."""

    slots: int
    heads: int
    key_heads: int
    context: int


@dataclass(frozen=True)
class Group:
    """Rows that attend together.

    Args:
        shape: (rows, Q, L).
        slots: (rows,) slots to gather, or a slice of slots to read in place.
        query: flat indices into the (T * (H + 2K), head size) projections, laid out (rows, H, Q).
        select: indices into the (rows * Q) outputs, in packed order; None when they already are.
        mask: (rows, 1, Q, L), zero where a query may look and -inf elsewhere.
    """

    shape: tuple[int, int, int]
    slots: torch.Tensor | slice
    query: torch.Tensor
    select: torch.Tensor | None
    mask: torch.Tensor


@dataclass(frozen=True)
class Layout:
    """One step.

    Args:
        tokens, positions: (T,), packed by row, short chunks first.
        write: (T * 2K,) flat rows of the (2, S, K, context) cache that the new keys and values go to.
        groups: for every layer but the last; together they cover the T tokens in packed order.
        last: (R,) packed index of each row's last token, None when it is every token in order.
        final: for the last layer, where only the last token of each row looks around.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    write: torch.Tensor
    groups: tuple[Group, ...]
    last: torch.Tensor | None
    final: Group


class Planner:
    """Lays out steps for one cache."""

    def __init__(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> None:
        self.sizes = sizes
        self.device = device
        self.dtype = dtype
        self._head = np.arange(sizes.heads)
        key = np.arange(sizes.key_heads) * sizes.context
        self._write = np.concatenate([key, key + sizes.slots * sizes.key_heads * sizes.context])
        self._key_index = torch.arange(sizes.context, device=device)

    def __call__(self, chunks: Chunks) -> Layout:
        """The layout of one step."""
        sizes = self.sizes
        count = chunks.ends - chunks.starts
        order = np.argsort(count, kind="stable")
        slots, starts, lengths = chunks.slots[order], chunks.starts[order], count[order]
        begin = np.cumsum(lengths) - lengths
        row = np.repeat(np.arange(lengths.size), lengths)
        position = np.arange(row.size) - begin[row] + starts[row]
        slot = slots[row]
        write = (slot * (sizes.key_heads * sizes.context) + position)[:, None] + self._write
        last = np.empty_like(begin)
        last[order] = begin + lengths - 1
        final = self._single(chunks.slots, chunks.ends, last)
        plain = row.size == slots.size
        groups = (final,) if plain else self._groups(slots, starts, lengths, begin)
        return Layout(
            tokens=self._put(chunks.history[slot, position]),
            positions=self._put(position),
            write=self._put(write.reshape(-1)),
            groups=groups,
            last=None if plain else self._put(last),
            final=final,
        )

    def _put(self, values: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

    def _groups(
        self,
        slots: NDArray[np.int64],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        begin: NDArray[np.int64],
    ) -> tuple[Group, ...]:
        """Cut rows sorted by chunk length into groups of like length."""
        groups: list[Group] = []
        low = 0
        while low < lengths.size:
            widest = 1 if lengths[low] == 1 else int(lengths[low] * WIDEST)
            high = int(np.searchsorted(lengths, widest, side="right"))
            cut = slice(low, high)
            if widest == 1:
                groups.append(self._single(slots[cut], starts[cut] + 1, begin[cut]))
            else:
                groups.append(self._wide(slots[cut], starts[cut], lengths[cut], begin[cut]))
            low = high
        return tuple(groups)

    def _single(
        self, slots: NDArray[np.int64], visible: NDArray[np.int64], token: NDArray[np.int64]
    ) -> Group:
        """One query for each row, over its first `visible` keys; in place when the rows are dense."""
        low, high = int(slots.min()), int(slots.max()) + 1
        where: torch.Tensor | slice
        select: torch.Tensor | None = None
        if slots.size * GATHER_COST < high - low:
            where = self._put(slots)
        else:
            where = slice(low, high)
            if not np.array_equal(slots, np.arange(low, high)):
                select = self._put(slots - low)
                token = _spread(token, slots - low, high - low)
                visible = np.maximum(_spread(visible, slots - low, high - low), 1)
        keys = int(visible.max())
        blind = self._key_index[:keys] >= self._put(visible)[:, None]
        return Group(
            shape=(token.size, 1, keys),
            slots=where,
            query=self._query(token[:, None]),
            select=select,
            mask=self._mask(blind[:, None, None]),
        )

    def _wide(
        self,
        slots: NDArray[np.int64],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        begin: NDArray[np.int64],
    ) -> Group:
        """Chunks of several tokens, padded on the right by repeating the last."""
        width, keys = int(lengths.max()), int((starts + lengths).max())
        step = np.arange(width)
        inside = np.minimum(step, (lengths - 1)[:, None])
        padded = bool((lengths != width).any())
        blind = self._key_index[:keys] >= self._put(starts[:, None] + inside + 1)[:, :, None]
        return Group(
            shape=(slots.size, width, keys),
            slots=self._put(slots),
            query=self._query(begin[:, None] + inside),
            select=self._put(np.flatnonzero(step < lengths[:, None])) if padded else None,
            mask=self._mask(blind[:, None]),
        )

    def _query(self, token: NDArray[np.int64]) -> torch.Tensor:
        """(rows, Q) packed token indices -> flat projection rows, laid out (rows, H, Q)."""
        stride = self.sizes.heads + 2 * self.sizes.key_heads
        return self._put((token[:, None, :] * stride + self._head[:, None]).reshape(-1))

    def _mask(self, blind: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(blind.shape, dtype=self.dtype, device=self.device)
        return mask.masked_fill_(blind, float("-inf"))


def _spread(values: NDArray[np.int64], index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    spread = np.zeros(size, np.int64)
    spread[index] = values
    return spread

"""Attention over a tree of tokens: each node sees the nodes on its own path, and no others.

Two back ends stand behind one plan. On a CPU every chunk of the tree is attended to its path in small padded
batches, so nothing is spent between branches and no mask over all nodes is held. On a GPU one call of flex
attention does it, whose block mask skips what no node of a block may see.

Both are attention functions of transformers, and the plan travels as an argument of the forward pass.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name

from agentrl.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

    from agentrl.learn.tree import Tree

IN_CHUNKS = "agentrl_chunks"
FLEX = "agentrl_flex"

MOST_WASTE = 0.25
"""Share of a batch of chunks that may be padding."""
CHEAP_WASTE = 4096
"""Padded cells (query times key) that cost no more than another call."""


@dataclass(frozen=True, eq=False)
class ChunkBatch:
    """Some chunks side by side. Axes: B chunks, Q queries, K keys.

    Attributes:
        query: (B, Q) and `key`: (B, K) nodes, padded with node 0.
        seen: (B, 1, Q, K) which keys each query sees; None where chunks begin their sequence, so that plain
            causal attention is right.
    """

    query: torch.Tensor
    key: torch.Tensor
    seen: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Plan:
    """How the nodes of a tree attend.

    Attributes:
        batches: chunks side by side; `place`: (M,) where each node's output stands, theirs laid out flat.
        mask: the same as a block mask, for flex attention; only one of both is made.
    """

    batches: tuple[ChunkBatch, ...] = ()
    place: torch.Tensor | None = None
    mask: BlockMask | None = None


@dataclass(frozen=True, slots=True)
class _Chunk:
    row: int
    start: int
    queries: int
    keys: int

    @property
    def cells(self) -> int:
        return self.queries * self.keys


def chunk_plan(tree: Tree, device: torch.device) -> Plan:
    """Plan attention chunk by chunk."""
    batches: list[ChunkBatch] = []
    place = np.zeros(len(tree), np.int64)
    filled = 0
    for chunks in _batched(_chunks_of(tree)):
        query, key, depth, width = _indices(tree, chunks)
        for row, chunk in enumerate(chunks):
            first = filled + row * width
            place[chunk.start : chunk.start + chunk.queries] = np.arange(first, first + chunk.queries)
        filled += query.size
        begins = chunks[0].queries == chunks[0].keys
        seen = None if begins else np.arange(key.shape[1]) <= depth[:, None, :, None]
        batches.append(
            ChunkBatch(_to(query, device), _to(key, device), None if seen is None else _to(seen, device))
        )
    return Plan(tuple(batches), _to(place, device))


def _chunks_of(tree: Tree) -> list[_Chunk]:
    starts, sizes = tree.chunk_start[:-1].tolist(), np.diff(tree.chunk_start).tolist()
    rows = tree.owner.tolist()
    return [
        _Chunk(row, start, size, int(tree.depth[start]) + size)
        for row, start, size in zip(rows, starts, sizes, strict=True)
    ]


def _batched(chunks: Sequence[_Chunk]) -> list[list[_Chunk]]:
    """Group chunks of similar size; those that begin their sequence stand apart."""
    ordered = sorted(chunks, key=lambda c: (c.queries != c.keys, -c.keys, -c.queries, c.start))
    groups: list[list[_Chunk]] = []
    queries = keys = cells = 0
    for chunk in ordered:
        begins = chunk.queries == chunk.keys
        if groups and (groups[-1][0].queries == groups[-1][0].keys) == begins:
            wide, long = max(queries, chunk.queries), max(keys, chunk.keys)
            area = wide * long * (len(groups[-1]) + 1)
            if area - cells - chunk.cells <= max(CHEAP_WASTE, MOST_WASTE * area):
                groups[-1].append(chunk)
                queries, keys, cells = wide, long, cells + chunk.cells
                continue
        groups.append([chunk])
        queries, keys, cells = chunk.queries, chunk.keys, chunk.cells
    return groups


def _indices(tree: Tree, chunks: Sequence[_Chunk]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(B, Q) queries, (B, K) keys and (B, Q) depths of the queries, padded with node 0, and Q."""
    width, length = max(c.queries for c in chunks), max(c.keys for c in chunks)
    query, depth = np.zeros((len(chunks), width), np.int64), np.zeros((len(chunks), width), np.int64)
    key = np.zeros((len(chunks), length), np.int64)
    for row, chunk in enumerate(chunks):
        nodes = np.arange(chunk.start, chunk.start + chunk.queries)
        query[row, : chunk.queries], depth[row, : chunk.queries] = nodes, tree.depth[nodes]
        key[row, : chunk.keys] = tree.path[chunk.row][: chunk.keys]
    return query, key, depth, width


def flex_plan(tree: Tree, device: torch.device) -> Plan:
    """Plan attention as one block mask: a node sees those whose subtree it lies in."""
    from torch.nn.attention.flex_attention import create_block_mask

    entered, left = (_to(array, device) for array in (tree.entered, tree.left))

    def seen(
        _batch: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        return (entered[key] <= entered[query]) & (entered[query] < left[key])

    size = len(tree)
    return Plan(mask=create_block_mask(seen, None, None, size, size, device=device))


def _to(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


def attend_in_chunks(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    plan: Plan,
    scaling: float,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Attend (1, H, M, D) queries to (1, G, M, D) keys and values; return (1, M, H, D)."""
    _refuse(others)
    _, heads, nodes, size = query.shape
    groups = key.shape[1]
    q, k, v = (each[0].transpose(0, 1).reshape(nodes, -1) for each in (query, key, value))
    found = [_attend(batch, q, k, v, heads, groups, scaling) for batch in plan.batches]
    assert plan.place is not None  # noqa: S101  # the plan of this back end
    return F.embedding(plan.place, torch.cat(found)).view(1, nodes, heads, size), None


def _attend(
    batch: ChunkBatch,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    heads: int,
    groups: int,
    scaling: float,
) -> torch.Tensor:
    """(B * Q, H * D) of one batch of chunks. Query heads that share keys are laid into the query axis."""
    rows, width = batch.query.shape
    # An embedding's backward is the fast way to add up gradients of gathered rows on a CPU.
    q = F.embedding(batch.query, query).view(rows, width, groups, heads // groups, -1).permute(0, 2, 3, 1, 4)
    k, v = (
        F.embedding(batch.key, each).view(rows, -1, groups, q.shape[-1]).transpose(1, 2)
        for each in (key, value)
    )
    if batch.seen is None:
        wide = (rows, heads, width, q.shape[-1])
        k, v = (each[:, :, None].expand(-1, -1, heads // groups, -1, -1).reshape(wide) for each in (k, v))
        mixed = F.scaled_dot_product_attention(q.reshape(wide), k, v, is_causal=True, scale=scaling)
    else:
        seen = batch.seen.expand(-1, heads // groups, -1, -1).reshape(rows, 1, -1, batch.seen.shape[-1])
        mixed = F.scaled_dot_product_attention(
            q.reshape(rows, groups, -1, q.shape[-1]), k, v, seen, scale=scaling
        )
    return mixed.reshape(rows, heads, width, -1).transpose(1, 2).reshape(rows * width, -1)


def attend_flex(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    plan: Plan,
    scaling: float,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Attend as `attend_in_chunks` does, in one call of flex attention."""
    _refuse(others)
    attend = _flex(compiled=query.device.type == "cuda")
    mixed = attend(
        query, key, value, block_mask=plan.mask, scale=scaling, enable_gqa=key.shape[1] < query.shape[1]
    )
    return mixed.transpose(1, 2).contiguous(), None


@functools.cache
def _flex(*, compiled: bool):  # type: ignore[no-untyped-def]  # torch leaves its type open  # noqa: ANN202
    from torch.nn.attention.flex_attention import flex_attention

    # Unfused it is right everywhere, but holds every score at once.
    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention


_KNOWN = {"dropout", "sliding_window", "softcap"}


def _refuse(others: dict[str, object]) -> None:
    """Raise `PolicyError` where a model asks for more than plain causal attention."""
    asked = [name for name in _KNOWN if others.get(name)]
    if asked:
        raise PolicyError(
            f"the model's attention uses {', '.join(sorted(asked))}, which attention over a tree lacks."
        )


@contextmanager
def attending(model: PreTrainedModel, attention: str) -> Generator[None]:
    """Let the model attend by one of the functions above, then as before."""
    _register()
    before = model.config._attn_implementation  # noqa: SLF001  # transformers has no public way back
    model.config._attn_implementation = attention  # noqa: SLF001
    try:
        yield
    finally:
        model.config._attn_implementation = before  # noqa: SLF001


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(IN_CHUNKS, attend_in_chunks)
    AttentionInterface.register(FLEX, attend_flex)

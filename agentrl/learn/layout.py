"""How token sequences are laid out for a forward pass: padded rows, or a tree that shares what begins alike.

A tree computes every shared prefix once and needs no padding, so it is taken where it saves enough tokens and
the model's own forward agrees with it, which is tried once for each model.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch

from agentrl.errors import PolicyError
from agentrl.learn.attention import FLEX, IN_CHUNKS, Plan, attending, chunk_plan, flex_plan
from agentrl.learn.forward import rows_of
from agentrl.learn.tree import cut, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from agentrl.learn.forward import Index, Layout, Tokens
    from agentrl.learn.tree import Piece

LOGGER = logging.getLogger(__name__)

LEAST_SAVING = 1.1
"""A tree is taken where padded rows hold this many times its tokens: gathering keys costs a little."""

AGREEMENT = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Largest difference from the model's own last states, relative to the largest where that exceeds 1."""
COARSE_AGREEMENT = 0.05
"""The same for the 16-bit types, whose own rounding is near one percent."""


@dataclass(frozen=True, eq=False)
class Packed:
    """Sequences as one tree. Axes: M nodes, U nodes that predict, K targets.

    Attributes:
        ids, position: (M,) token and position of each node; `plan`: how they attend; `attention`: by which
            back end.
        place: (U,) nodes that predict; `source`: (K,) which of them predicts each target, `target`: its id.
    """

    ids: torch.Tensor
    position: torch.Tensor
    plan: Plan
    attention: str
    place: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor

    @property
    def tokens(self) -> int:
        """Nodes."""
        return len(self.ids)

    def states(self, trunk: PreTrainedModel) -> torch.Tensor:
        """(U, H) last hidden states."""
        with attending(trunk, self.attention):
            hidden: torch.Tensor = trunk(
                input_ids=self.ids[None], position_ids=self.position[None], use_cache=False, plan=self.plan
            ).last_hidden_state
        return hidden[0, self.place]

    def logits(self, model: PreTrainedModel) -> torch.Tensor:
        """(U, V) logits of the whole model."""
        with attending(model, self.attention):
            every: torch.Tensor = model(
                input_ids=self.ids[None], position_ids=self.position[None], use_cache=False, plan=self.plan
            ).logits
        return every[0, self.place]


def packed_of(
    sequences: Sequence[Tokens],
    targets: Sequence[Index],
    device: torch.device | str = "cpu",
    *,
    attention: str | None = None,
) -> Packed:
    """Merge token sequences into one tree.

    Args:
        sequences: token ids; `targets`: for each the positions (>= 1) that are predicted.
        attention: the back end, by default the one for the device.
    """
    where = torch.device(device)
    attention = attention or (FLEX if where.type == "cuda" else IN_CHUNKS)
    tree = tree_of(sequences)
    before = [path[positions - 1] for path, positions in zip(tree.path, targets, strict=True)]
    ids = [sequence[positions] for sequence, positions in zip(sequences, targets, strict=True)]
    place, source = np.unique(np.concatenate([*before, np.zeros(0, np.int64)]), return_inverse=True)
    target = np.concatenate([*ids, np.zeros(0, np.int64)]).astype(np.int64)
    node, depth, places, sources, wanted = (
        torch.from_numpy(array).to(where) for array in (tree.token, tree.depth, place, source, target)
    )
    plan = flex_plan(tree, where) if attention == FLEX else chunk_plan(tree, where)
    return Packed(node, depth, plan, attention, places, sources, wanted)


def lay_out(
    model: PreTrainedModel, sequences: Sequence[Tokens], targets: Sequence[Index], *, tokens: int
) -> Iterator[tuple[Index, Layout]]:
    """Give the micro-batches of a forward pass over all sequences, each with the rows it holds.

    Args:
        sequences: token ids of each row; `targets`: for each row the positions (>= 1) that are predicted.
        tokens: most token places of one micro-batch (one row at least).
    """
    device = model.device
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    padded = micro_batches(lengths, tokens=tokens)
    pieces = cut(sequences, tokens=tokens)
    if saves(lengths, padded, pieces) and reads_trees(model):
        for piece in pieces:
            rows = np.array(piece.rows, np.int64)
            yield rows, packed_of(*_of(rows, sequences, targets), device)
        return
    for rows in padded:
        yield rows, rows_of(*_of(rows, sequences, targets), device)


def saves(lengths: NDArray[np.integer], padded: Sequence[Index], pieces: Sequence[Piece]) -> bool:
    """Whether a tree has so many tokens less than padded rows that it is worth its own cost."""
    places = sum(len(rows) * int(lengths[rows].max(initial=0)) for rows in padded)
    return places > LEAST_SAVING * sum(piece.nodes for piece in pieces)


def _of(
    rows: Index, sequences: Sequence[Tokens], targets: Sequence[Index]
) -> tuple[list[Tokens], list[Index]]:
    chosen = rows.tolist()
    return [sequences[row] for row in chosen], [targets[row] for row in chosen]


def micro_batches(lengths: NDArray[np.integer], *, tokens: int) -> list[Index]:
    """Cut rows into micro-batches of similar length and at most `tokens` padded tokens (one row at least).

    >>> [piece.tolist() for piece in micro_batches(np.array([5, 9, 4, 5]), tokens=15)]
    [[2, 0, 3], [1]]
    """
    order = np.argsort(lengths, kind="stable")
    pieces: list[Index] = []
    begin = 0
    for end in range(1, len(order) + 1):
        full = end == len(order) or int(lengths[order[end]]) * (end + 1 - begin) > tokens
        if full:
            pieces.append(order[begin:end].astype(np.int64))
            begin = end
    return pieces


_READS: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


def reads_trees(model: PreTrainedModel) -> bool:
    """Whether the model reads a tree and says the same of it as of padded rows; tried once for each."""
    if model not in _READS:
        _READS[model] = _agrees(model)
    return _READS[model]


@torch.no_grad()
def _agrees(model: PreTrainedModel) -> bool:
    stem = np.arange(1, 8) % model.config.vocab_size
    sequences = [
        np.append(stem, [1, 2, 3]),
        np.append(stem, [1, 2, 0, 1]),
        np.append(stem[:3], [2]),
        stem[::-1],
    ]
    targets = [np.arange(1, len(sequence)) for sequence in sequences]
    try:
        trunk = cast("PreTrainedModel", model.base_model)
        packed = packed_of(sequences, targets, model.device)
        own = rows_of(sequences, targets, model.device).states(trunk)
        found = packed.states(trunk)[packed.source]
    except (PolicyError, ValueError, TypeError, RuntimeError, AttributeError, KeyError) as error:
        LOGGER.warning("Prefixes are not shared in the forward pass of %s: %s", type(model).__name__, error)
        return False
    worst = float((own - found).abs().max() / own.abs().max().clamp_min(1.0))
    agreed = worst <= AGREEMENT.get(model.dtype, COARSE_AGREEMENT)
    if not agreed:
        LOGGER.warning(
            "Prefixes are not shared in the forward pass of %s: its last states would differ by %.1e.",
            type(model).__name__,
            worst,
        )
    return agreed

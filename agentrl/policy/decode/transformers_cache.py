"""Decoding through the model's forward and a `DynamicCache`, for any model with plain attention.

Keys and values are kept for each slot without holes. For a step, the rows' pasts are gathered side by side
(shorter ones leave a hole, hidden by the attention mask; positions are given explicitly), and what the model
appends is written back. The gathering copies the rows' past once a step: the price of working for any
architecture.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from agentrl.errors import PolicyError
from agentrl.policy.decode.engine import Chunks
from agentrl.policy.decode.modeling import evaluating, padded, vocabulary_of
from agentrl.policy.decode.structure import windowed

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEEDED = ("input_ids", "attention_mask", "position_ids", "past_key_values")


class TransformersCacheBackend:
    """A `DynamicCache` made anew for each step from a store by slot.

    Args:
        model: a transformers causal model whose layers all attend over the whole past.
        slots, context: size of the store, allocated when the first keys are seen.

    Raises:
        PolicyError: the model's forward takes no cache or positions, or some layer attends over a window.
    """

    def __init__(self, model: nn.Module, *, slots: int, context: int) -> None:
        parameters = inspect.signature(model.forward).parameters
        missing = [name for name in NEEDED if name not in parameters]
        if missing:
            raise PolicyError(
                f"{type(model).__name__}.forward takes no {', '.join(missing)}, which a kept cache needs."
            )
        if windowed(model, context):
            raise PolicyError(
                f"{type(model).__name__} does not attend over all {context} tokens in every layer."
            )
        self._model = model
        self._slots = slots
        self._context = context
        self._keeps = "logits_to_keep" in parameters
        self.vocabulary = vocabulary_of(model)
        self._store: list[tuple[torch.Tensor, torch.Tensor]] = []

    @torch.inference_mode()
    def wipe(self, slot: int) -> None:
        """Zero a slot."""
        for key, value in self._store:
            key[slot] = 0
            value[slot] = 0

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first `length` positions to another."""
        for kept in self._store:
            for values in kept:
                values[target, :, :length] = values[source, :, :length]

    def refresh(self) -> None:
        """The model itself is called, so its new weights are used at once."""

    def read(self, chunks: Chunks) -> torch.Tensor:
        """Feed the chunks; (R, V) logits that follow each row's last token.

        Rows that feed one token and rows that feed a longer chunk go through the model apart, so that the
        former are not padded to the width of the latter.
        """
        single = chunks.ends - chunks.starts == 1
        if single.all() or not single.any():
            return self._read(chunks)
        parts = [np.flatnonzero(single), np.flatnonzero(~single)]
        read = torch.cat(
            [
                self._read(Chunks(chunks.slots[rows], chunks.starts[rows], chunks.ends[rows], chunks.history))
                for rows in parts
            ]
        )
        return read[torch.from_numpy(np.argsort(np.concatenate(parts))).to(read.device)]

    def _read(self, chunks: Chunks) -> torch.Tensor:
        device = next(self._model.parameters()).device
        tokens, inside = padded(chunks, chunks.starts)
        past = int(chunks.starts.max())
        count = inside.sum(axis=1)
        position = chunks.starts[:, None] + np.minimum(np.arange(inside.shape[1]), count[:, None] - 1)
        mask = np.concatenate([np.arange(past) < chunks.starts[:, None], inside], axis=1)
        keep = {"logits_to_keep": 1} if self._keeps and inside.all() else {}
        with evaluating(self._model):
            cache = self._gather(chunks, past, device)
            output = self._model(
                input_ids=torch.from_numpy(tokens).to(device),
                attention_mask=torch.from_numpy(mask.astype(np.int64)).to(device),
                position_ids=torch.from_numpy(position).to(device),
                past_key_values=cache,
                use_cache=True,
                **keep,
            )
            self._scatter(chunks, cache, past, inside)
        logits: torch.Tensor = output.logits
        last = np.zeros_like(count) if keep else count - 1
        return logits[torch.arange(len(tokens), device=device), torch.from_numpy(last).to(device)]

    def _gather(self, chunks: Chunks, past: int, device: torch.device) -> DynamicCache:
        """The rows' first `past` keys and values, side by side."""
        cache = DynamicCache()
        if past:
            rows = torch.from_numpy(chunks.slots).to(device)
            for index, (key, value) in enumerate(self._store):
                cache.update(
                    key[:, :, :past].index_select(0, rows), value[:, :, :past].index_select(0, rows), index
                )
        return cache

    def _scatter(self, chunks: Chunks, cache: DynamicCache, past: int, inside: NDArray[np.bool_]) -> None:
        """Write the new columns to their slots, at their positions."""
        row, step = np.nonzero(inside)
        slot, position = chunks.slots[row], chunks.starts[row] + step
        for index, layer in enumerate(cache.layers):
            key: object = getattr(layer, "keys", None)
            value: object = getattr(layer, "values", None)
            if not isinstance(key, torch.Tensor) or not isinstance(value, torch.Tensor):
                raise PolicyError(
                    f"Layer {index} of the cache holds no keys and values to keep between turns."
                )
            if index == len(self._store):
                self._store.append((self._empty(key), self._empty(value)))
            for kept, new in zip(self._store[index], (key, value), strict=True):
                kept[slot, :, position] = new[row, :, past + step]

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_zeros((self._slots, like.shape[1], self._context, like.shape[3]))

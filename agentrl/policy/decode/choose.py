"""Which engine a model gets: the fastest that agrees with the model's own forward, tried on the spot."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from agentrl.errors import PolicyError
from agentrl.policy.decode.engine import Backend, Chunks, DecodeEngine
from agentrl.policy.decode.fused import FusedBackend
from agentrl.policy.decode.reread import RereadBackend
from agentrl.policy.decode.transformers_cache import TransformersCacheBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOGGER = logging.getLogger("agentrl.policy.decode")

PROBE_ENDS = ((5, 2), (6, 6), (7, 7))
"""Token counts of two probe streams after each step: a ragged start, a ragged turn, one token each."""

AGREEMENT = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Largest difference from the model's own logits, relative to the largest logit where that exceeds 1."""
COARSE_AGREEMENT = 0.05
"""The same for the 16-bit types, whose own rounding is near one percent."""


def make_engine(
    model: nn.Module,
    *,
    slots: int,
    context: int,
    decode: Callable[[Sequence[int]], str],
    stop_tokens: Sequence[int] = (),
    dtype: torch.dtype | None = None,
) -> DecodeEngine:
    """The fastest engine that agrees with the model: the fused loop, the transformers cache, or re-reading.

    Args:
        model: a transformers causal model; it stays the owner of the weights (call `refresh` after changing
            them).
        slots: streams held at once.
        context: most tokens of one stream.
        decode: token ids to text, asked only for stop strings.
        stop_tokens: tokens that end any turn (they are kept in it); requests may add their own.
        dtype: for the fused loop only; the model's own by default.

    Raises:
        PolicyError: the model cannot read `context` tokens.
    """
    config = getattr(model, "config", None)
    longest = getattr(config, "max_position_embeddings", None)
    if isinstance(longest, int) and context > longest:
        raise PolicyError(
            f"context is {context} tokens and the model reads at most {longest}; give a smaller context."
        )
    tries: tuple[Callable[[], Backend], ...] = (
        partial(FusedBackend, model, slots=slots, context=context, dtype=dtype),
        partial(TransformersCacheBackend, model, slots=slots, context=context),
    )
    for make in tries:
        backend = _attempt(make, model, slots, context)
        if backend is not None:
            break
    else:
        backend = RereadBackend(model)
    return DecodeEngine(backend, slots=slots, context=context, decode=decode, stop_tokens=stop_tokens)


def _attempt(make: Callable[[], Backend], model: nn.Module, slots: int, context: int) -> Backend | None:
    """The backend if it can be built and agrees with re-reading; a logged sentence otherwise."""
    name = type(model).__name__
    try:
        backend = make()
        worst = probe(backend, model, slots, context)
    except (PolicyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
        LOGGER.warning("A slower decode engine is used for %s: %s", name, error)
        return None
    dtype = backend.dtype if isinstance(backend, FusedBackend) else next(model.parameters()).dtype
    if not worst <= AGREEMENT.get(dtype, COARSE_AGREEMENT):
        what = type(backend).__name__
        LOGGER.warning(
            "A slower decode engine is used for %s: the logits of %s differ by %.1e.", name, what, worst
        )
        return None
    return backend


def probe(backend: Backend, model: nn.Module, slots: int, context: int) -> float:
    """Read two short ragged streams in turns; the largest difference from the model's own forward."""
    rows = min(2, slots)
    history = np.zeros((slots, context), np.int64)
    history[:rows, : PROBE_ENDS[-1][0]] = (
        np.arange(rows)[:, None] * 7 + np.arange(7)[:context] * 3
    ) % backend.vocabulary
    own = RereadBackend(model)
    starts, worst = np.zeros(rows, np.int64), 0.0
    for targets in PROBE_ENDS:
        ends = np.minimum(np.array(targets[:rows]), context)
        fed = ends > starts
        if not fed.any():
            break
        chunks = Chunks(np.flatnonzero(fed), starts[fed], ends[fed], history)
        expected, found = own.read(chunks).float(), backend.read(chunks).float()
        worst = max(worst, difference(found, expected))
        starts = ends
    for slot in range(rows):
        backend.wipe(slot)
    return worst


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest expected number where that exceeds 1.

    Where NaN is expected anything will do; where it is found and not expected the difference is infinite.

    >>> difference(torch.tensor([2.0, 8.0]), torch.tensor([4.0, 8.0]))
    0.25
    >>> difference(torch.tensor([torch.nan]), torch.tensor([1.0]))
    inf
    """
    agreed = expected.isnan() | (found == expected)
    gap = torch.where(agreed, 0.0, found - expected).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    bound = torch.where(expected.isfinite(), expected, 0.0).abs().max().clamp_min(1.0)
    return float(gap.max() / bound)

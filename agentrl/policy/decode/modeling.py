"""What the backends that call the model itself share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from agentrl.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from agentrl.policy.decode.engine import Chunks


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Run in evaluation mode without gradients, then restore the mode."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def vocabulary_of(model: nn.Module) -> int:
    """The number of token ids the model can read.

    Raises:
        PolicyError: the model has no input embedding.
    """
    find: object = getattr(model, "get_input_embeddings", None)
    embed: object = find() if callable(find) else None
    if not isinstance(embed, nn.Embedding):
        raise PolicyError(f"{type(model).__name__} has no input embedding; give a transformers causal model.")
    return embed.num_embeddings


def padded(chunks: Chunks, starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Tokens from `starts` to the chunks' ends, padded on the right with id 0; both (R, widest)."""
    step = np.arange(int((chunks.ends - starts).max()))
    inside = step < (chunks.ends - starts)[:, None]
    position = np.where(inside, starts[:, None] + step, 0)
    return np.where(inside, chunks.history[chunks.slots[:, None], position], 0), inside

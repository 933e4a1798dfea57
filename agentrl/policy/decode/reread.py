"""The last resort: read each stream's whole history again for every token; right for any causal model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from agentrl.policy.decode.modeling import evaluating, padded, vocabulary_of

if TYPE_CHECKING:
    from agentrl.policy.decode.engine import Chunks


class RereadBackend:
    """No memory at all: a forward over the right-padded histories of the rows.

    Args:
        model: `model(input_ids, attention_mask=...)` answers with `.logits` (rows, tokens, V), and no logit
            depends on a later token.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.vocabulary = vocabulary_of(model)

    def wipe(self, slot: int) -> None:
        """Nothing is kept."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Nothing is kept."""

    def refresh(self) -> None:
        """Nothing is kept."""

    def read(self, chunks: Chunks) -> torch.Tensor:
        """Read the rows from their beginning; (R, V) logits that follow each row's last token."""
        device = next(self._model.parameters()).device
        tokens, inside = padded(chunks, np.zeros_like(chunks.starts))
        with evaluating(self._model):
            output = self._model(
                input_ids=torch.from_numpy(tokens).to(device),
                attention_mask=torch.from_numpy(inside.astype(np.int64)).to(device),
                use_cache=False,
            )
        rows = torch.arange(len(tokens), device=device)
        logits: torch.Tensor = output.logits
        return logits[rows, torch.from_numpy(chunks.ends - 1).to(device)]

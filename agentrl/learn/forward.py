"""The forward pass of the learner: from packed streams to log-probabilities of sampled tokens.

Padding exists here only, immediately before the model. The head is applied to the rows that predict a sampled
token and to no other, so prompt and tool tokens cost no vocabulary product and can receive no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from agentrl.trajectory.batch import Batch

Index: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Token rows of a micro-batch, padded on the right, and where their targets stand.

    Attributes:
        ids: (R, L) token ids; padding is id 0, which no causal row before it can see.
        row, column: (K,) position whose hidden state predicts each target; `target`: (K,) the id it predicts.
    """

    ids: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    target: torch.Tensor


@dataclass(frozen=True, eq=False)
class Predicted:
    """(K,) log-probability of each target in nats, and (K,) entropy of each distribution if asked for."""

    logprob: torch.Tensor
    entropy: torch.Tensor | None


def rows_of(sequences: Sequence[NDArray[np.integer]], targets: Sequence[Index], device: str = "cpu") -> Rows:
    """Pad token sequences into rows.

    Args:
        sequences: token ids of each row; `targets`: for each row the positions (>= 1) that are predicted.
    """
    width = max((len(sequence) for sequence in sequences), default=1)
    ids = np.zeros((len(sequences), width), np.int64)
    for place, sequence in enumerate(sequences):
        ids[place, : len(sequence)] = sequence
    row = np.repeat(np.arange(len(sequences)), [len(positions) for positions in targets])
    column = np.concatenate([*targets, np.zeros(0, np.int64)]).astype(np.int64)
    tensors = (torch.from_numpy(array).to(device) for array in (ids, row, column - 1, ids[row, column]))
    return Rows(*tensors)


def predict(
    model: PreTrainedModel,
    rows: Rows,
    *,
    temperature: float = 1.0,
    entropy: Literal["none", "measured", "differentiable"] = "none",
) -> Predicted:
    """Return the log-probability of every target under `model` at `temperature`.

    Args:
        entropy: whether entropies are returned, and whether gradient flows through them.
    """
    logits = _logits(model, rows).float()
    if temperature != 1.0:
        logits = logits / temperature
    every = torch.log_softmax(logits, dim=-1)
    chosen = every.gather(1, rows.target[:, None]).squeeze(1)
    if entropy == "none":
        return Predicted(chosen, None)
    spread = every if entropy == "differentiable" else every.detach()
    return Predicted(chosen, -(spread.exp() * spread).sum(1))


def _logits(model: PreTrainedModel, rows: Rows) -> torch.Tensor:
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    if head is None or getattr(model.config, "final_logit_softcapping", None):
        every: torch.Tensor = model(input_ids=rows.ids, use_cache=False).logits
        return every[rows.row, rows.column]
    hidden = model.base_model(input_ids=rows.ids, use_cache=False).last_hidden_state
    logits: torch.Tensor = head(hidden[rows.row, rows.column])
    return logits


@dataclass(frozen=True, eq=False)
class Streams:
    """The token streams of a batch: each is one row of a forward pass.

    Attributes:
        token_start: (R+1,) offsets of each stream's tokens; `sample_start`: (R+1,) of its sampled tokens.
        position: (N,) position of each sampled token within its stream.
    """

    batch: Batch
    token_start: Index
    sample_start: Index
    position: Index

    @classmethod
    def of(cls, batch: Batch) -> Streams:
        """Find the streams of a batch."""
        turns = batch.stream_turn_start
        token_start = batch.token_start[turns].astype(np.int64)
        sample_start = batch.sample_start[turns].astype(np.int64)
        place = np.flatnonzero(batch.sampled)
        position = place - np.repeat(token_start[:-1], np.diff(sample_start))
        return cls(batch, token_start, sample_start, position)

    def __len__(self) -> int:
        return len(self.token_start) - 1

    def samples(self, streams: Index) -> Index:
        """(n,) indices into the sampled tokens of the given streams, in row order."""
        start = self.sample_start.tolist()
        return np.concatenate(
            [np.arange(start[s], start[s + 1]) for s in streams.tolist()] or [np.zeros(0, np.int64)]
        )

    def rows(self, streams: Index, device: str = "cpu") -> Rows:
        """Return the padded rows of the given streams."""
        sequences = [self.batch.token[self.token_start[s] : self.token_start[s + 1]] for s in streams]
        targets = [self.position[self.sample_start[s] : self.sample_start[s + 1]] for s in streams]
        return rows_of(sequences, targets, device)


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

"""The forward pass of the learner: from token streams to log-probabilities of sampled tokens.

How streams are laid out for the model, padded or as a tree, is the choice of `agentrl.learn.layout`. The head
is applied to the places that predict a sampled token and to no other, so prompt and tool tokens cost no
vocabulary product and can receive no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from agentrl.trajectory.batch import Batch

Index: TypeAlias = NDArray[np.int64]
Tokens: TypeAlias = NDArray[np.integer]
Entropy: TypeAlias = Literal["none", "measured", "differentiable"]


class Layout(Protocol):
    """Token sequences as a model reads them. Axes: K targets, U places of the model that predict some target.

    Attributes:
        source: (K,) which of the U places predicts each target; `target`: (K,) the id it predicts.
        tokens: how many token places the model computes, padding included.
    """

    @property
    def source(self) -> torch.Tensor:
        """(K,)."""
        ...

    @property
    def target(self) -> torch.Tensor:
        """(K,)."""
        ...

    @property
    def tokens(self) -> int:
        """How many."""
        ...

    def states(self, trunk: PreTrainedModel) -> torch.Tensor:
        """(U, H) last hidden states of the places that predict."""
        ...

    def logits(self, model: PreTrainedModel) -> torch.Tensor:
        """(U, V) what the whole model says there: for heads that are more than a product."""
        ...


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

    @property
    def source(self) -> torch.Tensor:
        """(K,) every target has its own place."""
        return torch.arange(len(self.target), device=self.target.device)

    @property
    def tokens(self) -> int:
        """Places of the rectangle."""
        return self.ids.numel()

    def states(self, trunk: PreTrainedModel) -> torch.Tensor:
        """(K, H) last hidden states."""
        hidden: torch.Tensor = trunk(input_ids=self.ids, use_cache=False).last_hidden_state
        return hidden[self.row, self.column]

    def logits(self, model: PreTrainedModel) -> torch.Tensor:
        """(K, V) logits of the whole model."""
        every: torch.Tensor = model(input_ids=self.ids, use_cache=False).logits
        return every[self.row, self.column]


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a model says of (K,) targets, in nats.

    Attributes:
        logprob: log-probability of each; `entropy`: of each distribution, if asked for.
        vocabulary: mean log-probability over the whole vocabulary, if asked for; no gradient.
    """

    logprob: torch.Tensor
    entropy: torch.Tensor | None
    vocabulary: torch.Tensor | None = None


def rows_of(
    sequences: Sequence[NDArray[np.integer]], targets: Sequence[Index], device: torch.device | str = "cpu"
) -> Rows:
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
    layout: Layout,
    *,
    temperature: float = 1.0,
    entropy: Entropy = "none",
    vocabulary: bool = False,
) -> Predicted:
    """Return the log-probability of every target under `model` at `temperature`.

    Args:
        entropy: whether entropies are returned, and whether gradient flows through them.
        vocabulary: whether means over the vocabulary are returned.
    """
    said = logits_of(model, layout)
    return predicted(said, layout, temperature=temperature, entropy=entropy, vocabulary=vocabulary)


def predicted(
    said: torch.Tensor,
    layout: Layout,
    *,
    temperature: float = 1.0,
    entropy: Entropy = "none",
    vocabulary: bool = False,
) -> Predicted:
    """Return what (U, V) logits say of the targets of a layout; see `predict`."""
    logits = said.float()
    if temperature != 1.0:
        logits = logits / temperature
    every = torch.log_softmax(logits, dim=-1)
    source = layout.source
    chosen = every[source, layout.target]
    average = every.detach().mean(1)[source] if vocabulary else None
    if entropy == "none":
        return Predicted(chosen, None, average)
    spread = every if entropy == "differentiable" else every.detach()
    return Predicted(chosen, -(spread.exp() * spread).sum(1)[source], average)


def logits_of(model: PreTrainedModel, layout: Layout) -> torch.Tensor:
    """(U, V) what a model says at the places of a layout that predict."""
    head = plain_head(model)
    if head is None:
        return layout.logits(model)
    logits: torch.Tensor = head(layout.states(cast("PreTrainedModel", model.base_model)))
    return logits


def plain_head(model: PreTrainedModel) -> torch.nn.Module | None:
    """The output head, where logits are nothing but its product with the last hidden states."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    capped = getattr(model.config, "final_logit_softcapping", None)
    return None if capped or not isinstance(head, torch.nn.Module) else head


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

    def sequences(self, streams: Index) -> tuple[list[Tokens], list[Index]]:
        """The tokens of the given streams, and the positions of their sampled tokens."""
        token, place = self.token_start.tolist(), self.sample_start.tolist()
        rows = streams.tolist()
        tokens: list[Tokens] = [self.batch.token[token[s] : token[s + 1]] for s in rows]
        return tokens, [self.position[place[s] : place[s + 1]] for s in rows]

    def rows(self, streams: Index, device: torch.device | str = "cpu") -> Rows:
        """Return the padded rows of the given streams."""
        return rows_of(*self.sequences(streams), device)

"""Gradients of one share of a batch: the reinforcement loss and the supervised loss.

Denominators are global (`prepare` weighs every token over the whole batch), so that gradients of shares
add up: over micro-batches, over processes, in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from agentrl.learn.forward import Streams, predict
from agentrl.learn.layout import lay_out
from agentrl.learn.loss import Health, policy_loss

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transformers import PreTrainedModel

    from agentrl.learn.algorithm import Algorithm
    from agentrl.learn.forward import Entropy, Index, Layout, Predicted, Tokens
    from agentrl.learn.loss import LossInputs
    from agentrl.learn.supervised import Example
    from agentrl.trajectory.batch import Batch


@dataclass(frozen=True, eq=False)
class PolicyGradient:
    """The gradient of some streams.

    Attributes:
        gradient: (P,) flat, in the order of the model's parameters, or (0,); see `Reader.gradient`.
        parts: terms of the loss by name; `health`: sums for the figures, None where nothing carried loss.
    """

    gradient: torch.Tensor
    parts: dict[str, float]
    health: Health | None
    tokens: int


def streams_with_loss(algorithm: Algorithm, batch: Batch, inputs: LossInputs) -> Index:
    """(R',) streams that can contribute: a zero advantage does not, unless a penalty reads the token."""
    counts = inputs.keep.clone()
    if not algorithm.penalties:
        counts &= inputs.advantage != 0
    streams = torch.zeros(len(batch.stream_turn_start) - 1, dtype=torch.bool)
    streams[inputs.spans.stream[counts]] = True
    return streams.nonzero().squeeze(1).numpy().astype(np.int64)


class Reader(Protocol):
    """Who reads the micro-batches of a gradient: a model, or one whose parameters lie on many processes."""

    def begin(self) -> None:
        """Get ready for the micro-batches of one share."""
        ...

    def lay_out(
        self, sequences: Sequence[Tokens], targets: Sequence[Index], *, tokens: int
    ) -> Iterable[tuple[Index, Layout]]:
        """Give the micro-batches, each with the rows it holds; see `agentrl.learn.layout.lay_out`."""
        ...

    def predict(self, layout: Layout, *, temperature: float = 1.0, entropy: Entropy = "none") -> Predicted:
        """See `agentrl.learn.forward.predict`."""
        ...

    def gradient(self) -> torch.Tensor:
        """(P,) what was accumulated since `begin`; (0,) where it stays with the parameters."""
        ...


@dataclass(frozen=True, eq=False)
class Whole:
    """A model in one piece as a `Reader`."""

    model: PreTrainedModel

    def begin(self) -> None:
        """Forget earlier gradients."""
        self.model.zero_grad(set_to_none=True)

    def lay_out(
        self, sequences: Sequence[Tokens], targets: Sequence[Index], *, tokens: int
    ) -> Iterable[tuple[Index, Layout]]:
        """Give the micro-batches, each with the rows it holds."""
        return lay_out(self.model, sequences, targets, tokens=tokens)

    def predict(self, layout: Layout, *, temperature: float = 1.0, entropy: Entropy = "none") -> Predicted:
        """Return what the model says of a layout's targets."""
        return predict(self.model, layout, temperature=temperature, entropy=entropy)

    def gradient(self) -> torch.Tensor:
        """(P,) what was accumulated."""
        return flat_gradient(self.model)


def policy_gradient(
    model: PreTrainedModel | Reader,
    algorithm: Algorithm,
    batch: Batch,
    inputs: LossInputs,
    streams: Index,
    *,
    micro_tokens: int = 8192,
    temperature: float = 1.0,
) -> PolicyGradient:
    """Return the gradient of the loss of the given streams.

    Args:
        algorithm: with schedules resolved (`algorithm.at`); `inputs`: from `prepare`, of the whole batch.
        micro_tokens: most padded tokens of one forward pass.
        temperature: the one the tokens were drawn at.
    """
    every, reader = Streams.of(batch), _reader(model)
    reader.begin()
    entropy: Entropy = "differentiable" if "entropy" in algorithm.needs else "measured"
    parts: dict[str, float] = {}
    health: Health | None = None
    tokens = 0
    for rows, layout in reader.lay_out(*every.sequences(streams), tokens=micro_tokens):
        said = reader.predict(layout, temperature=temperature, entropy=entropy)
        own = inputs.take(torch.from_numpy(every.samples(streams[rows])))
        loss = policy_loss(algorithm, own, *_beside(inputs, said))
        loss.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for name, value in loss.parts.items():
            parts[name] = parts.get(name, 0.0) + float(value)
        health = loss.health if health is None else health + loss.health
        tokens += layout.tokens
    return PolicyGradient(reader.gradient(), parts, health, tokens)


def _reader(model: PreTrainedModel | Reader) -> Reader:
    return Whole(model) if isinstance(model, torch.nn.Module) else model


def _beside(inputs: LossInputs, said: Predicted) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What a model says, on the device of the loss."""
    where = inputs.old_logprob.device
    return said.logprob.to(where), None if said.entropy is None else said.entropy.to(where)


@dataclass(frozen=True, eq=False)
class SupervisedGradient:
    """The gradient of some examples; `loss`: weighted sum of nats; `action_loss`: of imitated tokens."""

    gradient: torch.Tensor
    loss: float
    action_loss: float
    action_tokens: int


def supervised_gradient(
    model: PreTrainedModel | Reader,
    examples: Sequence[Example],
    *,
    total_weight: float,
    micro_tokens: int = 8192,
) -> SupervisedGradient:
    """Return the gradient of the weighted cross-entropy of `examples` over `total_weight` (of all shares).

    Axes: each example is one row of L tokens with a weight for each.
    """
    reader = _reader(model)
    reader.begin()
    sequences = [example.tokens for example in examples]
    targets = [np.flatnonzero(example.weight[1:]) + 1 for example in examples]
    total, action, count = 0.0, 0.0, 0
    for rows, layout in reader.lay_out(sequences, targets, tokens=micro_tokens):
        weights = [examples[row].weight[targets[row]] for row in rows.tolist()]
        weight = torch.from_numpy(np.concatenate([*weights, np.zeros(0, np.float32)]))
        logprob = reader.predict(layout).logprob.to(weight.device)
        loss = -(weight * logprob).sum() / total_weight
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        imitated = weight == 1.0
        total += float(loss.detach())
        action -= float(logprob.detach()[imitated].sum())
        count += int(imitated.sum())
    return SupervisedGradient(reader.gradient(), total, action, count)


def flat_gradient(model: torch.nn.Module) -> torch.Tensor:
    """(P,) the gradients of all parameters in order; zero where a parameter received none."""
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float() for p in model.parameters()]
    )


def flat_weights(model: torch.nn.Module) -> torch.Tensor:
    """(P,) a copy of all parameters in order."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@torch.no_grad()
def load_flat(model: torch.nn.Module, weights: torch.Tensor) -> None:
    """Put (P,) flat weights into the model's parameters."""
    start = 0
    for parameter in model.parameters():
        parameter.copy_(weights[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()


def put_gradient(model: torch.nn.Module, gradient: torch.Tensor) -> None:
    """Put a (P,) flat gradient into the model's parameters."""
    start = 0
    for parameter in model.parameters():
        parameter.grad = gradient[start : start + parameter.numel()].view_as(parameter).clone()
        start += parameter.numel()

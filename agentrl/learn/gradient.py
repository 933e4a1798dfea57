"""Gradients of one share of a batch: the reinforcement loss and the supervised loss.

Denominators are global (`prepare` weighs every token over the whole batch), so that gradients of shares
add up: over micro-batches, over processes, in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from agentrl.learn.forward import Streams, predict
from agentrl.learn.layout import lay_out
from agentrl.learn.loss import Health, policy_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from agentrl.learn.algorithm import Algorithm
    from agentrl.learn.forward import Index, Predicted
    from agentrl.learn.loss import LossInputs
    from agentrl.learn.supervised import Example
    from agentrl.trajectory.batch import Batch


@dataclass(frozen=True, eq=False)
class PolicyGradient:
    """The gradient of some streams.

    Attributes:
        gradient: (P,) flat, in the order of the model's parameters.
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


def policy_gradient(
    model: PreTrainedModel,
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
    every = Streams.of(batch)
    model.zero_grad(set_to_none=True)
    entropy: Literal["measured", "differentiable"] = (
        "differentiable" if "entropy" in algorithm.needs else "measured"
    )
    parts: dict[str, float] = {}
    health: Health | None = None
    tokens = 0
    for rows, layout in lay_out(model, *every.sequences(streams), tokens=micro_tokens):
        predicted = predict(model, layout, temperature=temperature, entropy=entropy)
        own = inputs.take(torch.from_numpy(every.samples(streams[rows])))
        loss = policy_loss(algorithm, own, *_beside(inputs, predicted))
        loss.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for name, value in loss.parts.items():
            parts[name] = parts.get(name, 0.0) + float(value)
        health = loss.health if health is None else health + loss.health
        tokens += layout.tokens
    return PolicyGradient(flat_gradient(model), parts, health, tokens)


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
    model: PreTrainedModel, examples: Sequence[Example], *, total_weight: float, micro_tokens: int = 8192
) -> SupervisedGradient:
    """Return the gradient of the weighted cross-entropy of `examples` over `total_weight` (of all shares).

    Axes: each example is one row of L tokens with a weight for each.
    """
    model.zero_grad(set_to_none=True)
    sequences = [example.tokens for example in examples]
    targets = [np.flatnonzero(example.weight[1:]) + 1 for example in examples]
    total, action, count = 0.0, 0.0, 0
    for rows, layout in lay_out(model, sequences, targets, tokens=micro_tokens):
        weight = torch.from_numpy(
            np.concatenate([examples[row].weight[targets[row]] for row in rows.tolist()])
        )
        logprob = predict(model, layout).logprob.to(weight.device)
        loss = -(weight * logprob).sum() / total_weight
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        imitated = weight == 1.0
        total += float(loss.detach())
        action -= float(logprob.detach()[imitated].sum())
        count += int(imitated.sum())
    return SupervisedGradient(flat_gradient(model), total, action, count)


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

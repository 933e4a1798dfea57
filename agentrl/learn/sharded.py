"""A learner on the processes of torchrun: FSDP2 keeps parameters, gradients and optimizer state in parts.

Each process also holds the whole model, which plays and is measured; after every step it gets the new weights
from the parts. A gradient is the sum over processes, since denominators are global (`agentrl.learn.loss`), so
it equals that of one process up to the order of additions.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from agentrl.learn.forward import logits_of, predicted, rows_of
from agentrl.learn.layout import lay_out
from agentrl.learn.learner import Learner
from agentrl.learn.spread import local, part_for, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

    from agentrl.learn.forward import Entropy, Index, Layout, Predicted, Tokens
    from agentrl.learn.optimizer import Optimizer


class Predictor(torch.nn.Module):
    """The learner's forward pass as a module, so that its parameters are gathered around the whole of it."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, layout: Layout) -> torch.Tensor:
        """(U, V) what the model says at the places of a layout that predict."""
        return logits_of(self.model, layout)


def sharded_copy(model: PreTrainedModel, mesh: DeviceMesh) -> Predictor:
    """Return a copy of a model whose parameters lie in equal parts on the processes of a mesh.

    Each layer (of `model._no_split_modules`) is gathered where it is computed and let go again.
    """
    copy = Predictor(deepcopy(model))
    layers = set(model._no_split_modules or ())  # noqa: SLF001  # what accelerate reads, too
    for module in [each for each in copy.modules() if type(each).__name__ in layers]:
        fully_shard(module, mesh=mesh)
    fully_shard(copy, mesh=mesh)
    for module in copy.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    return copy


@dataclass(frozen=True, eq=False)
class Parted:
    """A model in parts as a `Reader`: every process reads equally many micro-batches, some of them empty."""

    replica: PreTrainedModel
    parts: Predictor

    def begin(self) -> None:
        """Nothing: the gradients of a process's shards add up until the step forgets them."""

    def lay_out(
        self, sequences: Sequence[Tokens], targets: Sequence[Index], *, tokens: int
    ) -> Iterable[tuple[Index, Layout]]:
        """Give this process's micro-batches, then empty ones while another still has some."""
        own = list(lay_out(self.replica, sequences, targets, tokens=tokens))
        nothing = np.zeros(0, np.int64)
        empty = rows_of([np.zeros(1, np.int64)], [nothing], self.replica.device)
        return [*own, *[(nothing, empty)] * (_most(len(own)) - len(own))]

    def predict(self, layout: Layout, *, temperature: float = 1.0, entropy: Entropy = "none") -> Predicted:
        """Return what the model says of a layout's targets; all processes must ask for theirs."""
        return predicted(self.parts(layout), layout, temperature=temperature, entropy=entropy)

    def gradient(self) -> torch.Tensor:
        """(0,): it stays with the parts."""
        return torch.zeros(0)


def _most(count: int) -> int:
    """The largest of the counts of all processes."""
    counted = torch.tensor(count)
    dist.all_reduce(counted, dist.ReduceOp.MAX)
    return int(counted)


@dataclass
class ShardedLearner(Learner):
    """One process's part of a learner. All processes make it, and call each of its methods, together.

    Args:
        model: in parts; `replica`: this process's whole model, which gets the weights of every step.
        reader: of both.
    """

    replica: PreTrainedModel = field(kw_only=True)
    reader: Parted = field(kw_only=True, repr=False)

    @classmethod
    def of(cls, model: PreTrainedModel, optimizer: Optimizer, most_skipped: int = 20) -> ShardedLearner:
        """Put a model, equal on all processes, into parts."""
        parts = sharded_copy(model, init_device_mesh(model.device.type, (dist.get_world_size(),)))
        return cls(parts.model, optimizer, most_skipped, replica=model, reader=Parted(model, parts))

    def step(self, gradient: torch.Tensor, progress: float) -> dict[str, float]:
        """Take one optimizer step with the gradient that the parts hold; see `Learner.step`.

        Args:
            gradient: (0,) and unused.
        """
        del gradient
        norm = self._norm()
        if not math.isfinite(norm):
            self.model.zero_grad(set_to_none=True)
            return self._skip()
        scale = self._scale(norm)
        for parameter in self.model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            elif scale != 1.0:
                parameter.grad.mul_(scale)
        figures = self._advance(norm, progress)
        self._tell_replica()
        return figures

    @torch.no_grad()
    def _norm(self) -> float:
        """The norm of the gradient over all processes, equal on each."""
        gradients = (parameter.grad for parameter in self.model.parameters())
        squares = [local(gradient).float().square().sum() for gradient in gradients if gradient is not None]
        total = torch.stack([torch.zeros(()), *squares]).sum()
        dist.all_reduce(total)
        return float(total.sqrt())

    @torch.no_grad()
    def _tell_replica(self) -> None:
        for mine, part in zip(self.replica.parameters(), self.model.parameters(), strict=True):
            mine.copy_(whole(part))

    def _optimizer_states(self) -> list[dict[str, object]]:
        """The states of whole parameters, as one process writes them."""
        return [_gathered(optimizer.state_dict()) for optimizer in self._built]

    def restore(self, state: dict[str, object]) -> None:
        """Continue from a state that this or a `Learner` of one process has written."""
        saved = state["optimizers"]
        if isinstance(saved, list) and len(saved) == len(self._built):
            state = {**state, "optimizers": [_parted(*pair) for pair in zip(self._built, saved, strict=True)]}
        super().restore(state)


def _gathered(state: dict[str, object]) -> dict[str, object]:
    """An optimizer's state with whole tensors."""
    held = cast("dict[int, dict[str, torch.Tensor]]", state["state"])
    every = {index: {name: whole(value) for name, value in each.items()} for index, each in held.items()}
    return {**state, "state": every}


def _parted(optimizer: torch.optim.Optimizer, state: dict[str, object]) -> dict[str, object]:
    """An optimizer's state with this process's parts of tensors that have the shape of their parameter."""
    held = cast("dict[int, dict[str, torch.Tensor]]", state["state"])
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def part(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return part_for(value, like) if value.shape == like.shape else value

    mine = {
        index: {name: part(value, parameters[index]) for name, value in each.items()}
        for index, each in held.items()
    }
    return {**state, "state": mine}

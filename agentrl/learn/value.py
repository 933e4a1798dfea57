"""The critic's model: its values of sampled tokens, and the gradient of its loss."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn

from agentrl.learn.forward import Streams
from agentrl.learn.gradient import flat_gradient
from agentrl.learn.layout import lay_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from agentrl.learn.forward import Index, Layout
    from agentrl.trajectory.batch import Batch


class ValueModel(nn.Module):
    """A copy of a policy's trunk with a head of one output, 0 at first."""

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        self.trunk = cast("PreTrainedModel", deepcopy(policy.base_model))
        self.head = nn.Linear(int(policy.config.hidden_size), 1).to(policy.device, policy.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def values(self, layout: Layout, *, through_trunk: bool = True) -> torch.Tensor:
        """(K,) value before each target; gradient flows into the trunk only where asked for."""
        with torch.set_grad_enabled(through_trunk and torch.is_grad_enabled()):
            states = layout.states(self.trunk)
        value: torch.Tensor = self.head(states).squeeze(-1)
        return value[layout.source].float()


@dataclass(frozen=True, eq=False)
class Values:
    """What a critic says of some sampled tokens: (n,) `value`, at (n,) places among the batch's (N,)."""

    place: Index
    value: NDArray[np.float32]


@torch.no_grad()
def measure_values(batch: Batch, critic: ValueModel, streams: Index, *, micro_tokens: int = 8192) -> Values:
    """Measure the value before each sampled token of some streams."""
    every = Streams.of(batch)
    places, found = [np.zeros(0, np.int64)], [torch.zeros(0)]
    for rows, layout in lay_out(critic.trunk, *every.sequences(streams), tokens=micro_tokens):
        places.append(every.samples(streams[rows]))
        found.append(critic.values(layout).cpu())
    return Values(np.concatenate(places), torch.cat(found).numpy())


def merged_values(batch: Batch, shares: Sequence[Values]) -> NDArray[np.float32]:
    """Put shares that together cover the batch into the order of its (N,) sampled tokens."""
    whole = np.zeros(batch.num_sampled, np.float32)
    for share in shares:
        whole[share.place] = share.value
    return whole


@dataclass(frozen=True, eq=False)
class ValueInputs:
    """What a critic learns from. Axes: N sampled tokens.

    Attributes:
        target: (N,) value to learn, NaN where none is; `before`: (N,) value before the update.
        clip: how far a step may go from `before`.
        count: targets in all, over every share.
        trunk_learns: whether the gradient goes beyond the head.
    """

    target: NDArray[np.float32]
    before: NDArray[np.float32]
    clip: float
    count: int
    trunk_learns: bool = True

    def streams(self, every: Streams) -> Index:
        """(R',) streams that hold a target."""
        stream = np.repeat(np.arange(len(every)), np.diff(every.sample_start))
        return np.unique(stream[np.isfinite(self.target)]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class ValueGradient:
    """The gradient (P,) of a critic's loss on some streams, and that loss."""

    gradient: torch.Tensor
    loss: float


def value_gradient(
    critic: ValueModel, batch: Batch, inputs: ValueInputs, streams: Index, *, micro_tokens: int = 8192
) -> ValueGradient:
    """Return the gradient of half the squared error to the targets, the larger of clipped and plain."""
    every = Streams.of(batch)
    critic.zero_grad(set_to_none=True)
    total = 0.0
    for rows, layout in lay_out(critic.trunk, *every.sequences(streams), tokens=micro_tokens):
        place = every.samples(streams[rows])
        asked = np.isfinite(inputs.target[place])
        target, before = (torch.from_numpy(each[place[asked]]) for each in (inputs.target, inputs.before))
        value = critic.values(layout, through_trunk=inputs.trunk_learns).cpu()[torch.from_numpy(asked)]
        held = before + (value - before).clamp(-inputs.clip, inputs.clip)
        error = torch.maximum((value - target) ** 2, (held - target) ** 2)
        loss = 0.5 * error.sum() / max(inputs.count, 1)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        total += float(loss.detach())
    return ValueGradient(flat_gradient(critic), total)

"""A critic as a value: a model of its own that learns what return follows each sampled token.

It begins as a copy of the policy's trunk with a head of one output at 0, so that the first advantages are
plain returns. Nothing here imports torch until the critic is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.learn.optimizer import AdamW, Optimizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from agentrl.credit.part import Number
    from agentrl.learn.value import ValueModel


@dataclass(frozen=True)
class Critic:
    """How a critic learns: squared error to the returns, as in PPO (arXiv 1707.06347).

    Attributes:
        optimizer: what steps on it, once for each step of the policy and on the same trajectories.
        clip: a step beyond this distance from the value before the update earns no more gradient, as in the
            code of PPO; infinity switches it off.
    """

    optimizer: Optimizer = AdamW(lr=1e-5)  # noqa: RUF009  # frozen, so sharing one is safe
    clip: Number = 0.5

    def build(self, policy: PreTrainedModel) -> ValueModel:
        """Return a critic that begins as the policy's trunk."""
        from agentrl.learn.value import ValueModel

        return ValueModel(policy)

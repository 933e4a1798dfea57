"""A critic as a value: a model of its own that learns what return follows each sampled token.

It begins as a copy of the policy's trunk with a head of one output at 0, so that the first advantages are
plain returns. Nothing here imports torch until the critic is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agentrl.credit.part import Checked
from agentrl.errors import AlgorithmError
from agentrl.learn.optimizer import AdamW, Optimizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from agentrl.credit.part import Number
    from agentrl.learn.value import ValueModel


@dataclass(frozen=True)
class Critic(Checked):
    """How a critic learns: squared error to the returns, as in PPO (arXiv 1707.06347).

    Attributes:
        optimizer: what steps on it, once for each step of the policy and on the same trajectories.
        clip: a step beyond this distance from the value before the update earns no more gradient, as in the
            code of PPO; infinity switches it off.
        trunk: whether the copied trunk learns too, or stays as it was and only the head does: a linear probe
            of the hidden states that the policy had when training began.
    """

    optimizer: Optimizer = AdamW(lr=1e-5)  # noqa: RUF009  # frozen, so sharing one is safe
    clip: Number = 0.5
    trunk: Literal["learns", "stays"] = "learns"

    def __post_init__(self) -> None:
        super().__post_init__()
        decay: object = getattr(self.optimizer, "weight_decay", 0.0)
        if self.trunk == "stays" and decay:
            raise AlgorithmError(
                "a critic whose trunk stays needs an optimizer without weight decay, which would move it; "
                "give it Critic(AdamW(lr=1e-3, weight_decay=0.0), trunk='stays')."
            )

    def build(self, policy: PreTrainedModel) -> ValueModel:
        """Return a critic that begins as the policy's trunk."""
        from agentrl.learn.value import ValueModel

        return ValueModel(policy)

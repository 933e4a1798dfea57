"""The optimizer's side of learning: clip, skip what is not finite, step, remember."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from agentrl.errors import AlgorithmError
from agentrl.learn.gradient import flat_weights, put_gradient

if TYPE_CHECKING:
    import torch

    from agentrl.learn.optimizer import Optimizer


class Learns(Protocol):
    """A model that takes optimizer steps: in this process, or on those of torchrun."""

    def step(self, gradient: torch.Tensor, progress: float) -> dict[str, float]:
        """Take one optimizer step and return its figures; see `Learner.step`."""
        ...

    def weights(self) -> torch.Tensor | None:
        """(P,) the current weights; None where every process has them already."""
        ...

    def state(self) -> dict[str, object]:
        """Return what a checkpoint needs besides the model's weights."""
        ...

    def restore(self, state: dict[str, object]) -> None:
        """Continue from `state`."""
        ...


@dataclass
class Learner:
    """A model with its optimizer.

    Args:
        optimizer: a value that builds the torch optimizers; `most_skipped`: steps with a non-finite gradient
            that are skipped in a row before the run stops.
    """

    model: torch.nn.Module
    optimizer: Optimizer
    most_skipped: int = 20
    version: int = 0
    skipped: int = 0
    _skipped_in_a_row: int = 0
    _built: list[torch.optim.Optimizer] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._built = self.optimizer.build(self.model.named_parameters())

    def step(self, gradient: torch.Tensor, progress: float) -> dict[str, float]:
        """Take one optimizer step with a (P,) flat gradient and return its figures.

        A gradient that is not finite, or whose norm overflows, is skipped and counted; weights and optimizer
        state stay as they are.

        Raises:
            AlgorithmError: more than `most_skipped` steps in a row were skipped.
        """
        norm = float(gradient.norm())
        if not math.isfinite(norm):
            return self._skip()
        scale = self._scale(norm)
        put_gradient(self.model, gradient if scale == 1.0 else gradient * scale)
        return self._advance(norm, progress)

    def _scale(self, norm: float) -> float:
        """What a gradient is multiplied by, so that its norm keeps within the limit."""
        limit = self.optimizer.max_grad_norm
        return 1.0 if limit is None or norm <= limit else limit / norm

    def _advance(self, norm: float, progress: float) -> dict[str, float]:
        """Step on the gradients that the parameters hold."""
        self.optimizer.set_progress(self._built, progress)
        for optimizer in self._built:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._skipped_in_a_row = 0
        self.version += 1
        rate = self._built[-1].param_groups[0]["lr"]
        return {"grad_norm": norm, "learning_rate": float(rate), "skipped_steps": float(self.skipped)}

    def _skip(self) -> dict[str, float]:
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row > self.most_skipped:
            raise AlgorithmError(
                f"{self._skipped_in_a_row} gradients in a row were not finite. Lower the learning rate, "
                "check the rewards, or continue from an earlier checkpoint."
            )
        return {"grad_norm": float("nan"), "skipped_steps": float(self.skipped)}

    def weights(self) -> torch.Tensor:
        """(P,) the current weights."""
        return flat_weights(self.model)

    def state(self) -> dict[str, object]:
        """Return what a checkpoint needs besides the model's weights."""
        return {
            "optimizers": self._optimizer_states(),
            "version": self.version,
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
        }

    def _optimizer_states(self) -> list[dict[str, object]]:
        return [optimizer.state_dict() for optimizer in self._built]

    def restore(self, state: dict[str, object]) -> None:
        """Continue from `state`."""
        saved = state["optimizers"]
        if not isinstance(saved, list) or len(saved) != len(self._built):
            raise AlgorithmError(
                "the checkpoint belongs to another optimizer; resume with the settings it was made with."
            )
        for optimizer, part in zip(self._built, saved, strict=True):
            optimizer.load_state_dict(part)
        self.version, self.skipped = _whole(state["version"]), _whole(state["skipped"])
        self._skipped_in_a_row = _whole(state["skipped_in_a_row"])


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise AlgorithmError(
            f"a checkpoint counter is {value!r}, not a whole number; the checkpoint is damaged."
        )
    return value

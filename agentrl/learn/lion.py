"""Lion: the sign of an interpolated momentum, with decoupled decay (arXiv 2302.06675, algorithm 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable


class SignMomentum(torch.optim.Optimizer):
    """Step by -lr (sign(b1 m + (1 - b1) g) + decay w), then m = b2 m + (1 - b2) g.

    Args:
        parameters: parameters or groups; `lr`: the length of a step in every coordinate.
        betas: b1 and b2; `weight_decay`: decoupled.
    """

    def __init__(
        self,
        parameters: Iterable[dict[str, object]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(list(parameters), {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure: gradients are given
        """Step every parameter that has a gradient."""
        for group in self.param_groups:
            (fast, slow), lr = group["betas"], group["lr"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                direction = momentum.lerp(parameter.grad, 1 - fast).sign_()
                parameter.mul_(1 - lr * group["weight_decay"]).add_(direction, alpha=-lr)
                momentum.lerp_(parameter.grad, 1 - slow)

"""Muon in the matrices' own precision, all matrices of one shape in one batched product.

`torch.optim.Muon` orthogonalises in bfloat16, one matrix at a time; on a CPU without bfloat16 units that took
ten times as long as this and 40 % of a training step. Rule: Jordan et al. 2024 (Newton-Schulz of degree five,
Nesterov momentum), learning rates scaled by sqrt(max(1, rows / columns)) as there. Where a matrix lies on
many processes, its momentum is gathered and each of them orthogonalises the whole.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from agentrl.learn.spread import part_for, whole

if TYPE_CHECKING:
    from collections.abc import Iterable

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class BatchedMuon(torch.optim.Optimizer):
    """Muon for a set of matrices.

    Args:
        parameters: 2-D parameters; `lr`: length of a step, about the change of a matrix's spectral norm.
        momentum: of the gradient average; `weight_decay`: decoupled; `iterations`: of Newton-Schulz.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 5,
    ) -> None:
        super().__init__(
            list(parameters),
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations},
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # closures are not supported
        """Take one step with the gradients that are there."""
        del closure
        for group in self.param_groups:
            for matrices in _by_shape(group["params"]).values():
                self._step(matrices, group)

    def _step(self, matrices: list[torch.nn.Parameter], group: dict[str, float]) -> None:
        updates = torch.stack([whole(self._momentum(matrix, group["momentum"])) for matrix in matrices])
        directions = orthogonalise(updates, int(group["iterations"]))
        rows, columns = matrices[0].shape
        rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        for matrix, direction in zip(matrices, directions, strict=True):
            own = part_for(direction, matrix)
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(own, alpha=-rate)

    def _momentum(self, matrix: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        gradient = matrix.grad
        if gradient is None:
            raise RuntimeError("a matrix without gradient")  # _by_shape leaves them out
        state = self.state[matrix]
        if "average" not in state:
            state["average"] = torch.zeros_like(gradient)
        state["average"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["average"], momentum)


def orthogonalise(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """(K, R, C) matrices with all singular values moved near 1 (within about 0.3)."""
    first, second, third = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = first * x + (second * square + third * (square @ square)) @ x
    result: torch.Tensor = x.mT if tall else x
    return result


def _by_shape(parameters: list[torch.nn.Parameter]) -> dict[tuple[int, ...], list[torch.nn.Parameter]]:
    shapes: dict[tuple[int, ...], list[torch.nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            shapes[tuple(parameter.shape)].append(parameter)
    return shapes

"""Optimizers as values: they print and pickle without torch, and build the real ones when asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agentrl.credit.part import Number, Schedule
from agentrl.errors import AlgorithmError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

    Named = Iterable[tuple[str, torch.nn.Parameter]]


class Optimizer(Protocol):
    """An optimizer slot."""

    @property
    def max_grad_norm(self) -> float | None:
        """The gradient's norm is cut to this before a step."""
        ...

    def build(self, named_parameters: Named, /) -> list[torch.optim.Optimizer]:
        """Return the torch optimizers that together step every parameter that needs gradient."""
        ...

    def set_progress(self, optimizers: Sequence[torch.optim.Optimizer], progress: float, /) -> None:
        """Put scheduled learning rates into optimizers that `build` made."""
        ...


@dataclass(frozen=True)
class AdamW:
    """AdamW; vectors (norms, biases) are not decayed."""

    lr: Number = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    max_grad_norm: float | None = 1.0

    def build(self, named_parameters: Named, /) -> list[torch.optim.Optimizer]:
        """Return one optimizer. Raises `AlgorithmError` where nothing needs gradient."""
        import torch

        groups = _by_decay(_trainable(named_parameters), self.weight_decay)
        return [torch.optim.AdamW(groups, lr=rate(self.lr, 0.0), betas=self.betas, eps=self.eps)]

    def set_progress(self, optimizers: Sequence[torch.optim.Optimizer], progress: float, /) -> None:
        """Set the learning rate at `progress` in [0, 1]."""
        _set_rate(optimizers, rate(self.lr, progress))


@dataclass(frozen=True)
class Muon:
    """Muon for the hidden matrices and AdamW for embeddings, the head, norms and biases.

    `lr` is in Muon's own units (Jordan et al. 2024), about the change of a matrix's spectral norm in one
    step: 0.02 trains from scratch, a tenth and less refines.
    """

    lr: Number = 2e-3
    momentum: float = 0.95
    weight_decay: float = 0.01
    adamw: AdamW = AdamW()
    max_grad_norm: float | None = 1.0

    def build(self, named_parameters: Named, /) -> list[torch.optim.Optimizer]:
        """Return Muon and AdamW, either left out where it has no parameters."""
        from agentrl.learn.muon import BatchedMuon

        parameters = _trainable(named_parameters)
        hidden = [p for name, p in parameters if is_hidden_matrix(name, p)]
        rest = [(name, p) for name, p in parameters if not is_hidden_matrix(name, p)]
        optimizers: list[torch.optim.Optimizer] = []
        if hidden:
            optimizers.append(
                BatchedMuon(
                    hidden, lr=rate(self.lr, 0.0), momentum=self.momentum, weight_decay=self.weight_decay
                )
            )
        return optimizers + (self.adamw.build(rest) if rest else [])

    def set_progress(self, optimizers: Sequence[torch.optim.Optimizer], progress: float, /) -> None:
        """Set both learning rates at `progress` in [0, 1]."""
        from agentrl.learn.muon import BatchedMuon

        muon = [optimizer for optimizer in optimizers if isinstance(optimizer, BatchedMuon)]
        _set_rate(muon, rate(self.lr, progress))
        self.adamw.set_progress([optimizer for optimizer in optimizers if optimizer not in muon], progress)


@dataclass(frozen=True)
class Lion:
    """Lion (arXiv 2302.06675): every coordinate moves by `lr`, so take a third to a tenth of AdamW's.

    Weights stay within 1 / `weight_decay`. Vectors (norms, biases) are not decayed.
    """

    lr: Number = 3e-7
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    max_grad_norm: float | None = 1.0

    def build(self, named_parameters: Named, /) -> list[torch.optim.Optimizer]:
        """Return one optimizer. Raises `AlgorithmError` where nothing needs gradient."""
        from agentrl.learn.lion import SignMomentum

        groups = _by_decay(_trainable(named_parameters), self.weight_decay)
        return [SignMomentum(groups, lr=rate(self.lr, 0.0), betas=self.betas)]

    def set_progress(self, optimizers: Sequence[torch.optim.Optimizer], progress: float, /) -> None:
        """Set the learning rate at `progress` in [0, 1]."""
        _set_rate(optimizers, rate(self.lr, progress))


def is_hidden_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether a parameter is a matrix inside the network: neither an embedding nor the output head."""
    return parameter.ndim == 2 and not any(word in name for word in ("embed", "lm_head", "wte", "wpe"))


def rate(number: Number, progress: float) -> float:
    """Return a learning rate, scheduled or plain, at `progress`."""
    return number(progress) if isinstance(number, Schedule) else number


def _by_decay(parameters: Sequence[tuple[str, torch.nn.Parameter]], decay: float) -> list[dict[str, object]]:
    """Return parameter groups: matrices decay, vectors do not."""
    decayed = [p for _, p in parameters if p.ndim >= 2]
    plain = [p for _, p in parameters if p.ndim < 2]
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _trainable(named_parameters: Named) -> list[tuple[str, torch.nn.Parameter]]:
    parameters = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
    if not parameters:
        raise AlgorithmError("no parameter needs gradient, so there is nothing to optimise; unfreeze some.")
    return parameters


def _set_rate(optimizers: Sequence[torch.optim.Optimizer], lr: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr

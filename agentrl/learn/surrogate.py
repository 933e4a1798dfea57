"""Surrogates: the objective of each token, to be *maximised*: (log_ratio, advantage, logprob) -> (N,).

`log_ratio` carries gradient, `advantage` does not; `logprob` is the current log-probability. Log-ratios are
held within +-20 before `exp`, far outside every clip window, so that no infinity meets a zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from agentrl.credit.part import Number, fixed

if TYPE_CHECKING:
    import torch

LOG_RATIO_LIMIT = 20.0


class Surrogate(Protocol):
    """A surrogate slot."""

    def __call__(
        self, log_ratio: torch.Tensor, advantage: torch.Tensor, logprob: torch.Tensor, /
    ) -> torch.Tensor:
        """Return (N,)."""
        ...


@runtime_checkable
class Clipping(Protocol):
    """A surrogate that can tell which tokens it clips."""

    def clipped(self, log_ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """(N,) bool."""
        ...


def reinforce(
    log_ratio: torch.Tensor,  # noqa: ARG001  # the slot's signature
    advantage: torch.Tensor,
    logprob: torch.Tensor,
    /,
) -> torch.Tensor:
    """A log p: the plain policy gradient, blind to how old the samples are."""
    return advantage * logprob


def importance(
    log_ratio: torch.Tensor,
    advantage: torch.Tensor,
    logprob: torch.Tensor,  # noqa: ARG001  # the slot's signature
    /,
) -> torch.Tensor:
    """Return r A: the unclipped importance-weighted objective."""
    return _ratio(log_ratio) * advantage


@dataclass(frozen=True)
class Clip:
    """min(r A, clip(r, 1 - low, 1 + high) A), and not below `dual` A where A < 0.

    Source: PPO arXiv 1707.06347 eq. 7; `high > low` DAPO arXiv 2503.14476; `dual` arXiv 1912.09729.
    """

    low: Number = 0.2
    high: Number = 0.2
    dual: Number | None = None

    def __call__(
        self, log_ratio: torch.Tensor, advantage: torch.Tensor, logprob: torch.Tensor, /
    ) -> torch.Tensor:
        """Return (N,)."""
        ratio = _ratio(log_ratio)
        objective = (ratio * advantage).minimum(
            ratio.clamp(1 - fixed(self.low), 1 + fixed(self.high)) * advantage
        )
        if self.dual is None:
            return objective
        return objective.maximum(fixed(self.dual) * advantage).where(advantage < 0, objective)

    def clipped(self, log_ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """(N,) bool: no gradient flows."""
        ratio = _ratio(log_ratio)
        outside = ((advantage > 0) & (ratio > 1 + fixed(self.high))) | (
            (advantage < 0) & (ratio < 1 - fixed(self.low))
        )
        return outside if self.dual is None else outside | ((advantage < 0) & (ratio > fixed(self.dual)))


@dataclass(frozen=True)
class StopClip:
    """sg(clip(r)) A log p: clipped tokens still learn, with a bounded weight. CISPO, arXiv 2506.13585."""

    low: Number = 1.0
    high: Number = 0.28

    def __call__(
        self, log_ratio: torch.Tensor, advantage: torch.Tensor, logprob: torch.Tensor, /
    ) -> torch.Tensor:
        """Return (N,)."""
        weight = _ratio(log_ratio.detach()).clamp(1 - fixed(self.low), 1 + fixed(self.high))
        return weight * advantage * logprob

    def clipped(self, log_ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """(N,) bool: the weight is cut, gradient still flows."""
        ratio = _ratio(log_ratio)
        return (ratio > 1 + fixed(self.high)) | (ratio < 1 - fixed(self.low))


@dataclass(frozen=True)
class Soft:
    """4/tau sigmoid(tau (r - 1)) A: a smooth gate of slope 1 at r = 1. SAPO, arXiv 2511.20347.

    `positive` and `negative` are the temperatures for tokens with A > 0 and A <= 0.
    """

    positive: Number = 1.0
    negative: Number = 1.05

    def __call__(
        self, log_ratio: torch.Tensor, advantage: torch.Tensor, logprob: torch.Tensor, /
    ) -> torch.Tensor:
        """Return (N,)."""
        up, down = (self._gate(log_ratio, fixed(tau)) for tau in (self.positive, self.negative))
        return up.where(advantage > 0, down) * advantage

    def _gate(self, log_ratio: torch.Tensor, tau: float) -> torch.Tensor:
        return 4 / tau * (tau * (_ratio(log_ratio) - 1)).sigmoid()


def _ratio(log_ratio: torch.Tensor) -> torch.Tensor:
    return log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()

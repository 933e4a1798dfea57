"""Penalties: terms of each token that are *added* to the loss, averaged like the surrogate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from agentrl.credit.part import NOTHING, Checked, Number, fixed
from agentrl.errors import AlgorithmError

if TYPE_CHECKING:
    import torch

    from agentrl.learn.ratio import Spans

Need = Literal["entropy", "reference_logprob"]


ROUNDING = 1e-4
"""A whole likelihood that fell by less did not fall: two forward passes differ by as much."""


@dataclass(frozen=True, eq=False)
class TokenFigures:
    """What a penalty may read of each token, (N,); what the forward pass did not measure is None.

    Attributes:
        logprob: current log-probability, with gradient; `entropy`: of the current distribution, with
            gradient.
        reference_logprob: of the reference model, without gradient.
        old_logprob: before the update; `advantage`, `spans`: as in the loss, all without gradient.
    """

    logprob: torch.Tensor
    entropy: torch.Tensor | None = None
    reference_logprob: torch.Tensor | None = None
    old_logprob: torch.Tensor | None = None
    advantage: torch.Tensor | None = None
    spans: Spans | None = None

    def require(self, need: Need) -> torch.Tensor:
        """Return a figure. Raises `AlgorithmError` where it was not measured."""
        figure: torch.Tensor | None = getattr(self, need)
        if figure is None:
            raise AlgorithmError(f"a penalty needs {need!r}, and policy_loss did not get it. {_REPAIR[need]}")
        return figure


_REPAIR = {
    "entropy": "Pass entropy=..., from the same forward pass as logprob.",
    "reference_logprob": "Add the probe agentrl.learn.probes.reference_logprob to the run.",
}


class Penalty(Protocol):
    """A penalty: (N,) terms added to the loss. `needs` names what it reads besides `logprob`."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """Names of the figures."""
        ...

    def __call__(self, figures: TokenFigures, /) -> torch.Tensor:
        """Return (N,)."""
        ...


@dataclass(frozen=True)
class KlToReference(Checked):
    """`coefficient` times an estimate of KL(policy || reference) from the drawn token.

    With d = log p_reference - log p: k1 is -d, k2 is d^2 / 2, k3 is exp(d) - 1 - d (Schulman, "Approximating
    KL"). As a loss, k2 has the gradient of the true KL on-policy, k3 approximates it near the reference, and
    k1 has expected gradient 0: use it only to measure.
    """

    coefficient: Number
    estimator: Literal["k1", "k2", "k3"] = "k3"

    @property
    def needs(self) -> tuple[Need, ...]:
        """Names of the figures."""
        return ("reference_logprob",)

    def __call__(self, figures: TokenFigures, /) -> torch.Tensor:
        """Return (N,)."""
        gap = figures.require("reference_logprob") - figures.logprob
        return fixed(self.coefficient) * ESTIMATORS[self.estimator](gap)


@dataclass(frozen=True)
class Entropy:
    """Minus `coefficient` times the entropy in nats: a bonus for spread."""

    coefficient: Number

    @property
    def needs(self) -> tuple[Need, ...]:
        """Names of the figures."""
        return ("entropy",)

    def __call__(self, figures: TokenFigures, /) -> torch.Tensor:
        """Return (N,)."""
        return -fixed(self.coefficient) * figures.require("entropy")


@dataclass(frozen=True)
class KlToOld(Checked):
    """`coefficient` times an estimate of KL(policy || policy before the update) from the drawn token.

    The proximal term of mirror descent policy optimisation; it needs more than one step per batch to act.
    """

    coefficient: Number
    estimator: Literal["k1", "k2", "k3"] = "k3"

    @property
    def needs(self) -> tuple[Need, ...]:
        """Names of the figures."""
        return ()

    def __call__(self, figures: TokenFigures, /) -> torch.Tensor:
        """Return (N,)."""
        if figures.old_logprob is None:
            raise AlgorithmError("KlToOld reads old_logprob; call it through policy_loss.")
        return fixed(self.coefficient) * ESTIMATORS[self.estimator](figures.old_logprob - figures.logprob)


@dataclass(frozen=True)
class EntropyTarget:
    """`coefficient` times half the squared distance of the entropy from `target`, in nats."""

    target: Number
    coefficient: Number = 0.01

    @property
    def needs(self) -> tuple[Need, ...]:
        """Names of the figures."""
        return ("entropy",)

    def __call__(self, figures: TokenFigures, /) -> torch.Tensor:
        """Return (N,)."""
        gap = figures.require("entropy") - fixed(self.target)
        return fixed(self.coefficient) * gap.square() / 2


@dataclass(frozen=True)
class LikelihoodDrop:
    """`coefficient` times the fall of log p since the update began, where it fell: LLDS, from its abstract.

    Only in streams whose whole likelihood fell, and only on tokens whose advantage is not negative; within
    1e-6 of zero it is zero, so that no rounding decides.
    """

    coefficient: Number = 0.1

    @property
    def needs(self) -> tuple[Need, ...]:
        """Names of the figures."""
        return ()

    def __call__(self, figures: TokenFigures, /) -> torch.Tensor:
        """Return (N,)."""
        old, advantage, spans = figures.old_logprob, figures.advantage, figures.spans
        if old is None or advantage is None or spans is None:
            raise AlgorithmError("LikelihoodDrop reads old_logprob, advantage and spans; use policy_loss.")
        fall = old - figures.logprob
        whole = fall.new_zeros(spans.streams).index_add(0, spans.stream, fall.detach())
        fell = (whole > ROUNDING)[spans.stream] & (advantage > -NOTHING)
        return fixed(self.coefficient) * fall.clamp(min=0) * fell


def k1(gap: torch.Tensor) -> torch.Tensor:
    """-d: unbiased, of either sign."""
    return -gap


def k2(gap: torch.Tensor) -> torch.Tensor:
    """d^2 / 2: biased, never negative."""
    return gap.square() / 2


def k3(gap: torch.Tensor) -> torch.Tensor:
    """exp(d) - 1 - d: unbiased, never negative; d is held within +-20."""
    held = gap.clamp(-20.0, 20.0)
    return held.expm1() - held


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}

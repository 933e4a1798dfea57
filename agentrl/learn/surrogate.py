"""Surrogates: the objective of each token, to be *maximised*: (log_ratio, advantage, logprob) -> (N,).

`log_ratio` carries gradient, `advantage` does not; `logprob` is the current log-probability. Log-ratios are
held within +-20 before `exp`, far outside every clip window, so that no infinity meets a zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from agentrl.credit.part import Number, fixed
from agentrl.credit.sequence import number_pairs
from agentrl.errors import AlgorithmError
from agentrl.learn.ratio import Spans, sequence_ratio, stream_position
from agentrl.trajectory.batch import ENTROPY, SENTENCE

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

LOG_RATIO_LIMIT = 20.0
LEAST_LOG_WEIGHT = -18.420680743952367  # log 1e-8


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


@dataclass(frozen=True, eq=False)
class Place:
    """Where the tokens stand, (N,): their own log-ratios, log-probabilities before the update, and spans.

    `width` is what the surrogate's own `widths` said of them, None where it says nothing.
    """

    own_ratio: torch.Tensor
    old_logprob: torch.Tensor
    spans: Spans
    width: torch.Tensor | None = None


@runtime_checkable
class Situated(Protocol):
    """A surrogate that also reads where tokens stand."""

    def situated(self, log_ratio: torch.Tensor, advantage: torch.Tensor, place: Place, /) -> torch.Tensor:
        """Return (N,)."""
        ...


@runtime_checkable
class Wide(Protocol):
    """A surrogate whose window depends on figures of the whole batch."""

    def widths(self, batch: Batch, keep: NDArray[np.bool_], /) -> NDArray[np.float64]:
        """Return (N,) factors of the window's bounds."""
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
class OpenClip:
    """As `Clip`, but above the window the gradient goes on with the window's weight: AEPO.

    Where A > 0 and r > 1 + high the value is (1 + high) r / sg(r) A. Source: AEPO, arXiv 2510.14545, loss
    side from a secondary source.
    """

    low: Number = 0.2
    high: Number = 0.28

    def __call__(
        self, log_ratio: torch.Tensor, advantage: torch.Tensor, logprob: torch.Tensor, /
    ) -> torch.Tensor:
        """Return (N,)."""
        ratio, top = _ratio(log_ratio), 1 + fixed(self.high)
        plain = (ratio * advantage).minimum(ratio.clamp(1 - fixed(self.low), top) * advantage)
        held = top * ratio / ratio.detach() * advantage
        return held.where((advantage > 0) & (ratio > top), plain)


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


@dataclass(frozen=True)
class LogClip:
    """min(r A, clip(r) A) with log r held in [-low t^growth, high t^growth] at position t of the stream.

    `growth` 0.5 is CTPO's window for cumulative ratios (arXiv 2605.07331), 0 a fixed window in logs.
    """

    low: Number = 0.2
    high: Number = 0.2
    growth: Number = 0.0

    def situated(self, log_ratio: torch.Tensor, advantage: torch.Tensor, place: Place, /) -> torch.Tensor:
        """Return (N,)."""
        width = stream_position(place.spans).to(log_ratio.dtype) ** fixed(self.growth)
        held = log_ratio.maximum(-fixed(self.low) * width).minimum(fixed(self.high) * width)
        return (_ratio(log_ratio) * advantage).minimum(_ratio(held) * advantage)


@dataclass(frozen=True)
class ProbabilityClip:
    """min(r A, clip(r) A) with wider bounds for tokens that were improbable: DCPO (lime-RL/DCPO).

    With q before the update the bounds are (1 + sqrt(max(0, 1 - 4 low / q))) / 2 and
    (1 + sqrt(1 + 4 high / q)) / 2, at most `cap`. Where A < 0 the value is not below `dual` A, as in `Clip`.
    """

    low: Number = 0.2
    high: Number = 0.28
    cap: Number = 10.0
    dual: Number | None = None

    def situated(self, log_ratio: torch.Tensor, advantage: torch.Tensor, place: Place, /) -> torch.Tensor:
        """Return (N,)."""
        inverse = (-place.old_logprob).clamp(max=LOG_RATIO_LIMIT).exp()
        low = (1 + (1 - 4 * fixed(self.low) * inverse).clamp(min=0).sqrt()) / 2
        high = ((1 + (1 + 4 * fixed(self.high) * inverse).sqrt()) / 2).clamp(max=fixed(self.cap))
        ratio = _ratio(log_ratio)
        objective = (ratio * advantage).minimum(ratio.maximum(low).minimum(high) * advantage)
        if self.dual is None:
            return objective
        return objective.maximum(fixed(self.dual) * advantage).where(advantage < 0, objective)


@dataclass(frozen=True)
class MixedClip:
    """(w clip(r_token) + (1 - w) clip(r_stream)) A, each clipped before mixing: DHPO, from its abstract."""

    weight: Number = 0.5
    token: Number = 0.2
    stream: Number = 4e-4

    def situated(self, log_ratio: torch.Tensor, advantage: torch.Tensor, place: Place, /) -> torch.Tensor:
        """Return (N,)."""
        share, stream = fixed(self.weight), sequence_ratio(place.own_ratio, place.spans)
        near = Clip(self.token, self.token)(log_ratio, advantage, log_ratio)
        far = Clip(self.stream, self.stream)(stream, advantage, stream)
        return share * near + (1 - share) * far


@dataclass(frozen=True)
class ElasticClip:
    """min(r A, clip(r, 1 -+ e) A) with e = base (1 + stretch |A| / (1 + |A|)): ETR, from its abstract."""

    base: Number = 0.2
    stretch: Number = 0.5

    def __call__(
        self,
        log_ratio: torch.Tensor,
        advantage: torch.Tensor,
        logprob: torch.Tensor,  # the slot's signature
        /,
    ) -> torch.Tensor:
        """Return (N,)."""
        size = advantage.abs()
        width = fixed(self.base) * (1 + fixed(self.stretch) * size / (1 + size))
        ratio = _ratio(log_ratio)
        return (ratio * advantage).minimum(ratio.maximum(1 - width).minimum(1 + width) * advantage)


@dataclass(frozen=True)
class TowardTarget:
    """-|A| |r - r*| with r* = 1 + width tanh(A / (2 scale)): BPO, bounded ratios (arXiv 2604.18578).

    `scale` has the unit of the advantage, so do not divide advantages by a deviation.
    """

    width: Number = 0.2
    scale: Number = 0.1

    def __call__(
        self,
        log_ratio: torch.Tensor,
        advantage: torch.Tensor,
        logprob: torch.Tensor,  # the slot's signature
        /,
    ) -> torch.Tensor:
        """Return (N,)."""
        target = 1 + fixed(self.width) * (advantage / (2 * fixed(self.scale))).tanh()
        return -advantage.abs() * (_ratio(log_ratio) - target).abs()


@dataclass(frozen=True)
class SentenceClip:
    """min(r A, clip(r, 1 - low s, 1 + high s) A), where s is the sentence's entropy over the batch's: SSPO.

    Both are means over kept tokens, of `ENTROPY` before the update; s lies within [1 / `most`, `most`]. So
    sentences that the policy is unsure of may move further. Source: arXiv 2511.04256, from its abstract: s is
    our reading and `most` a placeholder.
    """

    low: Number = 0.2
    high: Number = 0.2
    most: Number = 2.0

    def widths(self, batch: Batch, keep: NDArray[np.bool_], /) -> NDArray[np.float64]:
        """Return (N,) s. Raises `MissingColumnError` without entropies and sentences."""
        unit = number_pairs(batch.turn_of_sample, batch[SENTENCE].astype(np.int64))
        entropy, most = np.where(keep, batch[ENTROPY], 0.0), fixed(self.most)
        mean = np.bincount(unit, entropy) / np.maximum(np.bincount(unit, keep), 1)
        middle = entropy.sum() / max(int(keep.sum()), 1)
        share = mean[unit] / middle if abs(middle) > 1e-12 else np.ones(len(unit))
        return np.asarray(np.clip(share, 1 / most, most))

    def situated(self, log_ratio: torch.Tensor, advantage: torch.Tensor, place: Place, /) -> torch.Tensor:
        """Return (N,)."""
        if place.width is None:
            raise AlgorithmError("SentenceClip reads widths of the whole batch; call it through policy_loss.")
        low, high = 1 - fixed(self.low) * place.width, 1 + fixed(self.high) * place.width
        ratio = _ratio(log_ratio)
        return (ratio * advantage).minimum(ratio.maximum(low).minimum(high) * advantage)


@dataclass(frozen=True)
class RatioVariance:
    """Return r A - weight (r - 1)^2: no clip, ratios are held by their variance. R2VPO, from its abstract."""

    weight: Number = 1.0

    def __call__(
        self,
        log_ratio: torch.Tensor,
        advantage: torch.Tensor,
        logprob: torch.Tensor,  # the slot's signature
        /,
    ) -> torch.Tensor:
        """Return (N,)."""
        ratio = _ratio(log_ratio)
        return ratio * advantage - fixed(self.weight) * (ratio - 1).square()


@dataclass(frozen=True)
class GammaWeight:
    """Return sg(w^k exp(rate (1 - w))) A log p, w the ratio of the whole stream: VESPO, arXiv 2602.10693.

    A smooth weight, 1 on-policy, instead of a clip; `k` and `rate` are for tokens with A >= 0 and A < 0. w is
    the product of the stream's ratios and not their mean. As in TRL.
    """

    k: tuple[Number, Number] = (2.0, 3.0)
    rate: tuple[Number, Number] = (3.0, 2.0)

    def situated(self, log_ratio: torch.Tensor, advantage: torch.Tensor, place: Place, /) -> torch.Tensor:
        """Return (N,)."""
        own, spans = place.own_ratio.detach(), place.spans
        held = own.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        whole = own.new_zeros(spans.streams).index_add(0, spans.stream, held)[spans.stream]
        log_weight = whole.clamp(LEAST_LOG_WEIGHT, LOG_RATIO_LIMIT)
        up, down = (
            (fixed(rate) * (1 - log_weight.exp()) + fixed(k) * log_weight).exp()
            for k, rate in zip(self.k, self.rate, strict=True)
        )
        return up.where(advantage >= 0, down) * advantage * (place.own_ratio + place.old_logprob)


def _ratio(log_ratio: torch.Tensor) -> torch.Tensor:
    return log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()

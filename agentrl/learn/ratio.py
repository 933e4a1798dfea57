"""Ratios: over which unit the new policy is compared with the old one.

A unit's log-ratio is the mean over its tokens, the log of a geometric mean. Its gradient goes to each token
alone: the shared value is a constant, `value.detach() + x - x.detach()`. So on-policy every ratio gives the
plain policy gradient, also where advantages differ within a unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from agentrl.credit.part import Number, fixed
from agentrl.errors import AlgorithmError
from agentrl.trajectory.batch import SENTENCE, Column

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Spans:
    """Which turn and which token stream each sampled token belongs to; turns and streams here are whole.

    Attributes:
        turn, stream: (N,) int64 numbers; `turns`, `streams`: one more than the largest.
        sentence, sentences: the same of sentences, where the batch tells them.
    """

    turn: torch.Tensor
    stream: torch.Tensor
    turns: int
    streams: int
    sentence: torch.Tensor | None = None
    sentences: int = 0

    def take(self, index: torch.Tensor) -> Spans:
        """Return the spans of some tokens."""
        sentence = None if self.sentence is None else self.sentence[index]
        return Spans(self.turn[index], self.stream[index], self.turns, self.streams, sentence, self.sentences)


class Ratio(Protocol):
    """A ratio slot: (N,) log-ratio that the surrogate sees, from each token's own."""

    def __call__(self, log_ratio: torch.Tensor, spans: Spans, /) -> torch.Tensor:
        """Return (N,)."""
        ...


def token_ratio(log_ratio: torch.Tensor, spans: Spans, /) -> torch.Tensor:  # noqa: ARG001  # the slot
    """Each token by itself (PPO, GRPO)."""
    return log_ratio


def turn_ratio(log_ratio: torch.Tensor, spans: Spans, /) -> torch.Tensor:
    """One ratio per turn: the geometric mean over the tokens of the turn."""
    return _shared(log_ratio, spans.turn, spans.turns)


def sequence_ratio(log_ratio: torch.Tensor, spans: Spans, /) -> torch.Tensor:
    """One ratio per token stream: GSPO in its token form (arXiv 2507.18071, section 4.3).

    A stream is a whole trajectory, unless the history was rewritten, which begins a new stream.
    """
    return _shared(log_ratio, spans.stream, spans.streams)


@dataclass(frozen=True)
class SentenceRatio:
    """One ratio per sentence: the geometric mean over its tokens. SSPO (arXiv 2511.04256), from its abstract.

    Reads `SENTENCE`.
    """

    columns: ClassVar[tuple[Column, ...]] = (SENTENCE,)

    def __call__(self, log_ratio: torch.Tensor, spans: Spans, /) -> torch.Tensor:
        """Return (N,). Raises `AlgorithmError` where the spans hold no sentences."""
        if spans.sentence is None:
            raise AlgorithmError(
                "SentenceRatio needs the sentence of each token; give the batch its column 'sentence' with "
                "agentrl.learn.sentences.with_sentences before prepare()."
            )
        return _shared(log_ratio, spans.sentence, spans.sentences)


def _shared(log_ratio: torch.Tensor, unit: torch.Tensor, units: int) -> torch.Tensor:
    own = log_ratio.detach()
    total = own.new_zeros(units).index_add(0, unit, own)
    count = own.new_zeros(units).index_add(0, unit, own.new_ones(own.shape))
    return (total / count.clamp(min=1))[unit] + (log_ratio - own)


def cumulative_ratio(log_ratio: torch.Tensor, spans: Spans, /) -> torch.Tensor:
    """The product of ratios from the stream's start to the token: CTPO, arXiv 2605.07331.

    Differentiating the running sum would weigh early tokens more even on-policy, so the sum is a constant, as
    in the authors' code.
    """
    own = log_ratio.detach()
    return _running(own, spans.stream) + (log_ratio - own)


def least_prefix_ratio(log_ratio: torch.Tensor, spans: Spans, /) -> torch.Tensor:
    """Each token's ratio times the least ratio before it in the stream: MinPRO, from its abstract."""
    import torch

    if not len(log_ratio):
        return log_ratio
    least, first = torch.zeros_like(log_ratio), stream_position(spans) == 1
    begins = first.nonzero().squeeze(1).tolist()
    own = log_ratio.detach()
    for begin, end in zip(begins, [*begins[1:], len(own)], strict=True):
        if end - begin > 1:
            least[begin + 1 : end] = own[begin : end - 1].cummin(0).values
    return log_ratio + least


@dataclass(frozen=True)
class HolderRatio:
    """One ratio per stream: the power mean of its tokens' ratios. HölderPO.

    `power` 0 is the geometric mean of GSPO, 1 the arithmetic mean. A token's gradient is weighted by
    n r^p / sum r^p, which is that of the shared value.
    """

    power: Number = 1.0

    def __call__(self, log_ratio: torch.Tensor, spans: Spans, /) -> torch.Tensor:
        """Return (N,)."""
        power, own, unit = fixed(self.power), log_ratio.detach(), spans.stream
        if abs(power) < 1e-6:  # the limit
            return _shared(log_ratio, unit, spans.streams)
        scaled = (power * own).clamp(-20, 20).exp()
        count = own.new_zeros(spans.streams).index_add(0, unit, own.new_ones(own.shape)).clamp(min=1)
        mean = (own.new_zeros(spans.streams).index_add(0, unit, scaled) / count)[unit]
        return mean.log() / power + scaled / mean * (log_ratio - own)


@dataclass(frozen=True)
class BaseAndFibre:
    """A stream's geometric mean within +-`base` and each token's distance within +-`fibre`, in logs.

    Wide bounds give the token ratio, `fibre` 0 a clipped sequence ratio. FiberPO, arXiv 2603.08239.
    """

    base: Number = 0.05
    fibre: Number = 0.2

    def __call__(self, log_ratio: torch.Tensor, spans: Spans, /) -> torch.Tensor:
        """Return (N,)."""
        base = _shared(log_ratio, spans.stream, spans.streams).clamp(-fixed(self.base), fixed(self.base))
        return base + (log_ratio - base).clamp(-fixed(self.fibre), fixed(self.fibre))


def stream_position(spans: Spans) -> torch.Tensor:
    """(N,) position of each token within its stream, from 1; streams are whole and consecutive."""
    one = spans.stream.new_ones(spans.stream.shape)
    return _running(one, spans.stream)


def _running(value: torch.Tensor, stream: torch.Tensor) -> torch.Tensor:
    """Sum from the start of each stream."""
    total = value.cumsum(0)
    if not len(value):
        return total
    begins = stream >= 0
    begins[1:] = stream[1:] != stream[:-1]
    number = begins.long().cumsum(0) - 1
    before = (total - value)[begins]
    return total - before[number]

"""Ratios: over which unit the new policy is compared with the old one.

A unit's log-ratio is the mean over its tokens, the log of a geometric mean. Its gradient goes to each token
alone: the shared value is a constant, `value.detach() + x - x.detach()`. So on-policy every ratio gives the
plain policy gradient, also where advantages differ within a unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Spans:
    """Which turn and which token stream each sampled token belongs to; turns and streams here are whole.

    Attributes:
        turn, stream: (N,) int64 numbers; `turns`, `streams`: one more than the largest.
    """

    turn: torch.Tensor
    stream: torch.Tensor
    turns: int
    streams: int

    def take(self, index: torch.Tensor) -> Spans:
        """Return the spans of some tokens."""
        return Spans(self.turn[index], self.stream[index], self.turns, self.streams)


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


def _shared(log_ratio: torch.Tensor, unit: torch.Tensor, units: int) -> torch.Tensor:
    own = log_ratio.detach()
    total = own.new_zeros(units).index_add(0, unit, own)
    count = own.new_zeros(units).index_add(0, unit, own.new_ones(own.shape))
    return (total / count.clamp(min=1))[unit] + (log_ratio - own)

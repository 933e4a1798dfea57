"""What is asked of the decode engine, what comes back, and how one token is drawn.

Axes: R rows (streams in this step), V vocabulary, N sampled tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from agentrl.errors import PolicyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.policy.base import Finish, Sampling

LARGEST_UNIFORM = 1.0 - 2.0**-40
"""Uniform numbers stay below this, so that `uniform * total < total` holds in floating point."""


@dataclass(frozen=True)
class DecodeRequest:
    """Continue one stream by one turn.

    Args:
        stream: name of the token stream; an unseen name starts an empty one.
        tokens: (P,) integers, only what was added since the last sampled token of this stream.
        sampling: how this turn is sampled; greedy when the temperature is 0, and the log-probability is then
            0 (a point mass). The token that completes a stop string in the decoded text is the last one.
        key: names the noise; equal keys draw equal uniform numbers, whatever else is in the batch.
        stop_tokens: sampled tokens that end this turn, besides the engine's own; kept in the result.
        inherited: how many of the first tokens of a new stream are those of another: what a slot has read of
            them, of a stream that goes on or one that was released, is not read again.
    """

    stream: str
    tokens: NDArray[np.int32]
    sampling: Sampling
    key: tuple[int, ...]
    stop_tokens: tuple[int, ...] = ()
    inherited: int = 0


@dataclass(frozen=True)
class Decoded:
    """One sampled turn.

    Args:
        tokens: (N,) int32, with the stop token if one was sampled.
        logprobs: (N,) float32, natural logarithm of the probability under the distribution that was sampled
            from (temperature and top-p applied, renormalised).
        finish: why sampling ended. `context`: the slot is full (N may be 0, the request's tokens are then not
            kept); `invalid`: the model gave NaN or +inf (a logit of -inf is only an impossible token).
        entropies: (N,) float32 entropy in nats of each of those distributions, where the request asked.
    """

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    finish: Finish
    entropies: NDArray[np.float32] | None = None


def check_sampling(sampling: Sampling) -> None:
    """Refuse settings that have no meaning.

    Raises:
        PolicyError: a number is outside its range, or a stop string is empty.
    """
    if not 0.0 <= sampling.temperature < float("inf"):
        raise PolicyError(
            f"temperature is {sampling.temperature}; give a finite number >= 0 (0 means greedy)."
        )
    if not 0.0 < sampling.top_p <= 1.0:
        raise PolicyError(f"top_p is {sampling.top_p}; give a number in (0, 1] (1 keeps every token).")
    if sampling.max_tokens < 1:
        raise PolicyError(f"max_tokens is {sampling.max_tokens}; give at least 1.")
    if "" in sampling.stop_strings:
        raise PolicyError("stop_strings holds an empty string, which would end every turn; remove it.")


def uniforms(key: tuple[int, ...], count: int) -> NDArray[np.float64]:
    """(count,) numbers in [0, 1) that depend on `key` alone; a longer draw starts with the shorter one.

    >>> bool((uniforms((1, 2), 3) == uniforms((1, 2), 5)[:3]).all())
    True
    """
    bits = hashlib.shake_128(repr(tuple(map(int, key))).encode()).digest(8 * count)
    whole = (np.frombuffer(bits, "<u8") >> np.uint64(11)).astype(np.float64)
    return np.minimum(whole * 2.0**-53, LARGEST_UNIFORM)


@dataclass(frozen=True)
class Drawn:
    """One token for each row.

    Args:
        tokens: (R,); logprobs: (R,); finite: (R,) whether the row's distribution is.
        entropies: (R,) in nats, or None where nobody asked. Greedy rows have that of temperature 1.
    """

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    finite: NDArray[np.bool_]
    entropies: NDArray[np.float32] | None = None


@torch.inference_mode()
def draw(
    logits: torch.Tensor,
    uniform: NDArray[np.float64],
    temperature: NDArray[np.float64],
    top_p: NDArray[np.float64],
    *,
    entropy: bool = False,
) -> Drawn:
    """Draw one token for each row by inverting the cumulative distribution.

    Args:
        logits: (R, V).
        uniform, temperature, top_p: (R,) each.
    """
    scaled = logits.float()
    greedy = temperature == 0.0
    tempered = np.where(greedy, 1.0, temperature)
    if (tempered != 1.0).any():
        scaled = scaled / _column(tempered, scaled).float()
    weight = torch.softmax(scaled, dim=-1)
    if (top_p < 1.0).any():
        weight = _nucleus(weight, top_p)
    cumulative = weight.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, _column(uniform, scaled) * total, right=True)
    chosen = chosen.clamp_max_(weight.shape[1] - 1)
    logprob = torch.log(weight.gather(1, chosen) / total)
    tokens = chosen[:, 0].cpu().numpy().astype(np.int32)
    logprobs = logprob[:, 0].float().cpu().numpy()
    finite = torch.isfinite(total)[:, 0].cpu().numpy()
    if greedy.any():
        best = scaled.argmax(dim=-1).cpu().numpy().astype(np.int32)
        tokens = np.where(greedy, best, tokens)
        logprobs = np.where(greedy, np.float32(0.0), logprobs)
    spread = _entropy(weight, total) if entropy else None
    return Drawn(tokens, logprobs, finite, spread)


def _entropy(weight: torch.Tensor, total: torch.Tensor) -> NDArray[np.float32]:
    """(R,) entropy of weights (R, V) that add up to `total` (R, 1), which is not 1 in a nucleus."""
    spread = torch.special.entr(weight).sum(dim=-1) / total[:, 0] + total[:, 0].log()
    return np.asarray(spread.float().cpu().numpy(), np.float32)


def _column(values: NDArray[np.float64], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(like.device)[:, None]


def _nucleus(weight: torch.Tensor, top_p: NDArray[np.float64]) -> torch.Tensor:
    """Zero what lies outside the nucleus, on the rows that ask for one; (R, V) -> (R, V)."""
    rows = torch.from_numpy(np.flatnonzero(top_p < 1.0)).to(weight.device)
    ordered, order = weight[rows].sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
    bound = torch.from_numpy(top_p[top_p < 1.0]).to(weight.device)[:, None]
    ordered = ordered.masked_fill(before >= bound, 0.0)
    return weight.index_copy(0, rows, torch.zeros_like(ordered).scatter_(1, order, ordered))

"""The loss: a pure function of an algorithm, a prepared batch and the current log-probabilities.

`prepare` weighs every token once over the whole batch; `policy_loss` sums. Any split of the tokens into
pieces that keep turns and streams whole therefore adds up to the full-batch loss. Only sampled tokens exist
here, so a prompt or tool token cannot receive gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agentrl.credit.part import name_of
from agentrl.credit.sequence import number_pairs
from agentrl.errors import AlgorithmError
from agentrl.learn.average import CreditAverage
from agentrl.learn.penalty import TokenFigures, k3
from agentrl.learn.ratio import Spans
from agentrl.learn.surrogate import Clipping, Place, Situated, Wide
from agentrl.learn.weight import Compares, CreditWeight
from agentrl.trajectory.batch import LOGPROB_BEFORE_UPDATE, REFERENCE_LOGPROB, SENTENCE, expand

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from agentrl.learn.algorithm import Algorithm, Credit
    from agentrl.learn.ratio import Ratio
    from agentrl.trajectory.batch import Batch


@dataclass(frozen=True, eq=False)
class LossInputs:
    """Everything of a batch that the loss reads, as tensors over its sampled tokens (N,).

    Attributes:
        old_logprob: log-probability before the update: the column `LOGPROB_BEFORE_UPDATE`, or as drawn.
        advantage: of each token; `keep`: whether it carries loss.
        average: weight of each token in every mean; `weight`: its extra factor in the surrogate.
        spans: its turn and stream; `turn_index`: position of its turn, `turn_indices` positions in all.
        reference_logprob: of the reference model, or None; `width`: what a `Wide` surrogate says.
    """

    old_logprob: torch.Tensor
    advantage: torch.Tensor
    keep: torch.Tensor
    average: torch.Tensor
    weight: torch.Tensor
    spans: Spans
    turn_index: torch.Tensor
    turn_indices: int
    reference_logprob: torch.Tensor | None = None
    width: torch.Tensor | None = None

    def take(self, index: torch.Tensor) -> LossInputs:
        """Return the inputs of some tokens: a micro-batch, made of whole streams."""
        reference, width = self.reference_logprob, self.width
        return LossInputs(
            self.old_logprob[index],
            self.advantage[index],
            self.keep[index],
            self.average[index],
            self.weight[index],
            self.spans.take(index),
            self.turn_index[index],
            self.turn_indices,
            None if reference is None else reference[index],
            None if width is None else width[index],
        )


@dataclass(frozen=True, eq=False)
class Health:
    """Sums over kept tokens, without gradient; pieces add up with `+`, and `figures` divides.

    Attributes:
        tokens, clipped: (K,) counts by turn index.
        kl: sum of k3 between old and new; `entropy`: sum of entropies, or None; `gap`: max |log-ratio|.
    """

    tokens: torch.Tensor
    clipped: torch.Tensor
    kl: torch.Tensor
    gap: torch.Tensor
    entropy: torch.Tensor | None = None

    def __add__(self, other: Health) -> Health:
        """Merge two pieces."""
        both = self.entropy is not None and other.entropy is not None
        return Health(
            self.tokens + other.tokens,
            self.clipped + other.clipped,
            self.kl + other.kl,
            self.gap.maximum(other.gap),
            self.entropy + other.entropy if both else None,  # type: ignore[operator]  # neither is None
        )

    def figures(self) -> dict[str, float]:
        """Return means by name; `clip_share_turn_3` is the share clipped at turn index 3."""
        tokens, clipped = self.tokens.tolist(), self.clipped.tolist()
        total = max(sum(tokens), 1)
        by_turn = {
            f"clip_share_turn_{k}": c / n for k, (c, n) in enumerate(zip(clipped, tokens, strict=True)) if n
        }
        entropy = {} if self.entropy is None else {"entropy": float(self.entropy) / total}
        means = {"approx_kl": float(self.kl) / total, "clip_share": sum(clipped) / total}
        return {**means, "logprob_gap_max": float(self.gap), **entropy, **by_turn}


def sum_of(pieces: Sequence[Health]) -> Health:
    """Merge the pieces of a batch, at least one."""
    first, *others = pieces
    for piece in others:
        first += piece
    return first


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss of a piece.

    Attributes:
        total: scalar with gradient, to be minimised; pieces of one batch add up.
        parts: its terms without gradient: "policy" and one per penalty.
        health: sums for the figures.
    """

    total: torch.Tensor
    parts: dict[str, torch.Tensor]
    health: Health


def prepare(
    algorithm: Algorithm,
    batch: Batch,
    credit: Credit,
    minibatch: NDArray[np.bool_] | None = None,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> LossInputs:
    """Turn a batch and its credit into the inputs of the loss.

    With several ranks each prepares the whole batch and takes its own share, so every denominator is global.

    Args:
        minibatch: (E,) which trajectories this optimizer step learns from, all by default. The tensors stay
            (N,); weights add up over the chosen tokens and no other carries loss.
        device: where the tensors go; `dtype`: of the figures, float32 by default.

    Raises:
        MissingColumnError: a penalty or token weight reads a column that no probe measured.
    """
    import torch

    kind = dtype or torch.float32

    def figure(values: NDArray[np.floating]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device=device, dtype=kind)

    def index(values: NDArray[np.integer] | NDArray[np.bool_], to: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device=device, dtype=to)

    old = batch[LOGPROB_BEFORE_UPDATE] if LOGPROB_BEFORE_UPDATE in batch else batch.logprob  # noqa: SIM401  # no dict
    keep = credit.keep_of_sample
    if minibatch is not None:
        keep = keep & minibatch[batch.trajectory_of_sample]
    turn, streams = batch.turn_of_sample, batch.stream_turn_start
    stream = expand(np.arange(len(streams) - 1), streams)[turn]
    sentence = _sentences(algorithm.ratio, batch)
    spans = Spans(
        index(turn),
        index(stream),
        batch.num_turns,
        len(streams) - 1,
        None if sentence is None else index(sentence),
        0 if sentence is None else int(sentence.max(initial=-1)) + 1,
    )
    of_sample = credit.advantage_of_sample
    average, weight = algorithm.average, algorithm.token_weight
    shares = (
        average.of_credit(batch, keep, of_sample)
        if isinstance(average, CreditAverage)
        else average(batch, keep)
    )
    factors = (
        weight.of_credit(batch, keep, _read_by(weight, algorithm, batch, credit))
        if isinstance(weight, CreditWeight)
        else weight(batch)
    )
    needs_reference = "reference_logprob" in algorithm.needs
    surrogate = algorithm.surrogate
    return LossInputs(
        old_logprob=figure(old),
        advantage=figure(of_sample),
        keep=index(keep, torch.bool),
        average=figure(shares),
        weight=figure(factors),
        spans=spans,
        turn_index=index(batch.turn_index[turn]),
        turn_indices=int(batch.turns_per_trajectory.max(initial=0)),
        reference_logprob=figure(batch[REFERENCE_LOGPROB]) if needs_reference else None,
        width=figure(surrogate.widths(batch, keep)) if isinstance(surrogate, Wide) else None,
    )


def _read_by(weight: CreditWeight, algorithm: Algorithm, batch: Batch, credit: Credit) -> NDArray[np.float64]:
    """(N,) the advantage that a token weight reads: the algorithm's, or one of its own."""
    if not isinstance(weight, Compares):
        return credit.advantage_of_sample
    own = replace(algorithm, advantage=weight.advantage, on_empty="skip")
    return own.credit(batch).advantage_of_sample


def _sentences(ratio: Ratio, batch: Batch) -> NDArray[np.int64] | None:
    """(N,) the sentence of each token, numbered over the batch, where the ratio reads them."""
    if SENTENCE not in getattr(ratio, "columns", ()):
        return None
    return number_pairs(batch.turn_of_sample, batch[SENTENCE].astype(np.int64))


def policy_loss(
    algorithm: Algorithm, inputs: LossInputs, logprob: torch.Tensor, entropy: torch.Tensor | None = None
) -> Loss:
    """Return the loss of the tokens in `inputs`, to be minimised.

    Args:
        algorithm: its ratio, surrogate and penalties are used; schedules must be resolved,
            `algorithm.at(progress)`.
        inputs: from `prepare`, or a piece of it.
        logprob: (N,) current log-probability of each token, with gradient.
        entropy: (N,) of the same forward pass, for the figures; with gradient where a penalty needs it.

    Raises:
        AlgorithmError: shapes differ, or a penalty lacks what it needs.
    """
    _check_shape("logprob", logprob, inputs)
    kept = inputs.keep.nonzero().squeeze(1)
    piece, logprob = inputs.take(kept), logprob[kept]
    if entropy is not None:
        _check_shape("entropy", entropy, inputs)
        entropy = entropy[kept]
    own_ratio = logprob - piece.old_logprob
    log_ratio = algorithm.ratio(own_ratio, piece.spans)
    surrogate = algorithm.surrogate
    if isinstance(surrogate, Situated):
        place = Place(own_ratio, piece.old_logprob, piece.spans, piece.width)
        objective = surrogate.situated(log_ratio, piece.advantage, place)
    else:
        objective = surrogate(log_ratio, piece.advantage, logprob)
    total = -(piece.average * piece.weight * objective).sum()
    parts = {"policy": total.detach()}
    read = entropy if "entropy" in algorithm.needs else None
    figures = TokenFigures(
        logprob, read, piece.reference_logprob, piece.old_logprob, piece.advantage, piece.spans
    )
    for penalty in algorithm.penalties:
        term, name = (piece.average * penalty(figures)).sum(), name_of(penalty)
        total = total + term
        parts[name] = parts[name] + term.detach() if name in parts else term.detach()
    return Loss(total, parts, _health(algorithm, piece, own_ratio.detach(), log_ratio.detach(), entropy))


def _health(
    algorithm: Algorithm,
    piece: LossInputs,
    own_ratio: torch.Tensor,
    log_ratio: torch.Tensor,
    entropy: torch.Tensor | None,
) -> Health:
    surrogate = algorithm.surrogate
    zeros = own_ratio.new_zeros(piece.turn_indices)
    clips = isinstance(surrogate, Clipping)
    clipped = surrogate.clipped(log_ratio, piece.advantage) if isinstance(surrogate, Clipping) else None
    marks = own_ratio.new_zeros(own_ratio.shape) if clipped is None else clipped.to(own_ratio.dtype)
    return Health(
        tokens=zeros.index_add(0, piece.turn_index, own_ratio.new_ones(own_ratio.shape)),
        clipped=zeros.index_add(0, piece.turn_index, marks) if clips else zeros,
        kl=k3(own_ratio).sum(),
        gap=own_ratio.abs().max() if len(own_ratio) else own_ratio.new_zeros(()),
        entropy=None if entropy is None else entropy.detach().sum(),
    )


def _check_shape(name: str, given: torch.Tensor, inputs: LossInputs) -> None:
    if given.shape != inputs.old_logprob.shape:
        raise AlgorithmError(
            f"{name} has shape {tuple(given.shape)}; expected one figure per sampled token of the piece, "
            f"{tuple(inputs.old_logprob.shape)}."
        )

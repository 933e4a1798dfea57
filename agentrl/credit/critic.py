"""Credit from a critic: generalised advantage estimation over turns, tokens, and both.

All read the column `VALUE`, the critic's figure before each sampled token. Nothing follows the last turn: a
truncated episode is not bootstrapped, because no column holds the value of its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np

from agentrl.credit.compose import Composable
from agentrl.credit.part import Number, Printed, fixed, parts_inside
from agentrl.credit.pool import sum_by
from agentrl.credit.sequence import accumulate_backward, following
from agentrl.errors import AlgorithmError
from agentrl.trajectory.batch import VALUE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]


@runtime_checkable
class Returns(Protocol):
    """An advantage slot that says what its critic should have predicted."""

    def returns(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (N,) the value to learn before each sampled token, NaN where none is asked for."""
        ...


def returns_of(advantage: object) -> Returns | None:
    """Return the part of an advantage that trains a critic, itself or one inside, or None.

    Raises:
        AlgorithmError: two different parts inside would teach it different values.
    """
    first: Returns | None = None
    for part in parts_inside(advantage):
        if isinstance(part, Returns):
            first = first or part
            if part != first:
                raise AlgorithmError(
                    f"{first!r} and {part!r} ask for different values, and a critic learns one. "
                    "Let the advantage have one part that reads a critic."
                )
    return first


@dataclass(frozen=True, repr=False)
class TurnGae(Composable, Printed):
    """GAE with the turn as the step.

    delta_t = r_t + gamma V_{t+1} - V_t, and A_t = delta_t + gamma lambda A_{t+1}.

    V_t is the value before the turn's first sampled token; a turn that sampled nothing has value 0. Source:
    turn-level PPO, arXiv 2512.17008 (from summaries).
    """

    gamma: Number = 0.99
    lam: Number = 0.9

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:  # the slot
        """Return (S,). Raises `MissingColumnError` without a critic's values."""
        gamma = fixed(self.gamma)
        value = _first_value(batch)
        delta = reward + gamma * following(batch, value, np.zeros(batch.num_trajectories)) - value
        return accumulate_backward(delta, np.full(len(delta), gamma * fixed(self.lam)), batch.turn_start)

    def returns(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (N,) advantage plus value at each turn's first sampled token."""
        target = np.full(batch.num_sampled, np.nan)
        spoken = np.diff(batch.sample_start) > 0
        target[batch.sample_start[:-1][spoken]] = (self(batch, reward, kept) + _first_value(batch))[spoken]
        return target


@dataclass(frozen=True, repr=False)
class SiblingValue(Composable, Printed):
    """The trajectory's total minus what a critic says of the *other* members of its group: POISE.

    The critic reads each trajectory along its tokens and predicts its total; the mean over the tokens is what
    it says of it. A sibling is drawn independently, so the baseline leaves the gradient unbiased although the
    critic has seen whole trajectories. A lone member is compared with the value before its first token, which
    depends on the task alone. Source: arXiv 2605.07579, from its abstract, whose probe also reads entropies.
    """

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,). Raises `MissingColumnError` without a critic's values."""
        size, row = batch.num_trajectories, batch.trajectory_of_sample
        length = np.bincount(row, minlength=size)
        said = sum_by(row, batch[VALUE].astype(np.float64), size) / np.maximum(length, 1)
        telling = (length > 0) & kept.baseline
        groups = int(batch.group.max(initial=-1)) + 1
        others = np.bincount(batch.group[telling], minlength=groups)[batch.group] - telling
        said = np.where(telling, said, 0.0)
        total = sum_by(batch.group, said, groups)[batch.group] - said
        start = batch.sample_start[batch.turn_start]
        first = np.where(length > 0, np.append(batch[VALUE], 0.0)[start[:-1]], 0.0)
        baseline = np.where(others > 0, total / np.maximum(others, 1), first)
        return np.asarray((_totals(batch, reward) - baseline)[batch.trajectory_of_turn])

    def returns(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (N,) the total of the trajectory at each of its sampled tokens."""
        return _totals(batch, reward)[batch.trajectory_of_sample]


@dataclass(frozen=True, repr=False)
class TokenGae(Composable, Printed):
    """GAE over sampled tokens that discounts `within` turns and `across` them apart.

    With `within` = 1 it is the action-level Bellman backup of POAD (arXiv 2405.15821): tokens of one action
    are not discounted against each other. The turn's reward stands at its last token; a turn that sampled
    nothing is one step of value 0, as in `TurnGae`, so its reward reaches the tokens before it.
    """

    within: Number = 1.0
    across: Number = 0.95
    lam: Number = 0.95

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,) means of turns."""
        return _turn_means(batch, self.of_tokens(batch, reward, kept))

    def of_tokens(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:  # the slot
        """Return (N,). Raises `MissingColumnError` without a critic's values."""
        steps = _steps(batch)
        value, gamma = steps.value, np.full(len(steps.value), fixed(self.within))
        gamma[steps.ends] = fixed(self.across)
        start = steps.start[batch.turn_start]
        after = np.append(value[1:], 0.0)[: len(value)]
        after[start[1:][np.diff(start) > 0] - 1] = 0.0
        delta = gamma * after - value
        delta[steps.ends] += reward
        return accumulate_backward(delta, gamma * fixed(self.lam), start)[steps.place]

    def returns(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (N,) advantage plus value."""
        return self.of_tokens(batch, reward, kept) + batch[VALUE]


@dataclass(frozen=True, repr=False)
class BiLevelGae(Composable, Printed):
    """GAE over turns, whose returns then are the rewards of a GAE over the tokens of each turn.

    Turn level: delta = r + `across` V(next boundary) - V(boundary), where a boundary is a turn's last sampled
    token, or a step of value 0 where it sampled nothing. Token level: with `within`, starting anew at each
    boundary. Source: RAGEN (mll-lab-nu/RAGEN
    `core_algos.py`). Departures: boundaries are turns, theirs are nonzero rewards, so a turn without reward
    is not lost; whitening is `whiten`, over kept tokens.
    """

    within: Number = 1.0
    across: Number = 0.95
    lam: Number = 1.0
    whiten: bool = True

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,) means of turns."""
        return _turn_means(batch, self.of_tokens(batch, reward, kept))

    def of_tokens(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (N,). Raises `MissingColumnError` without a critic's values."""
        advantage = self._advantage(batch, reward)
        return _whitened(advantage, kept.loss[batch.turn_of_sample]) if self.whiten else advantage

    def returns(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (N,) advantage, before whitening, plus value."""
        return self._advantage(batch, reward) + batch[VALUE]

    def _advantage(self, batch: Batch, reward: Floats) -> Floats:
        steps, across, lam = _steps(batch), fixed(self.across), fixed(self.lam)
        boundary = steps.value[steps.ends]
        delta = reward + across * following(batch, boundary, np.zeros(batch.num_trajectories)) - boundary
        earned = accumulate_backward(delta, across * lam, batch.turn_start) + boundary
        value, within = steps.value, fixed(self.within)
        inner = within * np.append(value[1:], 0.0)[: len(value)] - value
        inner[steps.ends] = earned - boundary
        return accumulate_backward(inner, within * lam, steps.start)[steps.place]


def _totals(batch: Batch, reward: Floats) -> Floats:
    return sum_by(batch.trajectory_of_turn, reward, batch.num_trajectories)


def _first_value(batch: Batch) -> Floats:
    value = np.append(batch[VALUE].astype(np.float64), 0.0)
    return np.where(np.diff(batch.sample_start) > 0, value[batch.sample_start[:-1]], 0.0)


@dataclass(frozen=True, eq=False)
class _Steps:
    """The sampled tokens, and one step of value 0 for each turn without any.

    Attributes:
        value: (X,) value before each step; `start`: (S+1,) offsets of the turns' steps.
        place: (N,) the step of each sampled token.
    """

    value: Floats
    start: NDArray[np.int64]
    place: NDArray[np.int64]

    @property
    def ends(self) -> NDArray[np.int64]:
        """(S,) last step of each turn."""
        return self.start[1:] - 1


def _steps(batch: Batch) -> _Steps:
    tokens = np.diff(batch.sample_start).astype(np.int64)
    start = np.append(0, np.cumsum(np.maximum(tokens, 1)))
    place = np.arange(batch.num_sampled) + (start[:-1] - batch.sample_start[:-1])[batch.turn_of_sample]
    value = np.zeros(int(start[-1]))
    value[place] = batch[VALUE]
    return _Steps(value, start, place)


def _turn_means(batch: Batch, value: Floats) -> Floats:
    count = np.maximum(np.diff(batch.sample_start), 1)
    return sum_by(batch.turn_of_sample, value, batch.num_turns) / count


def _whitened(value: Floats, keep: NDArray[np.bool_]) -> Floats:
    some = value[keep]
    if len(some) < 2:  # a deviation needs two
        return np.zeros_like(value)
    return np.asarray((value - some.mean()) / np.sqrt(some.var(ddof=1) + 1e-8))

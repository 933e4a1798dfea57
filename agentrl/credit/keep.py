"""Keep parts: which turns carry loss, and which trajectories stand in baselines. They compose with `&`.

Every filter sees the whole batch, so the order of a conjunction does not matter.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

from agentrl.credit.part import Printed
from agentrl.errors import AlgorithmError
from agentrl.trajectory.batch import KINDS
from agentrl.trajectory.turn import TurnKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Kept:
    """What a filter left.

    Attributes:
        loss: (S,) whether the turn's tokens carry loss.
        baseline: (E,) whether the trajectory counts in means and spreads.
    """

    loss: Bools
    baseline: Bools

    def __and__(self, other: Kept) -> Kept:
        """Keep what both keep."""
        return Kept(self.loss & other.loss, self.baseline & other.baseline)


class Keep(Protocol):
    """A keep slot, given the (S,) reward."""

    def __call__(self, batch: Batch, reward: Floats, /) -> Kept:
        """Return what is left."""
        ...


class Void(Protocol):
    """A predicate: (S,) whether the turn is void."""

    def __call__(self, batch: Batch, /) -> Bools:
        """Return (S,)."""
        ...


class Composable(ABC):
    """Gives a filter `&`; two plain functions are joined with `All((f, g))`."""

    @abstractmethod
    def __call__(self, batch: Batch, reward: Floats, /) -> Kept:
        """Return what is left."""

    def __and__(self, other: Keep) -> All:
        return All((*_filters(self), *_filters(other)))

    def __rand__(self, other: Keep) -> All:
        return All((*_filters(other), *_filters(self)))


@dataclass(frozen=True, repr=False)
class All(Composable, Printed):
    """Keep what every filter keeps."""

    filters: tuple[Keep, ...]

    def __call__(self, batch: Batch, reward: Floats, /) -> Kept:
        """Return what is left."""
        kept = keep_all(batch, reward)
        for keep in self.filters:
            kept &= keep(batch, reward)
        return kept


@dataclass(frozen=True)
class KeepAll(Composable):
    """Keep everything."""

    def __call__(self, batch: Batch, reward: Floats, /) -> Kept:
        """Return all turns and trajectories."""
        return Kept(np.ones(batch.num_turns, np.bool_), np.ones(batch.num_trajectories, np.bool_))


@dataclass(frozen=True)
class MixedGroups(Composable):
    """Drop groups whose episode rewards are all equal: they carry no group-relative signal.

    `tolerance` is the largest spread that still counts as equal. Source: DAPO, arXiv 2503.14476, section 3.2.
    Departure: it drops; asking for replacement groups is the rollout allocator's work.
    """

    tolerance: float = 1e-6

    def __call__(self, batch: Batch, reward: Floats, /) -> Kept:
        """Return the turns and trajectories of mixed groups."""
        total = np.bincount(batch.trajectory_of_turn, reward, batch.num_trajectories)
        size = int(batch.group.max(initial=-1)) + 1
        low, high = np.full(size, np.inf), np.full(size, -np.inf)
        np.minimum.at(low, batch.group, total)
        np.maximum.at(high, batch.group, total)
        return _trajectories(batch, (high - low)[batch.group] > self.tolerance)


@dataclass(frozen=True)
class CompleteOnly(Composable):
    """Drop truncated trajectories, from the loss and from baselines."""

    def __call__(self, batch: Batch, reward: Floats, /) -> Kept:
        """Return the trajectories that the environment ended."""
        return _trajectories(batch, ~batch.truncated)


def no_valid_action(batch: Batch, /) -> Bools:
    """(S,) whether the environment refused the turn's action."""
    return ~batch.valid


def no_parsed_action(batch: Batch, /) -> Bools:
    """(S,) whether no action could be read from the turn's text."""
    return np.asarray(batch.kind == KINDS.index(TurnKind.PARSE_ERROR))


def no_action_read(batch: Batch, /) -> Bools:
    """(S,) whether the turn gave nothing to execute: SimpleTIR's rule, for every protocol.

    Read from what the rollout recorded, and not from the text. A tool that failed or refused was called, so
    the turn is not void. A turn cut by its limit is void if nothing of it was executed.
    """
    unread = batch.kind == KINDS.index(TurnKind.PARSE_ERROR)
    cut = batch.kind == KINDS.index(TurnKind.TRUNCATED)
    return np.asarray(unread | (cut & (batch.tool_calls == 0) & ~batch.valid))


def spoofed(batch: Batch, /) -> Bools:
    """(S,) whether the turn forged tool output or role tokens."""
    return np.asarray(batch.spoofed, np.bool_)


@dataclass(frozen=True, repr=False)
class Either(Printed):
    """(S,) whether any of several predicates holds: `Either((no_action_read, spoofed))`."""

    predicates: tuple[Void, ...]

    def __call__(self, batch: Batch, /) -> Bools:
        """Return (S,)."""
        found = np.zeros(batch.num_turns, np.bool_)
        for void in self.predicates:
            found |= void(batch)
        return found


def no_code_or_answer(batch: Batch, /) -> Bools:
    r"""(S,) whether the text holds neither a closed Python block nor ``\boxed{``: SimpleTIR's void turn.

    Code that fails or prints nothing is not void. Source: ltzheng/SimpleTIR `agent_utils.py`.

    Raises:
        AlgorithmError: the batch holds no texts.
    """
    if len(batch.turn_details) != batch.num_turns:
        raise AlgorithmError("no_code_or_answer reads texts, and this batch holds none; build it with pack.")
    return np.array(
        [not (_CODE.search(turn.text) or "\\boxed{" in turn.text) for turn in batch.turn_details], np.bool_
    )


@dataclass(frozen=True, repr=False)
class NoVoid(Composable, Printed):
    """Drop void turns from the loss, or whole trajectories that contain one.

    `void` is SimpleTIR's rule by default, read from what the rollout recorded. `in_baseline` keeps a
    trajectory with a void turn in means and spreads, as SimpleTIR does (arXiv 2509.02479).
    """

    void: Void = no_action_read
    scope: Literal["trajectory", "turn"] = "trajectory"
    in_baseline: bool = True

    def __call__(self, batch: Batch, reward: Floats, /) -> Kept:
        """Return what is left without void turns."""
        void = self.void(batch)
        clean = np.bincount(batch.trajectory_of_turn, void, batch.num_trajectories) == 0
        loss = ~void if self.scope == "turn" else clean[batch.trajectory_of_turn]
        return Kept(loss, np.ones_like(clean) if self.in_baseline else clean)


def void_of(keep: Keep) -> Void:
    """Return the predicate that a filter calls a turn void by; `no_valid_action` where it has none.

    >>> void_of(NoVoid(no_parsed_action) & mixed_groups) is no_parsed_action
    True
    """
    return next((part.void for part in _filters(keep) if isinstance(part, NoVoid)), no_valid_action)


keep_all = KeepAll()
mixed_groups = MixedGroups()
complete_only = CompleteOnly()

_CODE = re.compile(r"```(?:py|python)?\n(.*?)\n```", re.DOTALL)


def _trajectories(batch: Batch, kept: Bools) -> Kept:
    return Kept(kept[batch.trajectory_of_turn], kept)


def _filters(keep: Keep) -> tuple[Keep, ...]:
    return keep.filters if isinstance(keep, All) else (keep,)

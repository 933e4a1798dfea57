"""Reward parts: what each turn earned, (S,). They compose: `environment_reward + InvalidPenalty(0.1)`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from agentrl.credit.part import Number, Printed, fixed, per_turn
from agentrl.trajectory.batch import reward_component

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]


class Reward(Protocol):
    """A reward slot: (S,) reward of each turn, before any discounting."""

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        ...


class Composable(ABC):
    """Gives a reward `+` and `*`; two plain functions are added with `Sum((f, g))`."""

    @abstractmethod
    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""

    def __add__(self, other: Reward) -> Sum:
        return Sum((*_terms(self), *_terms(other)))

    def __radd__(self, other: Reward) -> Sum:
        return Sum((*_terms(other), *_terms(self)))

    def __mul__(self, weight: Number) -> Scaled:
        return Scaled(weight, self)

    __rmul__ = __mul__


@dataclass(frozen=True, repr=False)
class Sum(Composable, Printed):
    """The sum of several rewards."""

    terms: tuple[Reward, ...]

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        turns = batch.num_turns
        return sum((per_turn(term(batch), term, turns) for term in self.terms), start=np.zeros(turns))


@dataclass(frozen=True, repr=False)
class Scaled(Composable, Printed):
    """A reward times a number."""

    weight: Number
    reward: Reward

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        return fixed(self.weight) * self.reward(batch)


@dataclass(frozen=True)
class EnvironmentReward(Composable):
    """What the environment gave at each turn."""

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        return batch.reward.astype(np.float64)


@dataclass(frozen=True)
class Component(Composable):
    """One named component of the environment's reward; the batch says which there are."""

    name: str

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,). Raises `MissingColumnError` where no turn has the component."""
        return batch[reward_component(self.name)].astype(np.float64)


@dataclass(frozen=True)
class EpisodeRewardAtEnd(Composable):
    """The episode's total at its last turn and 0 before: an outcome reward."""

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        reward = np.zeros(batch.num_turns)
        has_turns = batch.turns_per_trajectory > 0
        reward[batch.turn_start[1:][has_turns] - 1] = batch.episode_reward[has_turns]
        return reward


@dataclass(frozen=True)
class InvalidPenalty(Composable):
    """Minus `coefficient` at every turn whose action the environment refused.

    In the reward slot it flows into totals and returns like any reward. verl-agent instead lowers only the
    refused turn's own figures; write that as `PlusRow(target, InvalidPenalty(0.1))` in the advantage slot.
    """

    coefficient: Number

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        return np.where(batch.valid, 0.0, -fixed(self.coefficient))


@dataclass(frozen=True)
class ToolCost(Composable):
    """Minus `coefficient` times what the turn's tool calls cost; see `agentrl.world.terms.Terms`."""

    coefficient: Number = 1.0

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        return -fixed(self.coefficient) * batch.tool_cost.astype(np.float64)


environment_reward = EnvironmentReward()
episode_reward_at_end = EpisodeRewardAtEnd()


def _terms(reward: Reward) -> tuple[Reward, ...]:
    return reward.terms if isinstance(reward, Sum) else (reward,)

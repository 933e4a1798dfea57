"""Which trajectories are exported, and why the others are not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from agentrl.errors import ConfigError
from agentrl.interchange.conversation import digest_of
from agentrl.trajectory.turn import Invalid, Trajectory

FAILED = "failed rollouts"


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter over trajectories.

    Args:
        successes: only those that the environment calls a success.
        least_reward: only those whose sum of rewards is at least this.
        unique: of equal conversations only the first.
    """

    successes: bool = False
    least_reward: float | None = None
    unique: bool = False

    def __post_init__(self) -> None:
        if self.least_reward is not None and math.isnan(self.least_reward):
            raise ConfigError("least_reward is not a number (nan); give the smallest reward to keep.")

    @property
    def takes_all(self) -> bool:
        """Whether nothing is filtered."""
        return self == Selection()


@dataclass
class Sieve:
    """A selection at work; it remembers a digest of each conversation where they must be unique."""

    selection: Selection
    seen: set[int] = field(default_factory=set[int])

    def reason_against(self, record: Trajectory | Invalid) -> str | None:
        """Return why a record is left out, as a word of the report, or None."""
        chosen = self.selection
        if isinstance(record, Invalid):
            return None if chosen.takes_all else FAILED
        if chosen.successes and not record.success:
            return "no success"
        # A reward that is not a number is below every bound.
        if chosen.least_reward is not None and not record.reward >= chosen.least_reward:
            return "reward too low"
        if chosen.unique:
            number = digest_of(record)
            if number in self.seen:
                return "the same conversation again"
            self.seen.add(number)
        return None

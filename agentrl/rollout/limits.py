"""What bounds a rollout: turns and tokens truncate (and score), seconds are infrastructure (and do not)."""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one trajectory.

    Args:
        turns: most turns; the environment's own limit may be lower.
        turn_tokens: most sampled tokens of one turn.
        trajectory_tokens: most tokens of a stream, prompt and samples; None leaves it to the policy.
        observation_tokens: longer observations are cut in the middle; None never cuts.
        step_seconds: deadline of one `reset` or `step` of an environment that blocks, and of a policy's turn.
        trajectory_seconds: wall-clock bound of a whole trajectory; None has none (reproducible runs).
        repeats: a trajectory ends when so many turns in a row said the same of the same observation; None
            lets it go on.
    """

    turns: int = 30
    turn_tokens: int = 64
    trajectory_tokens: int | None = None
    observation_tokens: int | None = None
    step_seconds: float = 60.0
    trajectory_seconds: float | None = None
    repeats: int | None = None

    def __post_init__(self) -> None:
        for name in ("turns", "turn_tokens", "trajectory_tokens", "observation_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"limits.{name} is {value}; give a whole number of at least 1.")
        if self.repeats is not None and self.repeats < 2:  # every turn repeats itself once
            raise ConfigError(
                f"limits.repeats is {self.repeats}; give a whole number of at least 2, or None."
            )
        for name in ("step_seconds", "trajectory_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"limits.{name} is {value}; give a number of seconds above 0.")

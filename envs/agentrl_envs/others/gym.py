"""`gym:<id>`: any Gymnasium environment with discrete or text actions, as a world of texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from agentrl.errors import ConfigError, as_sentence, did_you_mean
from agentrl.world.protocol import PlainText
from agentrl_envs.others.seeded import SeededEnv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl.world.env import StepResult

Success = Literal["reward", "terminated"]
_HIGHLIGHT: Final = re.compile(r"\x1b\[4\dm(.*?)\x1b\[0m", re.DOTALL)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Words:
    """What Gymnasium says of an environment in its documentation only.

    Attributes:
        actions: a word for each discrete action.
        success: an episode succeeds if its last reward is positive, or if it ends at all.
    """

    actions: tuple[str, ...] = ()
    success: Success = "reward"


WORDS: Final[Mapping[str, Words]] = {
    "FrozenLake": Words(("left", "down", "right", "up")),
    "FrozenLake8x8": Words(("left", "down", "right", "up")),
    "CliffWalking": Words(("up", "right", "down", "left"), "terminated"),
    "CliffWalkingSlippery": Words(("up", "right", "down", "left"), "terminated"),
    "Taxi": Words(("south", "north", "east", "west", "pickup", "dropoff")),
    "Blackjack": Words(("stick", "hit")),
}
"""By name, without the version; any other environment goes by numbers, or by what the caller says."""


class GymnasiumTextEnv(SeededEnv):
    """A Gymnasium environment in words: what it renders as text, else its observation as numbers.

    A text that is no action is refused and does not reach the inner environment.

    Args:
        name: Gymnasium's id, for example "FrozenLake-v1".
        actions: a word for each discrete action; those of `WORDS`, or numbers, by default.
        success: "reward": the last reward is positive; "terminated": the episode ended by itself.
        max_steps: turns before the episode is cut, refused ones included.
        arguments: passed to `gymnasium.make`.
        render_mode: None or "ansi".

    Raises:
        ConfigError: there is no such environment, or its actions are neither discrete nor texts.
    """

    def __init__(
        self,
        name: str,
        *,
        actions: Sequence[str] = (),
        success: Success | None = None,
        max_steps: int = 100,
        arguments: Mapping[str, object] | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode)
        self.protocol = PlainText()
        self.inner = _made(name, dict(arguments or {}))
        known = WORDS.get(self.inner.spec.name if self.inner.spec else "", Words())
        self.words = _words_of(self.inner.action_space, tuple(actions) or known.actions, name)
        self.success: Success = success or known.success
        self.max_steps = max_steps
        self.name = name
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin an episode of the inner environment with the seed of the task."""
        super().reset(seed=seed, options=options)
        observation, _ = self.inner.reset(seed=self.task_seed)
        self._steps = 0
        return self._worded(observation), {"domain": "gym", "task_type": self.name}

    def step(self, action: str) -> StepResult:
        """Take an action by its word or number; text actions go through as they are."""
        self._steps += 1
        late = self._steps >= self.max_steps
        chosen = self._chosen(action.strip())
        if chosen is None:
            info: dict[str, object] = {"valid": False, **({"success": False} if late else {})}
            return f"That is no action. {self.system_text()}", 0.0, False, late, info
        observation, reward, terminated, truncated, _ = self.inner.step(chosen)
        truncated = bool(truncated) or (late and not terminated)
        info = {"valid": True}
        if terminated or truncated:
            info["success"] = bool(terminated) and (self.success == "terminated" or float(reward) > 0)
        return self._worded(observation), float(reward), bool(terminated), truncated, info

    def system_text(self) -> str:
        """Name the actions."""
        return f"Write one of: {', '.join(self.words)}." if self.words else "Write an action."

    def admissible(self) -> Sequence[str] | None:
        """Return the words of the discrete actions, by the inner environment's own mask where it has one."""
        return list(self.words) or None

    def close(self) -> None:
        """Close the inner environment."""
        self.inner.close()
        self._phase = "new"

    def _chosen(self, action: str) -> object | None:
        if isinstance(self.inner.action_space, gymnasium.spaces.Discrete):
            return self.words.get(action.lower())
        return action if self.inner.action_space.contains(action) else None

    def _worded(self, observation: object) -> str:
        drawn = self.inner.render() if self.inner.render_mode == "ansi" else None
        return plain(drawn) if isinstance(drawn, str) else described(observation)


def plain(drawn: str) -> str:
    r"""Return a drawing for terminals as plain text; what stands on a coloured ground is put in brackets.

    >>> plain("S\x1b[41mF\x1b[0mH")
    'S[F]H'
    """
    return _COLOUR.sub("", _HIGHLIGHT.sub(r"[\1]", drawn)).strip()


def described(observation: object) -> str:
    """Return an observation that is no text in words.

    >>> described((14, np.int64(10), False)), described({"place": np.array([1.0, 2.5])})
    ('(14, 10, False)', 'place: [1, 2.5]')
    """
    if isinstance(observation, str):
        return observation
    if isinstance(observation, dict):
        return "\n".join(f"{name}: {described(value)}" for name, value in observation.items())
    if isinstance(observation, tuple):
        return f"({', '.join(described(value) for value in observation)})"
    if isinstance(observation, np.ndarray):
        return np.array2string(
            observation, precision=4, separator=", ", formatter={"float_kind": "{:g}".format}
        )
    return str(observation)


def _made(name: str, arguments: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """Make an environment, drawing as text where it can."""
    try:
        if "ansi" in _modes(name):
            arguments.setdefault("render_mode", "ansi")
        return gymnasium.make(name, disable_env_checker=True, **arguments)
    except gymnasium.error.Error as error:
        said = as_sentence(error)
        near = "" if "Did you mean" in said else did_you_mean(name, list(gymnasium.registry))
        raise ConfigError(f"Gymnasium has no environment {name!r}: {said}{near}") from error


def _modes(name: str) -> Sequence[str]:
    """Return the render modes of an environment's class, which is imported for that."""
    point = gymnasium.spec(name).entry_point
    found = load_env_creator(point) if isinstance(point, str) else point
    return tuple(getattr(found, "metadata", {}).get("render_modes", ()))


def _words_of(space: gymnasium.Space[Any], words: tuple[str, ...], name: str) -> dict[str, int]:
    if isinstance(space, gymnasium.spaces.Text):
        return {}
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise ConfigError(
            f"the actions of {name!r} are {space}; a world of texts needs discrete or text actions."
        )
    numbers = range(int(space.start), int(space.start) + int(space.n))
    if words and len(words) != len(numbers):
        raise ConfigError(f"{name!r} has {len(numbers)} actions; got {len(words)} words: {', '.join(words)}.")
    return dict(zip(words or map(str, numbers), numbers, strict=True))

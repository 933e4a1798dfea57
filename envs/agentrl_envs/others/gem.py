"""`gem:<id>`: the games and puzzles of GEM."""

from __future__ import annotations

import copy
import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar, Final

from agentrl.errors import ConfigError, MissingExtraError, did_you_mean
from agentrl.world.protocol import PlainText
from agentrl_envs.others.guests import Chance, Pristine, made
from agentrl_envs.others.seeded import SeededEnv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentrl.world.env import StepResult

OVER: Final = "The episode is over."
_BY_HAND: Final = "and, because its own pins cannot be met, python -m pip install --no-deps gem-llm==0.1.0"
_ALMOST: Final = 1e-6
"""Rewards of a game add up to 1 by fractions."""


class GemEnv(SeededEnv):
    """An environment of GEM.

    Rewards are GEM's own, in most games shares of progress that add up to 1, and -0.1 for a text without a
    move, which ends the episode. What GEM hands over as "suffix" (the board, in many games) belongs to the
    observation. GEM says "truncated" beside "terminated" when a game's own turn limit is reached; here that
    is its end. `max_steps` cuts an episode.

    Args:
        name: GEM's id, for example "game:Mastermind-v0-easy" or "rg:countdown".
        success: smallest sum of an episode's rewards that is a success.
        max_steps: turns before the episode is cut.
        settings: passed to the environment, for example `{"max_turns": 5}`.
        render_mode: None or "ansi".

    Raises:
        MissingExtraError: GEM or what it needs is not installed.
        ConfigError: there is no such environment, or it cannot be made here, or it would execute a model's
            program outside of a jail.
    """

    blocks: ClassVar[bool] = True  # type: ignore[misc]  # of the class: some games search long for a puzzle

    def __init__(
        self,
        name: str,
        *,
        success: float = 1.0,
        max_steps: int = 200,
        settings: Mapping[str, object] | None = None,
        render_mode: str | None = None,
    ) -> None:
        for package in ("gem", "reasoning_gym"):
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError("gem:", "gem", _BY_HAND)
        super().__init__(render_mode=render_mode)
        self.protocol = PlainText()
        self.name, self.success, self.max_steps = name, success, max_steps
        self._chance = Chance()
        what = f"GEM's environment {name!r}"
        self.inner = made(what, lambda: _environment(name, dict(settings or {})), self._chance)
        self._pristine = Pristine(copy.deepcopy(self.inner))
        self._steps, self._sum = 0, 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin an episode with the seed of the task."""
        super().reset(seed=seed, options=options)
        self._steps, self._sum = 0, 0.0
        self.inner = self._pristine.copy()
        with self._chance.at_work():
            observation, info = self.inner.reset(seed=self.task_seed)
        return _told(observation, info), {"domain": "gem", "task_type": self.name}

    def step(self, action: str) -> StepResult:
        r"""Take an action, as GEM reads it: what stands in the last \boxed{...}."""
        self._steps += 1
        with self._chance.at_work():
            observation, given, terminated, truncated, inner = self.inner.step(action)
        reward = float(given)
        self._sum += reward
        over = bool(terminated) or bool(truncated)
        late = self._steps >= self.max_steps and not over
        info: dict[str, object] = {"valid": not (over and reward == _format_error())}
        if over or late:
            info["success"] = over and self._sum >= self.success - _ALMOST
        ended = bool(terminated)
        return _told(observation, {} if over else inner), reward, ended, late or (over and not ended), info


def _environment(name: str, settings: dict[str, Any]) -> Any:  # noqa: ANN401  # an untyped package's object
    import gem.envs  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]  # it fills the registry
    from gem.envs.registration import ENV_REGISTRY, make  # pyright: ignore[reportMissingImports]  # as above

    if name not in ENV_REGISTRY:
        raise ConfigError(f"GEM has no environment {name!r}.{did_you_mean(name, ENV_REGISTRY)}")
    if "code_env" in str(ENV_REGISTRY[name].entry_point):
        raise ConfigError(
            f"{name!r} executes a model's programs outside of a jail; agentrl/Code-v0 does it inside."
        )
    return make(name, **settings)


def _format_error() -> float:
    from gem.utils.constants import LanguageGameReward  # pyright: ignore[reportMissingImports]  # as above

    return float(LanguageGameReward.format_error_reward)


def _told(observation: object, info: Mapping[str, object]) -> str:
    from gem.utils.constants import TERMINAL_STATE  # pyright: ignore[reportMissingImports]  # as above

    text = OVER if observation == TERMINAL_STATE else str(observation).rstrip("\n")
    suffix = info.get("suffix")
    return f"{text}\n{suffix}" if suffix else text

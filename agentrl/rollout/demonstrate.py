"""Expert episodes with disturbances, for supervised warm starts.

Now and then a random command is executed instead of the expert's, so that errors and recovery are seen; only
the expert's own turns are imitated.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from agentrl.errors import AgentrlError, EnvironmentFault, EnvironmentUsageError, RolloutError
from agentrl.rollout.deadline import Late
from agentrl.rollout.easy import default_protocol
from agentrl.rollout.stage import StageFailure, failure_of, hook_failure, told
from agentrl.rollout.text import rendered
from agentrl.rollout.typed import reset_result, step_result
from agentrl.trajectory import InvalidReason
from agentrl.world.closing import RAISED
from agentrl.world.deadline import within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentrl.world.env import Expert, StepResult, TextEnv
    from agentrl.world.protocol import Protocol

Given = TypeVar("Given")

DRAWS = 6
"""How often the disturbances of a task are drawn before it counts as unsolvable."""


@dataclass(frozen=True, slots=True)
class DemonstratedTurn:
    """One turn: what was read, what was executed, and whether it is to be imitated.

    Attributes:
        observation: as the environment gave it.
        results: of each call of the turn before, where it had several.
    """

    observation: str
    action: str
    learn: bool
    results: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One solved episode.

    Attributes:
        system: what is told before it; `schemas`: of the tools that a chat template lists itself.
    """

    task: str
    system: str
    turns: tuple[DemonstratedTurn, ...]
    protocol: Protocol
    schemas: tuple[Mapping[str, object], ...] = ()

    def shown(self, index: int, cut: Callable[[str, int], str] | None = None) -> str:
        """Return the observation of a turn as a rollout writes it; the first one has no markup.

        Args:
            cut: see `agentrl.rollout.text.rendered`.
        """
        turn = self.turns[index]
        if index:
            return rendered(self.protocol, turn.observation, turn.results, cut=cut)
        return turn.observation if cut is None else cut(turn.observation, 1)


def demonstrate(  # what is played, by whom, and how it is written
    env: TextEnv,
    split: str,
    indices: Sequence[int],
    *,
    noise: float,
    seed: int,
    max_turns: int = 200,
    protocol: Protocol | None = None,
    step_seconds: float = 60.0,
) -> list[Demonstration]:
    """Let the environment's own expert solve each task while random commands are executed in between.

    An episode in which the environment fails is played once more; it has a fault if it fails again.

    Args:
        noise: probability that a turn is disturbed: the world's own `disturbance` is executed, an admissible
            command where it has none.
        seed: with a task's index it fixes that task's disturbances. Where they keep the expert from the goal,
            they are drawn again, up to `DRAWS` times in all.
        protocol: how the expert writes its turns; the environment's default (`default_protocol`) otherwise.
        step_seconds: deadline of one `reset` or `step` of an environment that blocks.

    Raises:
        RolloutError: the environment has no expert, its expert did not solve a task, or it failed.
    """
    env.protocol = (protocol or default_protocol(env)).for_tools(env.toolbox.tools)
    env.step_seconds = step_seconds
    return [_Lesson(env, split, index, noise, seed, max_turns).demonstration() for index in indices]


@dataclass(frozen=True, slots=True)
class _Lesson:
    """One task, and how it is played."""

    env: TextEnv
    split: str
    index: int
    noise: float
    seed: int
    max_turns: int

    def demonstration(self) -> Demonstration:
        """Play until the expert has solved the task."""
        draws = DRAWS if self.noise else 1
        for draw in range(draws):
            found = self._played(draw)
            if found is not None:
                return found
        tried = f", in {draws} draws of its disturbances. Lower warm_start.noise, now {self.noise}"
        raise RolloutError(
            f"the expert of {type(self.env).__name__} did not solve {self._task} in {self.max_turns} turns"
            f"{f'{tried}, or mend' if self.noise else '. Mend'} the expert."
        )

    @property
    def _task(self) -> str:
        return f"{self.split}/{self.index}"

    def _played(self, draw: int) -> Demonstration | None:
        """One draw, played anew if the environment failed by chance; what hangs may still hold it."""
        turns: list[DemonstratedTurn] = []
        try:
            try:
                return self._solve(draw, turns)
            except StageFailure as failure:
                if failure.reason is InvalidReason.WALL_CLOCK:
                    raise
            turns.clear()
            return self._solve(draw, turns)
        except StageFailure as failure:
            episode = f"the expert's episode of {type(self.env).__name__} on {self._task}"
            raise RolloutError(told(episode, len(turns), failure.reason, failure.detail)) from failure

    def _solve(self, draw: int, turns: list[DemonstratedTurn]) -> Demonstration | None:
        env, again = self.env, f"#{draw}" if draw else ""
        rng = random.Random(f"{self.seed}:{self._task}{again}")
        options: dict[str, object] = {"split": self.split, "index": self.index}
        observation = self._call(lambda: reset_result(env.reset(seed=self.index, options=options)))
        expert = _expert(env, observation)
        results: tuple[str, ...] = ()
        for _ in range(self.max_turns):
            learn = rng.random() >= self.noise
            action = _text("act", expert.act) if learn else _text("disturbance", lambda: _disturb(env, rng))
            shown = observation, action, learn, results
            observation, _, terminated, truncated, info = self._step(action)
            turns.append(DemonstratedTurn(*shown))
            results = cast("tuple[str, ...]", info.get("results", ()))
            _hook("observe", functools.partial(expert.observe, action, observation))
            if terminated and info.get("success", True):
                schemas = env.protocol.schemas(env.toolbox.tools)
                system = _hook("system_text", env.system_text)
                return Demonstration(self._task, system, tuple(turns), env.protocol, schemas)
            if terminated or truncated:
                break
        return None

    def _step(self, action: str) -> StepResult:
        return self._call(lambda: step_result(self.env.step(action)))

    def _call(self, call: Callable[[], Given]) -> Given:
        """Call the environment as a rollout does: with a deadline if it blocks; its faults are its own."""
        try:
            if not self.env.blocks:
                return call()
            return within(call, self.env.step_seconds, type(self.env).__name__, late=Late)
        except RAISED as error:
            if _is_ours(error):
                raise
            raise failure_of(error, InvalidReason.ENVIRONMENT_ERROR, self.env.step_seconds) from error


def _expert(env: TextEnv, observation: str) -> Expert:
    expert = _hook("expert", lambda: env.expert(observation))
    if expert is None:
        raise RolloutError(
            f"{type(env).__name__} has no expert, so there is nothing to imitate. Define expert() on it, "
            "or set warm_start.demonstrations = 0 and start from a trained model."
        )
    if not all(callable(getattr(expert, name, None)) for name in ("act", "observe")):
        raise hook_failure(
            "expert", TypeError(f"{expert!r} is no player; return an object with act() and observe()")
        )
    return expert


def _hook(name: str, call: Callable[[], Given]) -> Given:
    try:
        return call()
    except RAISED as error:
        if _is_ours(error):
            raise
        raise hook_failure(name, error) from error


def _text(name: str, call: Callable[[], str]) -> str:
    text: object = _hook(name, call)
    if not isinstance(text, str):
        raise hook_failure(name, TypeError(f"it returned {text!r}; return a text"))
    return text


def _is_ours(error: BaseException) -> bool:
    """Whether the error is a sentence with its own repair, such as a package to install."""
    return isinstance(error, AgentrlError) and not isinstance(error, EnvironmentFault | EnvironmentUsageError)


def _disturb(env: TextEnv, rng: random.Random) -> str:
    command = env.disturbance(rng)
    return command if command is not None else rng.choice(env.admissible() or ("look",))

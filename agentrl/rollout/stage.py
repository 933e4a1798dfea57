"""An environment on stage: deadlines, faults and replay around `reset` and `step`.

An exception in an environment is never the agent's reward. The same actions are replayed once in a fresh
environment; if they fail again the environment has a bug on these actions (`environment_error`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from agentrl.errors import EnvironmentFault, RolloutError, as_sentence
from agentrl.rollout.deadline import Late, in_thread, within
from agentrl.rollout.typed import reset_result, step_result
from agentrl.trajectory import InvalidReason, digest
from agentrl.world.closing import RAISED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence

    from agentrl.rollout.assignment import Assignment
    from agentrl.world.asynchronous import AsyncTextEnv
    from agentrl.world.env import Expert, StepResult, TextEnv
    from agentrl.world.protocol import Parsed, Protocol
    from agentrl.world.terms import Terms
    from agentrl.world.toolbox import Toolbox

AnyEnv: TypeAlias = "TextEnv | AsyncTextEnv"
Keys: TypeAlias = tuple[int | None, int | None]
Hook = TypeVar("Hook")


class StageFailure(Exception):  # control flow inside the rollout, never shown
    """The environment or the policy cannot go on with this trajectory."""

    def __init__(self, reason: InvalidReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Course:
    """How an environment came to where it stood before each turn, so that another one can be brought there.

    Attributes:
        actions: (turn, action) as executed; `seen`: the first observation and that after each action.
        marks: snapshots by turn, of worlds that gave one.
    """

    actions: tuple[tuple[int, str], ...]
    seen: tuple[str, ...]
    marks: Mapping[int, object]


@dataclass
class Stage:
    """One environment instance for one trajectory.

    Args:
        make: builds a fresh environment; `env`: a used one that may be reset, if there is one.
        protocol: made to measure for the environment's tools by `open`.
        seconds: deadline of one call of an environment that blocks or is asynchronous.
        terms: budgets and costs of the environment's tools.
        marks: snapshots taken by `mark`, by turn.
    """

    make: Callable[[], AnyEnv]
    assignment: Assignment
    protocol: Protocol
    seconds: float
    env: AnyEnv | None = None
    terms: Mapping[str, Terms] = field(default_factory=dict[str, "Terms"])
    actions: list[tuple[int, str]] = field(default_factory=list["tuple[int, str]"])
    seen: list[str] = field(default_factory=list[str])
    replays: int = 0
    marks: dict[int, object] = field(default_factory=dict[int, object])

    async def open(self) -> str:
        """Reset to the assigned task and return the first observation."""
        try:
            observation = await self._reset()
        except RAISED as error:  # any exception of a world is contained here
            await self._begin_again(error)
            try:
                observation = await self._reset()
            except RAISED as second:
                raise await self._broken(second) from second
        self.seen.append(observation)
        return observation

    async def expert_texts(self, most: int) -> list[str]:
        """What the environment's expert writes on this task, played to its end; `open` begins the task anew.

        Raises:
            RolloutError: the environment has no expert.
        """
        observation = await self.open()
        expert = self.expert(observation)
        if expert is None:
            raise RolloutError(
                f"hints are played by the environment's expert, and {type(self.env).__name__} has none. "
                "Define expert() on it, or plan without a hint."
            )
        texts: list[str] = []
        done = False
        while not done and len(texts) < most:
            texts.append(self._hook("expert", expert.act))
            reply, _, terminated, truncated, _ = await self.act(
                len(texts) - 1, self.protocol.parse(texts[-1]).text
            )
            expert.observe(texts[-1], reply)
            done = terminated or truncated
        self._forget()
        return texts

    def _forget(self) -> None:
        self.actions, self.seen, self.marks = [], [], {}
        toolbox = _toolbox(self.env)
        if toolbox is not None:
            toolbox.forget(self.assignment.id)

    async def resume(self, course: Course, turn: int) -> None:
        """Bring the environment to where another one stood before `turn`: by its snapshot, else by replay."""
        self.actions = [done for done in course.actions if done[0] < turn]
        self.seen = list(course.seen[: len(self.actions) + 1])
        if turn in course.marks:
            try:
                await self._restore(course.marks[turn])
            except RAISED as error:  # any exception of a world is contained here
                await self._begin_again(error)
            else:
                return
        await self._replay()

    async def mark(self, turn: int) -> None:
        """Keep a snapshot of the state before `turn`. Without one, actions are replayed."""
        snapshot = getattr(self.env, "snapshot", None)
        if self.env is not None and snapshot is not None:
            with contextlib.suppress(*RAISED):
                taken = await self._await(self.env, snapshot)
                if taken is not None:
                    self.marks[turn] = taken

    @property
    def course(self) -> Course:
        """What was executed and seen so far."""
        return Course(tuple(self.actions), tuple(self.seen), self.marks)

    async def act(self, turn: int, action: str, parsed: Parsed | None = None) -> StepResult:
        """Execute the action of a turn; after a failure replay the episode once in a fresh environment.

        Args:
            parsed: what `protocol` reads in the action, where that is known.
        """
        try:
            result = await self._step(turn, action, parsed)
        except RAISED as error:  # any exception of a world is contained here
            await self._begin_again(error)
            await self._replay()
            try:
                result = await self._step(turn, action)
            except RAISED as second:
                raise await self._broken(second) from second
        self.actions.append((turn, action))
        self.seen.append(result[0])
        return result

    def system_text(self) -> str:
        """What the agent is told before the first observation."""
        return "" if self.env is None else self._hook("system_text", self.env.system_text)

    def schemas(self) -> tuple[Mapping[str, object], ...]:
        """The tools' JSON schemas, where the protocol leaves the calls to the policy's server."""
        toolbox = _toolbox(self.env)
        return () if toolbox is None else self.protocol.schemas(toolbox.tools)

    def gold(self) -> str | None:
        """The task's reference answer, for probes, or None."""
        return None if self.env is None else self._hook("gold", self.env.gold)

    def admissible(self) -> Sequence[str] | None:
        """The environment's admissible commands, or None."""
        return None if self.env is None else self._hook("admissible", self.env.admissible)

    def expert(self, observation: str) -> Expert | None:
        """The environment's own player of this episode, or None."""
        begin = getattr(self.env, "expert", None)
        if begin is None:
            return None
        return self._hook("expert", lambda: cast("Expert | None", begin(observation)))

    def keys(self) -> Keys:
        """Digests of what the agent has seen and of the true state."""
        env = self.env
        if env is None:
            return (None, None)
        return self._key("observation_key", env.observation_key), self._key("state_key", env.state_key)

    def retire(self) -> AnyEnv | None:
        """Give the environment away for another trajectory; this one's tool calls are forgotten."""
        env, self.env = self.env, None
        toolbox = _toolbox(env)
        if toolbox is not None:
            toolbox.forget(self.assignment.id)
        return env

    async def close(self) -> None:
        """Drop the environment; its own failure to close is not the trajectory's."""
        env, self.env = self.env, None
        if env is not None:
            with contextlib.suppress(*RAISED):
                await self._await(env, env.close)

    def _prepared(self) -> AnyEnv:
        env = self.env = self.env if self.env is not None else self.make()
        toolbox = _toolbox(env)
        if toolbox is not None:
            self.protocol = self.protocol.for_tools(toolbox.tools)
        env.protocol = self.protocol
        env.terms = self.terms
        env.step_seconds = self.seconds
        return env

    async def _restore(self, state: object) -> None:
        env = self._prepared()
        restore: Callable[[object], object] = env.restore  # type: ignore[union-attr]  # it gave the snapshot
        await self._await(env, functools.partial(restore, state))

    async def _reset(self) -> str:
        env = self._prepared()
        options: dict[str, object] = {"split": self.assignment.split, "index": self.assignment.index}
        reset = functools.partial(env.reset, seed=self.assignment.seed, options=options)
        return reset_result(await self._await(env, reset))

    async def _step(self, turn: int, action: str, parsed: Parsed | None = None) -> StepResult:
        env = self.env
        if env is None:
            raise RuntimeError("act() comes after open()")  # a defect of the caller
        env.turn_key = (self.assignment.id, turn)
        env.reading = None if parsed is None else (self.protocol, action, parsed)
        if _waits(env):
            return step_result(await self._await(env, functools.partial(env.step, action)))
        return step_result(env.step(action))

    async def _begin_again(self, error: BaseException) -> None:
        """Drop the environment that failed; refuse where a replay has been spent already."""
        await self.close()
        if self.replays:
            # The replay went well, so these actions do not fail by themselves: the world is unsteady.
            raise self._failure(error, InvalidReason.ENVIRONMENT_FAULT) from error
        self.replays += 1

    async def _replay(self) -> None:
        try:
            seen = [await self._reset()]
            for turn, action in self.actions:
                seen.append((await self._step(turn, action))[0])
        except RAISED as error:
            await self.close()
            raise self._failure(error, InvalidReason.ENVIRONMENT_FAULT) from error
        if seen != self.seen:
            await self.close()
            place = next(k for k, (new, old) in enumerate(zip(seen, self.seen, strict=True)) if new != old)
            raise StageFailure(
                InvalidReason.ENVIRONMENT_ERROR,
                "the environment is not deterministic: replayed with the same seed and actions, "
                f"observation {place} was {seen[place][:80]!r} instead of {self.seen[place][:80]!r}. "
                "Draw from env.rng only.",
            )

    async def _broken(self, error: BaseException) -> StageFailure:
        await self.close()
        return self._failure(error, InvalidReason.ENVIRONMENT_ERROR)

    def _failure(self, error: BaseException, otherwise: InvalidReason) -> StageFailure:
        return failure_of(error, otherwise, self.seconds)

    def _hook(self, name: str, call: Callable[[], Hook]) -> Hook:
        try:
            return call()
        except RAISED as error:
            raise hook_failure(name, error) from error

    def _key(self, name: str, read: Callable[[], Hashable | None]) -> int | None:
        """Digest of a key; asked for in every turn, so without the closure that `_hook` would need."""
        try:
            key = read()
            return None if key is None else digest(key)
        except RAISED as error:
            raise hook_failure(name, error) from error

    async def _await(self, env: AnyEnv, call: Callable[[], object]) -> object:
        """Call a method under the deadline that the environment's kind allows."""
        if not _waits(env):
            return call()
        work = call() if _is_async(env) else in_thread(call)
        if not inspect.isawaitable(work):
            return work
        return await within(_kept(work), self.seconds)


async def _kept(work: Awaitable[object]) -> object:
    """Do as `work`, but a task that raises `SystemExit` would end the event loop."""
    try:
        return await work
    except SystemExit as error:
        raise RuntimeError(f"the environment raised SystemExit({error})") from error


def _is_async(env: AnyEnv) -> bool:
    return bool(getattr(env, "is_async", False))


def _waits(env: AnyEnv) -> bool:
    return env.blocks or _is_async(env)


def _toolbox(env: AnyEnv | None) -> Toolbox | None:
    return cast("Toolbox | None", getattr(env, "toolbox", None))


def failure_of(error: BaseException, otherwise: InvalidReason, seconds: float) -> StageFailure:
    """Return what an exception of `reset` or `step` means; `seconds` was the deadline of the call."""
    if isinstance(error, Late):
        return StageFailure(InvalidReason.WALL_CLOCK, f"a call took longer than {seconds:g} s")
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, EnvironmentFault):
        return StageFailure(InvalidReason.ENVIRONMENT_FAULT, detail)
    return StageFailure(otherwise, detail)


def hook_failure(name: str, error: BaseException) -> StageFailure:
    """Return the failure of a hook, which names it."""
    detail = f"{name}() raised {type(error).__name__}: {error}"
    return StageFailure(InvalidReason.ENVIRONMENT_ERROR, detail)


def told(episode: str, turns: int, reason: InvalidReason, detail: str) -> str:
    """Return the sentence that stops a run whose environment failed before anything was spent."""
    return (
        f"{episode} failed after {turns} turns ({reason.value}): {as_sentence(detail)} "
        "Repair the environment and run again; `agentrl envs check` finds the common causes."
    )

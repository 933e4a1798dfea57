"""The sessions behind the server: one environment each, every action executed once, nothing kept for ever."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from agentrl.errors import AgentrlError, EnvironmentFault, EnvironmentUsageError
from agentrl.rollout.deadline import Late, in_thread, within
from agentrl.rollout.typed import reset_result, step_result
from agentrl.trajectory import digest
from agentrl.world.remote import info_to_plain, protocol_from_plain, protocol_to_plain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence

    from agentrl.world.env import StepResult, TextEnv

Plain: TypeAlias = "dict[str, object]"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """Bounds of a server.

    Attributes:
        sessions: most sessions at the same time.
        idle_seconds: a session that nobody touches for so long is closed.
        step_seconds: deadline of one call of the environment.
        action_characters: longest action.
    """

    sessions: int = 256
    idle_seconds: float = 600.0
    step_seconds: float = 60.0
    action_characters: int = 200_000


class Refused(Exception):  # becomes a status of HTTP, with the sentence as its body
    """A call that the server does not execute."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass
class Session:
    """One episode at a time, and the answer to its last turn, for a client that asks again."""

    env: TextEnv
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    turn: int = 0
    answer: Plain = field(default_factory=dict[str, object])
    touched: float = field(default_factory=time.monotonic)


class Sessions:
    """Every session of a server.

    Args:
        make: makes an environment.
        privileged: whether clients may read the true state's key, the gold answer and admissible commands.
    """

    def __init__(
        self, make: Callable[[], TextEnv], limits: ServeLimits | None = None, *, privileged: bool = False
    ) -> None:
        self.make = make
        self.limits = limits or ServeLimits()
        self.privileged = privileged
        self._open: dict[str, Session] = {}
        first = make()
        self._idle = [first]
        self._protocol = first.default_protocol()

    def __len__(self) -> int:
        return len(self._open)

    def about(self) -> Plain:
        """What the world is: splits and their sizes, its protocol, what the server allows."""
        env = self._idle.pop() if self._idle else self.make()
        self._idle.append(env)
        return {
            "world": type(env).__name__,
            "splits": {split: env.num_tasks(split) for split in env.list_splits()},
            "protocol": protocol_to_plain(self._protocol),
            "privileged": self.privileged,
            "sessions": len(self),
            "most_sessions": self.limits.sessions,
        }

    async def open(
        self, split: str | None, index: int | None, seed: int | None, protocol: Mapping[str, object] | None
    ) -> Plain:
        """Begin an episode in a new session.

        Raises:
            Refused: 503 where all sessions are taken, 422 for a task or a protocol that does not exist, 504
                after the deadline.
        """
        await self.sweep()
        if len(self) >= self.limits.sessions:
            raise Refused(
                503, f"all {self.limits.sessions} sessions are taken; close one, or try again later"
            )
        identifier = secrets.token_urlsafe(12)
        session = Session(self._idle.pop() if self._idle else self.make())
        self._open[identifier] = session
        options: dict[str, object] = {
            name: value for name, value in (("split", split), ("index", index)) if value is not None
        }
        try:
            env = session.env
            wanted = self._protocol if protocol is None else protocol_from_plain(protocol)
            env.protocol = wanted.for_tools(env.toolbox.tools)
            env.step_seconds = self.limits.step_seconds
            reset = functools.partial(env.reset, seed=seed, options=options)
            value = await self._await(env, reset)
            session.answer = self._seen(session, reset_result(value)) | {
                "system_text": env.system_text(),
                "task": {"split": env.task.split, "index": env.task.index, "type": env.task.type},
            }
        except EnvironmentUsageError as error:
            await self.close(identifier)
            raise Refused(422, str(error)) from error
        except Exception as error:  # noqa: BLE001  # a world's own failure is told to the client
            self._open.pop(identifier, None)
            return {"failed": _sentence(error), "fault": isinstance(error, EnvironmentFault | Late)}
        return {"session": identifier, **session.answer}

    async def step(self, identifier: str, turn: int, action: str) -> Plain:
        """Execute the action of a turn, or give the answer again where it was executed already.

        Raises:
            Refused: 404 for a session that is not open, 409 for a turn out of order, 413 for a long action.
        """
        session = self._session(identifier)
        if len(action) > self.limits.action_characters:
            raise Refused(
                413,
                f"the action has {len(action)} characters; at most {self.limits.action_characters} are read",
            )
        async with session.lock:
            if turn == session.turn - 1:
                return session.answer
            if turn != session.turn:
                raise Refused(409, f"turn {turn} is out of order; the session's next turn is {session.turn}")
            session.answer = await self._act(identifier, session, action)
            session.turn += 1
            return session.answer

    async def _act(self, identifier: str, session: Session, action: str) -> Plain:
        session.env.turn_key = (identifier, session.turn)
        try:
            value = await self._await(session.env, functools.partial(session.env.step, action))
            result = step_result(value)
        except EnvironmentUsageError as error:
            raise Refused(409, str(error)) from error
        except Exception as error:  # noqa: BLE001  # a world's own failure is told to the client
            self._open.pop(identifier, None)
            return {"failed": _sentence(error), "fault": isinstance(error, EnvironmentFault | Late)}
        return self._stepped(session, result)

    def _stepped(self, session: Session, result: StepResult) -> Plain:
        observation, reward, terminated, truncated, info = result
        return self._seen(session, observation) | {
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
            "info": info_to_plain(info),
        }

    def _seen(self, session: Session, observation: str) -> Plain:
        env = session.env
        session.touched = time.monotonic()
        seen: Plain = {"observation": observation, "observation_key": _digest(env.observation_key())}
        if self.privileged:
            commands = env.admissible()
            seen |= {
                "state_key": _digest(env.state_key()),
                "gold": env.gold(),
                "admissible": None if commands is None else list(commands),
            }
        return seen

    async def close(self, identifier: str) -> None:
        """Close a session; its environment serves the next one. A session that is not open is no error."""
        session = self._open.pop(identifier, None)
        if session is None:
            return
        session.env.toolbox.forget(identifier)
        self._idle.append(session.env)

    async def sweep(self) -> None:
        """Close what nobody has touched for a while."""
        oldest = time.monotonic() - self.limits.idle_seconds
        for identifier in [name for name, session in self._open.items() if session.touched < oldest]:
            await self.close(identifier)

    async def aclose(self) -> None:
        """Close every session and environment."""
        for identifier in list(self._open):
            await self.close(identifier)
        while self._idle:
            with contextlib.suppress(Exception):  # a world that cannot close must not keep the server alive
                self._idle.pop().close()

    def _session(self, identifier: str) -> Session:
        session = self._open.get(identifier)
        if session is None:
            raise Refused(
                404,
                f"there is no session {identifier!r}; it was closed, or idle for "
                f"{self.limits.idle_seconds:g} s",
            )
        return session

    async def _await(self, env: TextEnv, call: Callable[[], T]) -> T:
        if not env.blocks:
            return call()
        work: Awaitable[T] = in_thread(call)
        return await within(work, self.limits.step_seconds)


async def step_all(sessions: Sessions, calls: Sequence[tuple[str, int, str]]) -> list[Plain]:
    """Step many sessions at once; what is refused stands in its place as a sentence with its status."""

    async def one(identifier: str, turn: int, action: str) -> Plain:
        try:
            return await sessions.step(identifier, turn, action)
        except Refused as refused:
            return {"refused": str(refused), "status": refused.status}

    return list(await asyncio.gather(*(one(*call) for call in calls)))


def _digest(key: Hashable | None) -> int | None:
    return None if key is None else digest(key)


def _sentence(error: Exception) -> str:
    if isinstance(error, Late):
        return "the environment took longer than the server's deadline"
    return str(error) if isinstance(error, AgentrlError) else f"{type(error).__name__}: {error}"

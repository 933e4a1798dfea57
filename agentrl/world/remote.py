"""A world on another machine: the client of `agentrl serve`, an environment like any other.

It is `TextEnv` with `blocks = True`, so rollouts call it in threads under their deadlines. All its calls go
through one event loop in a thread of its own, which keeps the connections of every environment of a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import threading
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import msgspec

from agentrl.errors import (
    ConfigError,
    EnvironmentFault,
    EnvironmentUsageError,
    ServerRefused,
    ServerUnavailable,
)
from agentrl.http import Patience, Servers
from agentrl.trajectory import ToolCall, TurnKind
from agentrl.world import protocol as protocols
from agentrl.world.env import Task, TextEnv

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from agentrl.http import Answer
    from agentrl.world.env import StepResult
    from agentrl.world.protocol import Protocol

INFO = ("success", "valid", "rewards", "metrics", "measures", "results", "domain", "task_type")
"""What crosses from `info`, besides the kind of the turn and its tool calls."""

_KINDS: tuple[type[Protocol], ...] = (
    protocols.PlainText, protocols.Tags, protocols.Fenced, protocols.JsonCalls, protocols.NativeCalls,
)  # fmt: skip


def protocol_to_plain(protocol: Protocol) -> dict[str, object]:
    """Return a protocol of ours as plain values. Raises `ConfigError` for one of the user's own."""
    if type(protocol) not in _KINDS:
        raise ConfigError(
            f"the protocol {type(protocol).__name__} cannot be sent to a server; use one of "
            f"{', '.join(kind.__name__ for kind in _KINDS)}."
        )
    fields = cast("dict[str, object]", dataclasses.asdict(protocol))  # type: ignore[call-overload]  # each kind is a dataclass
    return {"kind": type(protocol).__name__, "fields": msgspec.to_builtins(fields)}


def protocol_from_plain(value: Mapping[str, object]) -> Protocol:
    """Return the protocol that plain values describe.

    Raises:
        EnvironmentUsageError: they describe none.

    >>> protocol_from_plain(protocol_to_plain(protocols.Tags(names=("look",))))
    Tags(names=('look',), observation='information', action='action', max_calls=16)
    """
    kinds = {kind.__name__: kind for kind in _KINDS}
    kind, fields = kinds.get(str(value.get("kind"))), value.get("fields", {})
    if kind is None or not isinstance(fields, Mapping):
        raise EnvironmentUsageError(f"there is no protocol {value!r}; its kind is one of {', '.join(kinds)}.")
    try:
        return msgspec.convert(dict(fields), kind)
    except msgspec.ValidationError as error:
        raise EnvironmentUsageError(f"the protocol {value!r} cannot be read: {error}.") from error


def info_to_plain(info: Mapping[str, object]) -> dict[str, object]:
    """Return what crosses from the `info` of a step, as plain values."""
    plain: dict[str, object] = {name: msgspec.to_builtins(info[name]) for name in INFO if name in info}
    calls = cast("tuple[ToolCall, ...]", info.get("tool_calls", ()))
    kind = TurnKind(cast("str", info.get("turn_kind", TurnKind.OK)))
    plain |= {"turn_kind": kind.value, "tool_calls": [msgspec.to_builtins(call) for call in calls]}
    return plain


def info_from_plain(value: Mapping[str, object]) -> dict[str, object]:
    """Return the `info` of a step from its plain values."""
    info = {name: value[name] for name in INFO if name in value}
    if "results" in info:
        info["results"] = tuple(cast("Sequence[str]", info["results"]))
    calls = msgspec.convert(value.get("tool_calls", []), tuple[ToolCall, ...])
    return info | {"turn_kind": TurnKind(str(value.get("turn_kind", "ok"))), "tool_calls": calls}


class _Link:
    """The connections to one server, in an event loop of their own; environments of a process share it."""

    open: ClassVar[dict[tuple[str, str], _Link]] = {}
    guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, url: str, token: str, patience: Patience) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.servers = Servers([url], patience=patience, concurrency=1024, headers=headers)
        self.users = 0
        self.world: Mapping[str, object] | None = None
        self.seconds = patience.total_seconds + 5.0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name=f"link to {url}", daemon=True)
        self.thread.start()

    @classmethod
    def take(cls, url: str, token: str, patience: Patience) -> _Link:
        """Return the link to a server, opening it for the first user."""
        with cls.guard:
            if (url, token) not in cls.open:
                cls.open[url, token] = cls(url, token, patience)
            link = cls.open[url, token]
            link.users += 1
            return link

    def leave(self) -> None:
        """Close the link after its last user."""
        with self.guard:
            self.users -= 1
            if self.users:
                return
            type(self).open = {key: link for key, link in self.open.items() if link is not self}
        self.wait(self.servers.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5.0)
        self.loop.close()

    def wait(self, work: Coroutine[object, object, object]) -> object:
        """Run work in the loop and wait for it, never for ever."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(self.seconds)
        finally:
            future.cancel()


class RemoteEnv(TextEnv):
    """A world behind `agentrl serve`.

    Every turn is executed once, also where its answer was lost and the call was repeated. A server that
    cannot be reached, or has forgotten the session, is an `EnvironmentFault`: never a reward.

    Args:
        url: address of the server; `token_variable`: environment variable that holds its token, if any.
        seconds: deadline of one call, repetitions included.

    Raises:
        EnvironmentFault: the server cannot be reached.
    """

    blocks: ClassVar[bool] = True  # type: ignore[misc]  # of the class: every call crosses the network

    def __init__(
        self,
        url: str,
        *,
        token_variable: str = "AGENTRL_TOKEN",
        seconds: float = 60.0,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode)
        self.url = url
        self._token_variable, self._seconds = token_variable, seconds
        self._link: _Link | None = _Link.take(
            url, os.environ.get(token_variable, ""), Patience(total_seconds=seconds)
        )
        self._session, self._turn = "", 0
        self._seen: Mapping[str, object] = {}
        try:
            self._world = self._ask_world(self._link)
        except BaseException:
            self.close()
            raise

    def default_protocol(self) -> Protocol:
        """Return the protocol of the world behind the server."""
        return protocol_from_plain(cast("Mapping[str, object]", self._world["protocol"]))

    def list_splits(self) -> tuple[str, ...]:
        """Return the splits of the world behind the server."""
        return tuple(self._sizes)

    def num_tasks(self, split: str) -> int | None:
        """Return the size of a split."""
        self._check_split(split)
        return self._sizes[split]

    @property
    def _sizes(self) -> Mapping[str, int | None]:
        return cast("Mapping[str, int | None]", self._world["splits"])

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin an episode in a new session of the server."""
        super().reset(seed=seed, options=options)
        self._leave_session()
        opening = {
            "split": self.task.split, "index": self.task.index, "seed": seed,
            "protocol": protocol_to_plain(self.protocol),
        }  # fmt: skip
        self._seen = self._answer("/sessions", opening)
        self._session, self._turn = str(self._seen["session"]), 0
        task = cast("Mapping[str, object]", self._seen.get("task", {}))
        self.task = Task(self.task.split, self.task.index, type=str(task.get("type", "")))
        return str(self._seen["observation"]), {}

    def step(self, action: str) -> StepResult:
        """Execute an action on the server."""
        self._seen = seen = self._answer(
            f"/sessions/{self._session}/step", {"turn": self._turn, "action": action}
        )
        self._turn += 1
        info = info_from_plain(cast("Mapping[str, object]", seen["info"]))
        reward = float(cast("float", seen["reward"]))
        return str(seen["observation"]), reward, bool(seen["terminated"]), bool(seen["truncated"]), info

    def system_text(self) -> str:
        """What the server's world says for the protocol of this episode."""
        return str(self._seen.get("system_text", ""))

    def observation_key(self) -> Hashable | None:
        """The digest of the key at the server."""
        return cast("int | None", self._seen.get("observation_key"))

    def state_key(self) -> Hashable | None:
        """The digest of the true state; None unless the server is privileged."""
        return cast("int | None", self._seen.get("state_key"))

    def gold(self) -> str | None:
        """The reference answer; None unless the server is privileged."""
        return cast("str | None", self._seen.get("gold"))

    def admissible(self) -> Sequence[str] | None:
        """The admissible commands; None unless the server is privileged."""
        return cast("Sequence[str] | None", self._seen.get("admissible"))

    def snapshot(self) -> object:
        """A session cannot be copied. Raises `EnvironmentUsageError`."""
        raise EnvironmentUsageError(
            "a world behind a server cannot be copied; branch worlds of this process."
        )

    def close(self) -> None:
        """Close the session, and the connections after the last environment."""
        link, self._link = self._link, None
        if link is not None:
            try:
                self._leave_session(link)
            finally:
                link.leave()

    def __deepcopy__(self, memo: dict[int, object]) -> RemoteEnv:
        return RemoteEnv(self.url, token_variable=self._token_variable, seconds=self._seconds)

    def _ask_world(self, link: _Link) -> Mapping[str, object]:
        if link.world is None:
            link.world = self._call("GET", "/world")
        return link.world

    def _leave_session(self, link: _Link | None = None) -> None:
        session, self._session = self._session, ""
        if session:
            with contextlib.suppress(EnvironmentFault):  # the server closes what nobody touches
                self._call("POST", f"/sessions/{session}/close", {}, link)

    def _answer(self, path: str, content: object) -> Mapping[str, object]:
        value = self._call("POST", path, content)
        if "failed" in value:
            self._session = ""
            kind = EnvironmentFault if value.get("fault") else RuntimeError
            raise kind(f"the world behind {self.url} failed: {value['failed']}")
        return value

    def _call(
        self, method: str, path: str, content: object = None, link: _Link | None = None
    ) -> Mapping[str, object]:
        link = link or self._link
        if link is None:
            raise EnvironmentUsageError("this environment was closed; make another one.")
        work = link.servers.get(path) if method == "GET" else link.servers.post(path, content)
        try:
            answer = cast("Answer", link.wait(work))
        except ServerRefused as refused:
            if refused.status in {404, 410} and self._session:
                self._session = ""
                raise EnvironmentFault(f"the server forgot the session: {refused}") from refused
            kind = EnvironmentUsageError if refused.status in {409, 413, 422} else EnvironmentFault
            raise kind(str(refused)) from refused
        except (ServerUnavailable, TimeoutError) as error:
            raise EnvironmentFault(str(error) or f"{self.url} did not answer in time") from error
        if not isinstance(answer.value, Mapping):
            raise EnvironmentFault(f"{self.url}{path} answered {answer.value!r}, which is no object.")
        return cast("Mapping[str, object]", answer.value)

"""`openenv:<address>`: an environment behind an OpenEnv server, over its WebSocket."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from agentrl.errors import ConfigError, EnvironmentFault, EnvironmentUsageError, MissingExtraError
from agentrl.world.env import StepResult, Task, TextEnv
from agentrl.world.protocol import PlainText

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

REFUSED: Final = "VALIDATION_ERROR"
"""The code of the one error that is the agent's: its action does not fit the server's types."""
FULL: Final = "CAPACITY_REACHED"


class OpenEnvEnv(TextEnv):
    """An environment of OpenEnv. Each episode has a connection, which is a session at the server.

    A message is sent once and never repeated. A server that fails, is full, late, or says nothing readable is
    an `EnvironmentFault`, never a reward; an action that the server's types do not take is the agent's.

    Args:
        name: address of the server, for example "http://127.0.0.1:8000".
        action: field of the action that the agent's text becomes; with "" the agent writes the whole action
            as a JSON object.
        observation: field of the observation that the agent reads; with "" the only text in it, or all of it
            as JSON.
        tasks: size of each split, sent as `split` and `index` with a reset; without it `train` has no end
            and only the seed is sent: the index of the task.
        success: smallest sum of an episode's rewards that is a success.
        instructions: what the agent is told before the first observation.
        seconds: deadline of one message; `most_bytes`: of one.
        max_steps: turns before the episode is cut.
        render_mode: None or "ansi".

    Raises:
        MissingExtraError: the extra is not installed.
        ConfigError: a setting is wrong.
    """

    blocks: ClassVar[bool] = True  # type: ignore[misc]  # of the class: every message crosses the network

    def __init__(  # noqa: PLR0913  # settings with defaults
        self,
        name: str,
        *,
        action: str = "message",
        observation: str = "",
        tasks: Mapping[str, int] | None = None,
        success: float = 1.0,
        instructions: str = "",
        seconds: float = 60.0,
        most_bytes: int = 4 << 20,
        max_steps: int = 50,
        render_mode: str | None = None,
    ) -> None:
        if importlib.util.find_spec("websockets") is None:
            raise MissingExtraError("openenv:", "openenv")
        super().__init__(render_mode=render_mode)
        scheme, mark, rest = name.rstrip("/").partition("://")
        if scheme not in {"http", "https", "ws", "wss"} or not mark or not rest:
            raise ConfigError(f"{name!r} is no address of a server; write openenv:http://127.0.0.1:8000.")
        self.protocol = PlainText()
        self.url = f"ws{'s' if scheme in {'https', 'wss'} else ''}://{rest}/ws"
        self.tasks = dict(tasks) if tasks is not None else None
        self.action, self.observation, self.instructions = action, observation, instructions
        self.success, self.seconds, self.most_bytes, self.max_steps = success, seconds, most_bytes, max_steps
        self._socket: ClientConnection | None = None
        self._session = contextlib.ExitStack()
        self._steps, self._sum = 0, 0.0

    def list_splits(self) -> tuple[str, ...]:
        """Return the splits of the settings."""
        return ("train",) if self.tasks is None else tuple(self.tasks)

    def num_tasks(self, split: str) -> int | None:
        """Return the size of a split, None where the settings do not say."""
        self._check_split(split)
        return None if self.tasks is None else self.tasks[split]

    def get_task(self, split: str, index: int) -> Task:
        """Return the task at (split, index)."""
        self._check_split(split)
        return Task(split, index)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin an episode in a session of its own."""
        super().reset(seed=seed, options=options)
        self._leave()
        self._steps, self._sum = 0, 0.0
        where = {} if self.tasks is None else {"split": self.task.split, "index": self.task.index}
        kind, data = self._asked({"type": "reset", "data": {"seed": self.task.index, **where}})
        if kind == "error":
            hint = (
                "; raise its max_concurrent_envs, which is 1 by default" if data.get("code") == FULL else ""
            )
            raise self._fault(f"refuses to reset: {data.get('message')} ({data.get('code')}){hint}")
        return self._read(data), {"domain": "openenv"}

    def step(self, action: str) -> StepResult:
        """Send an action."""
        self._steps += 1
        late = self._steps >= self.max_steps
        try:
            content = {self.action: action} if self.action else _object(action)
        except ValueError as error:
            return self._refused(f"The action must be a JSON object: {error}", late=late)
        kind, data = self._asked({"type": "step", "data": content})
        if kind == "error":
            if data.get("code") != REFUSED:
                raise self._fault(f"reports an error: {data.get('message')} ({data.get('code')})")
            return self._refused(str(data.get("message")), late=late)
        reward, done = self._reward(data.get("reward")), data.get("done") is True
        self._sum += reward
        late = late and not done
        info: dict[str, object] = {"success": done and self._sum >= self.success} if done or late else {}
        return self._read(data), reward, done, late, info

    def system_text(self) -> str:
        """Return the instructions of the settings."""
        return self.instructions

    def snapshot(self) -> object:
        """A session cannot be copied. Raises `EnvironmentUsageError`."""
        raise EnvironmentUsageError(
            "an environment at a server cannot be copied; replay the actions instead."
        )

    def close(self) -> None:
        """End the session."""
        self._leave()
        self._phase = "new"

    def __deepcopy__(self, memo: dict[int, object]) -> OpenEnvEnv:
        return OpenEnvEnv(
            self.url.removesuffix("/ws"), action=self.action, observation=self.observation, tasks=self.tasks,
            success=self.success, instructions=self.instructions, seconds=self.seconds,
            most_bytes=self.most_bytes, max_steps=self.max_steps,
        )  # fmt: skip

    def _refused(self, text: str, *, late: bool) -> StepResult:
        return text, 0.0, False, late, {"valid": False, **({"success": False} if late else {})}

    def _asked(self, message: Mapping[str, object]) -> tuple[str, Mapping[str, Any]]:
        """Send a message and return the kind and the data of the answer."""
        from websockets.exceptions import WebSocketException

        try:
            socket = self._connected()
            socket.send(json.dumps(message))
            answer: object = json.loads(socket.recv(timeout=self.seconds))
        except TimeoutError as error:
            raise self._fault(f"did not answer within {self.seconds:g} s") from error
        except (OSError, ValueError, RecursionError, WebSocketException) as error:
            raise self._fault(f"failed: {type(error).__name__}: {error}") from error
        known = cast("Mapping[str, object]", answer) if isinstance(answer, Mapping) else {}
        data = known.get("data")
        if known.get("type") not in {"observation", "error"} or not isinstance(data, Mapping):
            raise self._fault(f"says what cannot be read: {str(answer)[:200]}")
        return str(known["type"]), cast("Mapping[str, Any]", data)

    def _connected(self) -> ClientConnection:
        from websockets.sync.client import connect

        if self._socket is None:
            opening = connect(
                self.url, open_timeout=self.seconds, close_timeout=2.0, max_size=self.most_bytes, proxy=None
            )
            self._socket = self._session.enter_context(opening)
        return self._socket

    def _read(self, data: Mapping[str, Any]) -> str:
        seen = data.get("observation")
        if self.observation:
            if not isinstance(seen, Mapping) or self.observation not in seen:
                raise self._fault(f"gave an observation without {self.observation!r}: {str(seen)[:200]}")
            seen = cast("Mapping[str, object]", seen)[self.observation]
        elif isinstance(seen, Mapping):
            texts = [value for value in cast("Mapping[str, object]", seen).values() if isinstance(value, str)]
            seen = texts[0] if len(texts) == 1 else cast("Mapping[str, object]", seen)
        return seen if isinstance(seen, str) else json.dumps(seen, ensure_ascii=False)

    def _reward(self, given: object) -> float:
        if given is None:
            return 0.0
        if not isinstance(given, int | float) or not math.isfinite(given):
            raise self._fault(f"gave the reward {given!r}, which is no number")
        return float(given)

    def _fault(self, what: str) -> EnvironmentFault:
        self._leave()
        return EnvironmentFault(f"{self.url} {what}.")

    def _leave(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            with contextlib.suppress(Exception):  # it may be half closed already
                socket.send(json.dumps({"type": "close"}))
            with contextlib.suppress(Exception):  # as above
                self._session.close()


def _object(text: str) -> Mapping[str, object]:
    found: object = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"got {text[:80]!r}")  # noqa: TRY004  # told to the agent with json's own errors
    return cast("Mapping[str, object]", found)

"""A session at an OpenEnv server: one WebSocket, one message at a time, every wait with an end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from agentrl.errors import EnvironmentFault, as_sentence

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

FULL: Final = "CAPACITY_REACHED"
_GOODBYE_SECONDS: Final = 2.0


class Session:
    """Messages of one session; the connection opens with the first and ends with `leave`.

    A message is sent once. A failure ends the connection, and so the session at the server.

    Args:
        url: of the WebSocket.
        seconds: deadline of one message; `most_bytes`: of one.
    """

    def __init__(self, url: str, seconds: float, most_bytes: int) -> None:
        self.url, self.seconds, self.most_bytes = url, seconds, most_bytes
        self._socket: ClientConnection | None = None
        self._open = contextlib.ExitStack()

    def ask(self, message: Mapping[str, object], *kinds: str) -> tuple[str, Mapping[str, Any]]:
        """Send a message and return the kind and the data of the answer.

        Args:
            kinds: what may come back besides "error".

        Raises:
            EnvironmentFault: the server fails, is full, late, or says what cannot be read.
        """
        answer = self._exchanged(json.dumps(message))
        known = cast("Mapping[str, object]", answer) if isinstance(answer, Mapping) else {}
        kind, data = known.get("type"), known.get("data")
        if kind not in {*kinds, "error"} or not isinstance(data, Mapping):
            raise self.fault(f"says what cannot be read: {str(answer)[:200]}")
        told = cast("Mapping[str, Any]", data)
        if kind == "error" and told.get("code") == FULL:
            raise self.refusal("is full", told, "Raise its max_concurrent_envs, which is 1 by default.")
        return str(kind), told

    def refusal(self, what: str, data: Mapping[str, Any], repair: str = "") -> EnvironmentFault:
        """Return the fault of an error that the server reports."""
        told = as_sentence(f"{complaint(data)} ({data.get('code')})")
        return self.fault(f"{what}: {told} {repair}".rstrip())

    def fault(self, what: str) -> EnvironmentFault:
        """Return a fault of this server; nobody waits for its goodbye."""
        self._drop()
        return EnvironmentFault(as_sentence(f"{self.url} {what}"))

    def leave(self) -> None:
        """End the session, and wait until the server has, for another may need its place."""
        if self._socket is not None:
            with contextlib.suppress(Exception):  # it may be half closed already
                self._socket.send(json.dumps({"type": "close"}))
                self._socket.recv(timeout=_GOODBYE_SECONDS)
        self._drop()

    def _drop(self) -> None:
        self._socket = None
        with contextlib.suppress(Exception):  # as above
            self._open.close()

    def _exchanged(self, message: str) -> object:
        from websockets.exceptions import ConnectionClosed, WebSocketException

        try:
            socket = self._connected()
            # A server that is full says so and closes before it is asked anything.
            with contextlib.suppress(ConnectionClosed):
                socket.send(message)
            return json.loads(socket.recv(timeout=self.seconds))
        except TimeoutError as error:
            raise self.fault(f"did not answer within {self.seconds:g} s") from error
        except ConnectionRefusedError as error:
            repair = "Start an OpenEnv server there, or name another address"
            raise self.fault(f"failed: ConnectionRefusedError: nobody listens there. {repair}") from error
        except (OSError, ValueError, RecursionError, WebSocketException) as error:
            raise self.fault(f"failed: {type(error).__name__}: {error}") from error

    def _connected(self) -> ClientConnection:
        from websockets.sync.client import connect

        if self._socket is None:
            opening = connect(
                self.url,
                open_timeout=self.seconds,
                close_timeout=_GOODBYE_SECONDS,
                max_size=self.most_bytes,
                proxy=None,
            )
            self._socket = self._open.enter_context(opening)
        return self._socket


def complaint(data: Mapping[str, Any]) -> str:
    """Return what an error says, with the places of the action that its types refuse.

    >>> complaint({"message": "Invalid message", "errors": [{"loc": ["move"], "msg": "Field required"}]})
    'Invalid message: move: Field required'
    """
    found = data.get("errors")
    errors = cast("Sequence[object]", found) if isinstance(found, list) else ()
    parts = [_place(cast("Mapping[str, Any]", one)) for one in errors if isinstance(one, Mapping)]
    return ": ".join(part for part in (str(data.get("message")), "; ".join(parts)[:600]) if part)


def _place(error: Mapping[str, Any]) -> str:
    where = error.get("loc")
    path = ".".join(str(part) for part in cast("Sequence[object]", where)) if isinstance(where, list) else ""
    return ": ".join(part for part in (path, str(error.get("msg"))) if part)

"""One client of one server, in an event loop of its own thread; every wait ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import shlex
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentrl.errors import ConfigError, EnvironmentFault, ToolArgumentError
from agentrl_tools.mcp.pipe import GRACE, Pipe, environment_of, piped
from agentrl_tools.mcp.web import web

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager

    from mcp import Client
    from mcp.client._transport import TransportStreams
    from mcp_types import CallToolResult
    from mcp_types import Tool as Listed

T = TypeVar("T")
_PAGES: Final = 100
_PAUSE: Final = 3 * GRACE + 2.0
"""Seconds beyond a deadline after which nobody is waited for."""
_CAUSES: Final = 6
_ARGUMENTS: Final = -32602
"""JSON-RPC's code for arguments that a server does not take."""


@dataclass(frozen=True, slots=True)
class Server:
    """How a server is reached, and how patiently.

    Attributes:
        name: a command line, or an address that begins with http:// or https://.
        inherit: variables that a command gets besides the usual ones; `environment`: more of them.
        token_variable: the environment variable that holds the bearer token of an address.
        start_seconds: until the server is connected; `seconds`: for one call.
        most_bytes: of one message.
    """

    name: str
    inherit: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    token_variable: str = ""
    start_seconds: float = 30.0
    seconds: float = 30.0
    most_bytes: int = 4 << 20

    def __post_init__(self) -> None:
        for name in ("start_seconds", "seconds", "most_bytes"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a number above 0.")
        if not self.command and not self.is_address:
            raise ConfigError(
                "an MCP server is a command line or an address, such as 'mcp:python server.py' or "
                "'mcp:http://127.0.0.1:8000/mcp'; got nothing."
            )

    @property
    def is_address(self) -> bool:
        """Whether the server is reached over HTTP."""
        return self.name.startswith(("http://", "https://"))

    @property
    def command(self) -> list[str]:
        """The words of the command line."""
        try:
            return shlex.split(self.name)
        except ValueError as error:
            raise ConfigError(f"the command line {self.name!r} cannot be read: {error}.") from error

    def headers(self) -> dict[str, str]:
        """Return what is sent with each request. Raises `ConfigError` where the token is missing."""
        if not self.token_variable:
            return {}
        token = os.environ.get(self.token_variable)
        if not token:
            raise ConfigError(
                f"the token of {self.name} is to stand in the environment variable "
                f"{self.token_variable}, which is not set."
            )
        return {"authorization": f"Bearer {token}"}


class Connection:
    """A client, from the first call to `close`. A call that fails or is late ends it.

    Args:
        server: whom to connect to.

    Raises:
        ConfigError: its settings cannot be met.
        EnvironmentFault: it did not come up in time.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._pipe = Pipe(server.most_bytes)
        self._transport = self._open()
        self._ready: concurrent.futures.Future[Client] = concurrent.futures.Future()
        self._calls: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"mcp {server.name[:40]}", daemon=True)
        self._thread.start()
        try:
            self._client = self._ready.result(server.start_seconds + _PAUSE)
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                if isinstance(error, TimeoutError):  # ours; the server has said nothing of it
                    late = f"did not come up within {server.start_seconds:g} s"
                    raise self._fault(late, repair=self._repair()) from error
                raise self._fault("did not come up", error, self._repair()) from error
            raise

    def tools(self) -> tuple[Listed, ...]:
        """Return what the server offers. Raises `EnvironmentFault`."""
        return self._wait(self._listed(), "the list of its tools")

    def call(self, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """Call a tool once.

        Raises:
            ToolArgumentError: the server refuses the arguments.
            EnvironmentFault: the server failed, ended, or was late; the connection is closed then.
        """
        return self._wait(self._client.call_tool(name, dict(arguments)), f"the tool {name!r}")

    def close(self) -> None:
        """End calls that are under way, and a server that was started; from any thread, also twice."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_PAUSE)
        self._pipe.kill()

    # -- in the thread -----------------------------------------------------------------------------------

    def _open(self) -> AbstractAsyncContextManager[TransportStreams]:
        server = self.server
        if server.is_address:
            return web(server.name, server.headers(), server.seconds, self._pipe)
        return piped(server.command, environment_of(server.inherit, dict(server.environment)), self._pipe)

    def _run(self) -> None:
        # What a server does wrong is told once, in an error that says so.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        logging.getLogger("client").setLevel(logging.CRITICAL)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001  # told to who waits; nobody else could
            if not self._ready.done():
                self._ready.set_exception(error)
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _serve(self) -> None:
        from mcp import Client

        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(self.server.start_seconds):
                client = await stack.enter_async_context(Client(self._transport))
            self._ready.set_result(client)
            await self._stop.wait()
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)

    async def _timed(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        if task is not None:
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        async with asyncio.timeout(self.server.seconds):
            return await work

    async def _listed(self) -> tuple[Listed, ...]:
        found: list[Listed] = []
        cursor: str | None = None
        for _ in range(_PAGES):
            page = await self._client.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if cursor is None:
                return tuple(found)
        raise EnvironmentFault(f"it lists more than {_PAGES} pages of tools.")

    # -- outside -----------------------------------------------------------------------------------------

    def _wait(self, work: Coroutine[Any, Any, T], what: str) -> T:
        if self._closed or not self._thread.is_alive():
            work.close()
            raise self._fault(f"is not connected any more; {what} was not asked")
        future = asyncio.run_coroutine_threadsafe(self._timed(work), self._loop)
        try:
            return future.result(self.server.seconds + _PAUSE)
        except (TimeoutError, asyncio.CancelledError, concurrent.futures.CancelledError) as error:
            late = isinstance(error, TimeoutError)
            self.close()
            why = f"did not answer within {self.server.seconds:g} s" if late else "was closed meanwhile"
            raise self._fault(f"{why}: {what}") from error
        except Exception as error:
            if getattr(error, "code", None) == _ARGUMENTS:
                raise ToolArgumentError(f"the server refuses the arguments: {error}") from error
            self.close()
            raise self._fault(f"failed: {what}", error) from error

    def _repair(self) -> str:
        if self.server.is_address:
            return " Check that an MCP server answers at that address."
        return " Check by hand that the command starts an MCP server on its standard streams, and stays."

    def _fault(self, what: str, error: BaseException | None = None, repair: str = "") -> Exception:
        if isinstance(error, ConfigError):
            return error
        words = "; ".join(part for part in (_cause(error), self._pipe.words()) if part)
        told = f" It says: {words}" if words else ""
        return EnvironmentFault(f"the MCP server {self.server.name!r} {what}.{told}{repair}")


def _cause(error: BaseException | None) -> str:
    """Return the innermost reason in words."""
    for _ in range(_CAUSES):
        if not isinstance(error, BaseExceptionGroup):
            break
        error = error.exceptions[0]
    if error is None:
        return ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")

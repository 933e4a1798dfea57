"""The tools of one server: listed once for a process, called over one client for a trajectory."""

from __future__ import annotations

import copy
import functools
import importlib.util
import threading
import weakref
from typing import TYPE_CHECKING, ClassVar

from agentrl.errors import ConfigError, MissingExtraError, ToolDefinitionError, did_you_mean
from agentrl.world.source import ToolSource
from agentrl.world.tool import Tool, ToolResult
from agentrl_tools.mcp.connection import Connection, Server
from agentrl_tools.mcp.content import result_of
from agentrl_tools.mcp.schema import signature_of, writable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mcp_types import Tool as Listed


class McpTools(ToolSource):
    """The tools of a server that speaks the Model Context Protocol.

    One instance serves one trajectory at a time over one client, which is opened by the first call after
    `reset` and closed by the next one. Arguments are checked against the tool's schema before they leave;
    what does not fit, and what a tool itself calls an error, is the agent's to read. A server that cannot be
    started, ends, is late, or sends too much is an `EnvironmentFault`, and the client is closed. A call is
    never repeated. A copy has a client of its own: what happened at the server is not copied.

    Args:
        name: a command line ("python server.py"), or an address ("http://127.0.0.1:8000/mcp").
        only: the tools to take, by the server's names; all of them by default.
        prefix: put before each name, where two servers have tools of one name.
        seconds: for one call; `start_seconds`: to come up.
        most_characters: of a result; the rest is cut. `most_bytes`: of a message.
        inherit: environment variables that a command gets, besides PATH, HOME and their like.
        environment: more variables for it.
        token_variable: the environment variable that holds the bearer token of an address.

    Raises:
        MissingExtraError: the extra is not installed.
        ConfigError: a setting is wrong.
    """

    _listed: ClassVar[dict[Server, tuple[Listed, ...]]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(  # noqa: PLR0913  # settings with defaults
        self,
        name: str,
        *,
        only: Sequence[str] = (),
        prefix: str = "",
        seconds: float = 30.0,
        start_seconds: float = 30.0,
        most_characters: int = 8000,
        most_bytes: int = 4 << 20,
        inherit: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        token_variable: str = "",
    ) -> None:
        if importlib.util.find_spec("mcp") is None:
            raise MissingExtraError("mcp:", "mcp")
        given = tuple((environment or {}).items())
        self.server = Server(name, tuple(inherit), given, token_variable, start_seconds, seconds, most_bytes)
        self.only, self.prefix, self.most_characters = tuple(only), prefix, most_characters
        self._connection: Connection | None = None
        self._tools: tuple[Tool, ...] = ()

    def __deepcopy__(self, memo: dict[int, object]) -> McpTools:
        other = copy.copy(self)
        other.__dict__.update(_connection=None, _tools=())
        return other

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools, asked for once in a process.

        Raises:
            EnvironmentFault: the server does not come up.
            ToolDefinitionError: two tools have one name, or a schema is none.
            ConfigError: `only` names a tool that is not there.
        """
        if not self._tools:
            self._tools = self._chosen({tool.name: tool for tool in self._offered()})
        return self._tools

    def _chosen(self, found: Mapping[str, Listed]) -> tuple[Tool, ...]:
        for name in self.only:
            if name not in found:
                raise ConfigError(
                    f"{self.server.name} has no tool {name!r}.{did_you_mean(name, found)} "
                    f"It has {', '.join(found) or 'none'}."
                )
        made: dict[str, Tool] = {}
        for name in self.only or found:
            tool = self._made(found[name])
            if tool.name in made:
                raise ToolDefinitionError(
                    f"two tools of {self.server.name} would be called {tool.name!r}; "
                    f"take one of them with only=."
                )
            made[tool.name] = tool
        return tuple(made.values())

    def reset(self, seed: int = 0) -> None:
        """Begin another trajectory: the next call opens a client of its own."""
        del seed
        self.close()

    def close(self) -> None:
        """Close the client; a call that is under way ends with an `EnvironmentFault`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _offered(self) -> tuple[Listed, ...]:
        with self._guard:
            if self.server not in self._listed:
                connection = Connection(self.server)
                try:
                    self._listed[self.server] = connection.tools()
                finally:
                    connection.close()
            return self._listed[self.server]

    def _made(self, listed: Listed) -> Tool:
        description = listed.description or listed.title or listed.name
        name = writable(self.prefix + listed.name)
        signature = signature_of(name, description, listed.input_schema, self.server.name)
        call = functools.partial(self._call, listed.name)
        return Tool(signature, call, max_characters=self.most_characters)

    def _call(self, _tool: str, /, **arguments: object) -> ToolResult:
        if self._connection is None:
            self._connection = Connection(self.server)
            weakref.finalize(self, self._connection.close)
        return result_of(self._connection.call(_tool, arguments))

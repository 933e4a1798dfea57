"""MCP: a real server over its pipes and over HTTP, and servers that go wrong."""

from __future__ import annotations

import copy
import importlib.util
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import (
    ConfigError,
    EnvironmentFault,
    MissingExtraError,
    ToolDefinitionError,
)
from agentrl.testing import check_tool
from agentrl.world import JsonCalls, Tags, Toolbox
from agentrl.world.registry import load_tool, load_toolset
from agentrl_tools.mcp import McpTools

if TYPE_CHECKING:
    from collections.abc import Generator

    from agentrl.world.tool import Tool

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mcp") is None, reason="the extra `mcp` is not installed"
)
HERE = Path(__file__).parent
PYTHON = shlex.quote(sys.executable)
REAL = f"{PYTHON} {shlex.quote(str(HERE / 'mcp_server.py'))}"


def raw(how: str) -> str:
    return f"{PYTHON} -I -S {shlex.quote(str(HERE / 'mcp_raw.py'))} {how}"


def by_name(tools: McpTools) -> dict[str, Tool]:
    return {tool.name: tool for tool in tools.tools}


def processes_of(word: str, parent: int | None = None) -> list[int]:
    """The children of a process, by default of this one, with a word in their command line; 0: of any."""
    found = []
    parent = os.getpid() if parent is None else parent
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        found += [int(folder.name)] if word in line and parent in {0, above} else []
    return found


@pytest.fixture(scope="module")
def real() -> Generator[McpTools]:
    tools = McpTools(REAL, seconds=60.0, start_seconds=120.0, most_characters=100)
    yield tools
    tools.close()
    assert processes_of("mcp_server.py") == []


def test_tools_of_a_real_server_are_ours(real: McpTools) -> None:
    tools = by_name(real)
    assert list(tools) == ["add", "count", "files_read", "variable", "picture", "long", "wait"]
    assert tools["add"].call({"first": 2, "second": 3}).text == "5"
    assert tools["add"].description == "Add two numbers."
    assert tools["add"].signature.required == ("first",)
    report = check_tool(tools["add"], arguments=[{"first": 1}])
    assert not report.errors, str(report)


def test_they_are_called_in_every_protocol(real: McpTools) -> None:
    box = Toolbox([real])
    json_calls, tags = JsonCalls(), Tags(names=("add", "count"))
    assert box.run(json_calls.parse(json_calls.write("add", {"first": 2}))).text == "3"
    assert box.run(tags.parse("<add>4</add>")).text == "5"
    assert "<add>" in tags.describe(box.tools)
    assert '"first"' in json_calls.describe(box.tools)


def test_arguments_that_do_not_fit_never_leave_and_come_back_as_sentences(real: McpTools) -> None:
    box, tools = Toolbox([real]), by_name(real)
    before = int(tools["count"].call({}).text.split()[1])
    protocol = JsonCalls()
    for arguments, told in (
        ('{"first": "two"}', "The argument 'first' of add: 'two' is not of type 'integer'."),
        ("{}", "add needs the argument 'first'; it was not given."),
        ('{"first": 1, "secnd": 2}', "Did you mean 'second'?"),
    ):
        parsed = protocol.parse(f'<tool_call>{{"name": "add", "arguments": {arguments}}}</tool_call>')
        reply = box.run(parsed)
        assert told in reply.text
        assert (reply.kind, reply.valid, reply.done) == ("tool_error", False, False)
    reply = box.run(protocol.parse('<tool_call>{"name": "add", "arguments": {"first": }</tool_call>'))
    assert reply.kind == "parse_error"
    assert int(tools["count"].call({}).text.split()[1]) == before + 1


def test_an_error_of_a_tool_is_the_agents_to_read(real: McpTools) -> None:
    result = by_name(real)["files_read"].call({"path": "tea.txt"})
    assert result.error is not None
    assert "there is no file tea.txt" in result.text


def test_what_is_no_text_is_named_and_what_is_long_is_cut(real: McpTools) -> None:
    tools = by_name(real)
    assert tools["picture"].call({}).text == "before\n[image/png, 9 bytes, is not shown]"
    assert tools["long"].call({"characters": 150}).text == "x" * 100 + "\n[50 more characters were cut]"


def test_the_environment_of_a_server_is_what_was_named(
    real: McpTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTRL_SECRET", "s3cret")
    monkeypatch.setenv("AGENTRL_SHARED", "shared")
    told = McpTools(REAL, inherit=["AGENTRL_SHARED"], environment={"GIVEN": "given"}, start_seconds=120.0)
    asked = by_name(told)["variable"]
    try:
        values = [asked.call({"name": name}).text for name in ("AGENTRL_SECRET", "AGENTRL_SHARED", "GIVEN")]
    finally:
        told.close()
    assert values == ["unset", "shared", "given"]
    assert "given" not in repr(told.server)
    with pytest.raises(ConfigError, match="inherit the environment variable NO_SUCH_NAME, which is not set"):
        _ = McpTools(REAL, inherit=["NO_SUCH_NAME"]).tools


def test_a_trajectory_has_a_client_of_its_own(real: McpTools) -> None:
    other = copy.deepcopy(real)
    first, second = by_name(real)["count"].call({}).text, by_name(other)["count"].call({}).text
    assert second.startswith("call 1 of ")
    assert first.split()[-1] != second.split()[-1]
    other.reset()
    third = by_name(other)["count"].call({}).text
    other.close()
    assert third.startswith("call 1 of ")
    assert not Path(f"/proc/{second.split()[-1]}").exists()
    assert not Path(f"/proc/{third.split()[-1]}").exists()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("die", "failed: the tool 'tool'.*the disk is full"),
        ("hang", "did not answer within 1 s: the tool 'tool'"),
        ("flood", "sent a message of more than 100000 bytes"),
        ("internal", "the database is gone"),
    ],
)
def test_a_server_that_fails_is_infrastructure_and_leaves_nothing(how: str, told: str) -> None:
    tools = McpTools(raw(how), seconds=1.0, most_bytes=100_000)
    tool = by_name(tools)["tool"]
    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match=told):
        tool.call({"n": 1})
    assert time.monotonic() - began < 10
    assert processes_of("mcp_raw.py") == []
    with pytest.raises(EnvironmentFault, match="is not connected any more"):
        tool.call({"n": 1})
    tools.close()


def test_children_of_a_server_end_with_it() -> None:
    before = processes_of("left by mcp_raw", 0)
    tools = McpTools(raw("hang"), seconds=0.5)
    with pytest.raises(EnvironmentFault):
        by_name(tools)["tool"].call({"n": 1})
    until = time.monotonic() + 5
    while processes_of("left by mcp_raw", 0) != before and time.monotonic() < until:
        time.sleep(0.02)
    assert processes_of("left by mcp_raw", 0) == before


def test_a_refusal_of_the_server_is_the_agents_to_read_and_chatter_is_ignored() -> None:
    refusing, chatting = McpTools(raw("refuse")), McpTools(raw("chatter"))
    try:
        reply = Toolbox([refusing]).run(JsonCalls().parse(JsonCalls().write("tool", {"n": 1})))
        assert (reply.kind, reply.text) == (
            "tool_error", "tool failed: the server refuses the arguments: n is too large",
        )  # fmt: skip
        assert by_name(chatting)["tool"].call({"n": 1}).text == "fine"
    finally:
        refusing.close()
        chatting.close()


def test_a_call_under_way_ends_when_its_trajectory_is_given_up() -> None:
    tools = McpTools(raw("hang"), seconds=300.0)
    tool = by_name(tools)["tool"]
    raised: list[BaseException] = []

    def call() -> None:
        try:
            tool.call({"n": 1})
        except BaseException as error:  # noqa: BLE001  # it is looked at below
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    until = time.monotonic() + 10
    while tools._connection is None or not tools._connection._calls:
        assert time.monotonic() < until
        time.sleep(0.01)
    tools.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(raised[0], EnvironmentFault)
    assert processes_of("mcp_raw.py") == []


def test_servers_that_do_not_come_up_are_told_apart_by_sentences() -> None:
    with pytest.raises(EnvironmentFault, match=r"did not come up within 0.5 s.*by hand"):
        _ = McpTools(raw("silent"), start_seconds=0.5).tools
    with pytest.raises(EnvironmentFault, match=r"no-such-program: No such file"):
        _ = McpTools("no-such-program --port 1").tools
    with pytest.raises(EnvironmentFault, match=r"did not come up.*ConnectError"):
        _ = McpTools("http://127.0.0.1:9/mcp", start_seconds=20).tools
    assert processes_of("mcp_raw.py") == []


def test_a_server_that_ignores_its_end_is_killed() -> None:
    tools = McpTools(raw("deaf"))
    assert by_name(tools)["tool"].call({"n": 1}).text == "fine"
    tools.close()
    assert processes_of("mcp_raw.py") == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_a_server_ends_with_a_trainer_that_is_killed() -> None:
    trainer = f"""
import os, signal
from agentrl_tools.mcp import McpTools
tools = McpTools({raw("deaf") + " --of-a-killed-trainer"!r}, start_seconds=120)
print(tools.tools[0].call({{"n": 1}}).text, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run(
        [sys.executable, "-c", trainer], capture_output=True, text=True, timeout=240, check=False
    )
    assert (ended.returncode, ended.stdout) == (-9, "fine\n"), ended.stderr
    until = time.monotonic() + 5
    while processes_of("--of-a-killed-trainer", 0) and time.monotonic() < until:
        time.sleep(0.02)
    assert processes_of("--of-a-killed-trainer", 0) == []


def test_what_a_server_lists_is_checked() -> None:
    with pytest.raises(ToolDefinitionError, match="would be called 'a_b'; take one of them with only="):
        _ = McpTools(raw("collide")).tools
    chosen = McpTools(raw("collide"), only=["a/b"], prefix="one.")
    assert [tool.name for tool in chosen.tools] == ["one_a_b"]
    with pytest.raises(ConfigError, match=r"has no tool 'a_b'.*It has a\.b, a/b"):
        _ = McpTools(raw("collide"), only=["a_b"]).tools
    with pytest.raises(ToolDefinitionError, match="has a schema that is none"):
        _ = McpTools(raw("schema")).tools
    with pytest.raises(EnvironmentFault, match="more than 100 pages"):
        _ = McpTools(raw("pages")).tools


def test_schemas_do_not_fetch_other_documents() -> None:
    tool = by_name(McpTools(raw("remote")))["tool"]
    with pytest.raises(EnvironmentFault, match="points to another document, which is not fetched"):
        tool.call({"n": 1})


def test_the_family_is_found_by_name() -> None:
    (tool,) = load_tool(f"mcp:{raw('fine')}", prefix="my_")
    assert tool.name == "my_tool"
    assert isinstance(load_toolset(f"mcp:{raw('fine')}"), McpTools)
    with pytest.raises(ConfigError, match="is a command line or an address"):
        load_toolset("mcp:")
    with pytest.raises(ConfigError, match="cannot be read: No closing quotation"):
        load_toolset('mcp:python "server.py')
    with pytest.raises(ConfigError, match="seconds is 0"):
        McpTools("x", seconds=0)


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        del name

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(MissingExtraError, match=r"agentrl\[mcp\]"):
        McpTools("x")


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    """The same server over streamable HTTP, in a thread."""
    import uvicorn

    from tests.tools.mcp_server import server

    app = server.streamable_http_app()
    web = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=web.run)
    thread.start()
    until = time.monotonic() + 20
    while not web.started and time.monotonic() < until:
        time.sleep(0.01)
    port = web.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/mcp"
    web.should_exit = True
    thread.join(10)


def test_the_same_tools_over_http(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    tools = McpTools(address, seconds=2.0, most_bytes=50_000, token_variable="MY_TOKEN")
    called = by_name(tools)
    assert called["add"].call({"first": 2}).text == "3"
    assert called["files_read"].call({"path": "x"}).error is not None
    with pytest.raises(EnvironmentFault, match="it sent an answer of more than 50000 bytes"):
        called["long"].call({"characters": 200_000})
    tools.reset()
    assert called["add"].call({"first": 2}).text == "3"
    tools.close()
    with pytest.raises(ConfigError, match="environment variable NO_SUCH_TOKEN, which is not set"):
        _ = McpTools(address, token_variable="NO_SUCH_TOKEN").tools


def test_a_slow_tool_over_http_is_late(address: str) -> None:
    tools = McpTools(address, seconds=0.5)
    with pytest.raises(EnvironmentFault, match=r"did not answer within 0.5 s: the tool 'wait'"):
        by_name(tools)["wait"].call({"seconds": 1.5})
    tools.close()

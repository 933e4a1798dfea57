"""`openenv:` against OpenEnv's own server, run in the virtual environment that `make openenv` makes."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import agentrl
from agentrl.errors import EnvironmentFault
from agentrl.trajectory import Invalid, Trajectory
from agentrl.world import JsonCalls
from agentrl_envs.others.openenv import OpenEnvEnv
from tests.servers.vllm import free_port

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / os.environ.get("OPENENV_VENV", ".venv-openenv") / "bin" / "python"
START_SECONDS = float(os.environ.get("OPENENV_START_SECONDS", "300"))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    if not PROGRAM.exists():
        pytest.skip("there is no OpenEnv here; `make openenv` installs it")
    port, log = free_port(), tmp_path_factory.mktemp("openenv") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(PROGRAM), str(Path(__file__).parent / "openenv_worlds.py"), str(port)],
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            _wait(process, f"http://127.0.0.1:{port}/ready", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2.0).status_code == 200:
                return
        time.sleep(0.3)
    pytest.fail(f"OpenEnv's server did not start: {log.read_text(errors='replace')[-2000:]}")


def test_an_environment_of_messages_is_played(address: str) -> None:
    env = agentrl.make(f"openenv:{address}/words")
    assert env.reset(seed=0, options={"index": 3}) == ("seed 3 of none/-1", {"domain": "openenv"})
    assert env.step("tea") == ("you said tea", 0.0, False, False, {})
    refused = "Invalid message: message: String should have at most 40 characters"
    assert env.step("x" * 41) == (refused, 0.0, False, False, {"valid": False})
    assert env.step("win") == ("you said win", 1.0, True, False, {"success": True})
    env.close()
    whole = OpenEnvEnv(f"{address}/words", action="", observation="step", tasks={"test": 4})
    assert whole.list_splits() == ("test",)
    with pytest.raises(EnvironmentFault, match="without 'steps'"):
        OpenEnvEnv(f"{address}/words", observation="steps").reset(seed=0)
    assert whole.reset(seed=0, options={"split": "test", "index": 1})[0] == "0"
    assert whole.step('{"message": "a"}')[0] == "1"
    assert whole.step('{"words": "a"}')[0] == (
        "Invalid message: message: Field required; words: Extra inputs are not permitted"
    )
    whole.close()


def test_what_fails_there_is_infrastructure(address: str) -> None:
    world = functools.partial(OpenEnvEnv, f"{address}/words", tasks={"train": 20})
    results = agentrl.collect(world, agentrl.ScriptedPolicy(["tea", "boom"]), tasks=2)
    assert all(isinstance(result, Invalid) for result in results)
    env = world()
    env.reset(seed=0, options={"index": 1})
    with pytest.raises(EnvironmentFault, match=r"reports an error: the words are broken \(EXECUTION_ERROR\)"):
        env.step("boom")
    with pytest.raises(EnvironmentFault, match="refuses to reset: there is no task 9"):
        env.reset(seed=0, options={"index": 9})
    env.close()


def test_a_server_without_a_free_place_says_so(address: str) -> None:
    held = [OpenEnvEnv(f"{address}/small") for _ in range(3)]
    for env in held[:2]:
        env.reset(seed=0)
    with pytest.raises(EnvironmentFault, match=r"is full: .*2/2 .*Raise its max_concurrent_envs"):
        held[2].reset(seed=0)
    held[0].step("win")  # an episode that is over gives its place back
    held[2].reset(seed=0)
    for env in held:
        env.close()
    for index in range(10):  # one after another never meets itself
        held[0].reset(seed=0, options={"index": index})
    held[0].close()


def test_the_tools_of_an_mcp_environment_are_the_agents(address: str) -> None:
    env = OpenEnvEnv(f"{address}/shelf", tools=True, instructions="Take the tins of shelf 2.")
    told = env.system_text()
    assert told.startswith("Take the tins of shelf 2.")
    assert "<look>shelf</look>: Read what stands on a shelf." in told
    assert "two shelves" in env.reset(seed=0, options={"index": 1})[0]
    looked = env.step("<look>2</look>")
    assert (looked[0], looked[1:4]) == ('{"tins":7}', (0.0, False, False))
    refused = env.step('<take>{"tins": "many", "note": ""}</take>')
    assert "'tins'" in refused[0]
    assert refused[4]["valid"] is False
    broken = env.step('<take>{"tins": -1, "note": ""}</take>')
    assert "nobody takes less than nothing" in broken[0]
    assert env.step("<drop>2</drop>")[0].startswith("There is no tool 'drop'")
    taken = env.step('<take>{"tins": 7, "note": "!"}</take>')
    assert (taken[0], taken[1:4], taken[4]["success"]) == ("taken 7!", (1.0, True, False), True)
    env.close()
    with pytest.raises(
        EnvironmentFault, match=r"lists no tools: Environment does not support MCP\. .* takes `action`"
    ):
        OpenEnvEnv(f"{address}/words", tools=True).system_text()


def test_tools_are_called_in_any_protocol(address: str) -> None:
    form = JsonCalls()
    texts = [form.write("look", {"shelf": 2}), form.write("take", {"tins": 6, "note": "."})]
    world = functools.partial(OpenEnvEnv, f"{address}/shelf", tools=True)
    results = agentrl.collect(world, agentrl.ScriptedPolicy(texts), protocol=form, tasks=6)
    played = [result for result in results if isinstance(result, Trajectory)]
    assert len(played) == 6
    assert sum(item.reward for item in played) >= 1.0  # seeds are the tasks' numbers: task 0 wants six
    assert all("tins" in item.turns[1].observation for item in played)


@pytest.mark.parametrize(
    ("kind", "actions"),
    [("words", ["tea", "win"]), ("shelf", ["<look>1</look>", '<take>{"tins": 6, "note": ""}</take>'])],
)
def test_its_worlds_keep_our_contract(address: str, kind: str, actions: list[str]) -> None:
    world = functools.partial(OpenEnvEnv, f"{address}/{kind}", tools=kind == "shelf")
    report = agentrl.check_env(world, actions=actions, skip=["snapshot"])
    assert not report.errors, str(report)

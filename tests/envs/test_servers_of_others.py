"""`agentgym:` and `openenv:`, against small servers of ours that speak their languages and misbehave."""

from __future__ import annotations

import copy
import importlib.util
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

import agentrl
from agentrl.errors import ConfigError, EnvironmentFault, EnvironmentUsageError, MissingExtraError
from agentrl.policy.scripted import ScriptedPolicy
from agentrl.testing.server import MisbehavingServer, Told
from agentrl.trajectory import Invalid, Trajectory
from agentrl.world.registry import spec
from agentrl_envs.others.agentgym import OVER, AgentGymEnv
from agentrl_envs.others.dialects import DIALECTS
from agentrl_envs.others.openenv import OpenEnvEnv

if TYPE_CHECKING:
    from collections.abc import Generator

    from websockets.sync.server import ServerConnection

    from agentrl.testing.server import Asked


@dataclass
class Gym:
    """One of AgentGym's servers: two steps, the second right action ends with a reward.

    Attributes:
        pool: how many environments there are; beyond it, numbers are given out again.
        error: what /create answers instead, with status 200.
    """

    dialect: str
    pool: int = 100
    error: str = ""
    created: int = 0
    steps: dict[int, int] = field(default_factory=dict)
    closed: list[int] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Told:
        body = asked.json()
        return getattr(self, f"do_{asked.path.strip('/')}", self.nothing)(body)

    def nothing(self, body: dict[str, Any]) -> Told:
        return Told({"detail": "Not Found"}, 404)

    def do_create(self, body: dict[str, Any]) -> Told:
        if self.error:
            return Told({"error": self.error})
        number = self.created % self.pool
        self.created += 1
        if self.dialect in {"searchqa", "sqlgym", "webshop"}:
            return Told(number)
        return Told({"env_idx": number} if self.dialect == "webarena" else {"id": number, "observation": "x"})

    def number(self, body: dict[str, Any]) -> int:
        return int(body[DIALECTS[self.dialect].key])

    def do_reset(self, body: dict[str, Any]) -> Told:
        self.steps[self.number(body)] = 0
        text = f"task {body[DIALECTS[self.dialect].item]}"
        if self.dialect == "searchqa":
            return Told(text)
        if self.dialect in {"sqlgym", "webshop"}:
            return Told([text, None])
        return Told({"observation": text, **self.available()})

    def available(self) -> dict[str, object]:
        return {"available_actions": ["look", "win"]} if self.dialect == "alfworld" else {}

    def do_step(self, body: dict[str, Any]) -> Told:
        number, action = self.number(body), str(body["action"])
        if action == "break":
            return Told({"error": "the game crashed"})
        won = action in {"win", "<answer>gold</answer>"}
        text = "state" if self.dialect in {"sqlgym", "webshop"} else "observation"
        told: dict[str, object] = {text: f"you did {action}", "reward": 0, "done": won, **self.available()}
        if won:
            told["reward"] = DIALECTS[self.dialect].success
        if action == "nan":
            told["reward"] = "much"
        self.steps[number] += 1
        return Told(told)

    def do_close(self, body: dict[str, Any]) -> Told:
        if not DIALECTS[self.dialect].closes:
            return self.nothing(body)
        self.closed.append(self.number(body))
        return Told(None)


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_each_dialect_of_agentgym_is_spoken(dialect: str) -> None:
    gym = Gym(dialect)
    with MisbehavingServer(gym) as server:
        env = AgentGymEnv(server.url, dialect=dialect, splits={"train": [10, 5], "test": [0]})
        assert (env.num_tasks("train"), env.num_tasks("test")) == (5, None)
        observation, info = env.reset(seed=0, options={"split": "train", "index": 2})
        assert (observation, info["task_type"]) == ("task 12", dialect)
        assert env.admissible() == (["look", "win"] if dialect == "alfworld" else None)
        assert env.step("Thought: hm\n\nAction:\nlook") == ("you did look", 0.0, False, False, {})
        assert env.step("win")[1:] == (DIALECTS[dialect].success, True, False, {"success": True})
        env.reset(seed=0, options={"split": "test", "index": 0})
        assert gym.created == 1
        env.close()
        assert gym.closed == ([0] if DIALECTS[dialect].closes else [])
        sent = {asked.path: asked.json() for asked in server.asked}
    assert set(sent["/step"]) == {DIALECTS[dialect].key, "action"}


def test_the_world_of_agentgym_keeps_our_contract() -> None:
    with MisbehavingServer(Gym("textcraft")) as server:
        report = agentrl.check_env(
            lambda: AgentGymEnv(server.url, dialect="textcraft"), actions=["look", "win"], skip=["snapshot"]
        )
        assert not report.errors, str(report)
        env = AgentGymEnv(server.url, dialect="textcraft")
        env.reset(seed=0)
        with pytest.raises(EnvironmentUsageError, match="cannot be copied"):
            env.snapshot()
        env.close()


def test_a_wrong_answer_that_the_server_would_judge_ends_the_episode() -> None:
    with MisbehavingServer(Gym("searchqa")) as server:
        env = AgentGymEnv(server.url, dialect="searchqa")
        env.reset(seed=0, options={"index": 0})
        assert env.step("<search>tea</search>")[2] is False
        assert env.step("<answer>wrong</answer>") == (OVER, 0.0, True, False, {"success": False})
        env.reset(seed=0, options={"index": 0})
        assert env.step("<answer>gold</answer>")[1:4] == (1.0, True, False)
        env.close()


@pytest.mark.parametrize(
    ("action", "told"),
    [("break", "reports an error: the game crashed"), ("nan", "gave the reward 'much', which is no number")],
)
def test_errors_with_status_200_are_infrastructure(action: str, told: str) -> None:
    with MisbehavingServer(Gym("babyai")) as server:
        env = AgentGymEnv(server.url, dialect="babyai")
        env.reset(seed=0)
        with pytest.raises(EnvironmentFault, match=told):
            env.step(action)
        env.close()
    with (
        MisbehavingServer(Gym("alfworld", error="no free game")) as server,
        pytest.raises(EnvironmentFault, match="no free game"),
    ):
        AgentGymEnv(server.url, dialect="alfworld").reset(seed=0)


def test_a_pool_that_is_used_up_is_noticed() -> None:
    with MisbehavingServer(Gym("sqlgym", pool=1)) as server:
        first, second = (AgentGymEnv(server.url, dialect="sqlgym") for _ in range(2))
        first.reset(seed=0)
        with pytest.raises(EnvironmentFault, match="gave out its environment 0 twice"):
            second.reset(seed=0)
        first.close()
        second.reset(seed=0)
        copied = copy.deepcopy(second)
        assert copied.num_tasks("train") is None
        second.close()


@pytest.mark.parametrize("fault", ["status 500", "garbage", "reset", "short", "silent", "redirect"])
def test_a_step_is_sent_once_whatever_becomes_of_it(fault: Any) -> None:
    gym = Gym("textcraft")
    with MisbehavingServer(gym, [None, None, fault]) as server:
        env = AgentGymEnv(server.url, dialect="textcraft", seconds=0.5)
        env.reset(seed=0)
        with pytest.raises(EnvironmentFault):
            env.step("look")
        assert [asked.path for asked in server.asked] == ["/create", "/reset", "/step"]
        env.close()


def test_failures_of_a_server_are_invalid_rollouts_and_never_zeros() -> None:
    with MisbehavingServer(Gym("textcraft")) as server:
        results = agentrl.collect(
            lambda: AgentGymEnv(server.url, dialect="textcraft"), ScriptedPolicy(["look", "break"]), tasks=2
        )
        assert all(isinstance(result, Invalid) for result in results)
        (fine,) = agentrl.collect(
            lambda: AgentGymEnv(server.url, dialect="textcraft"), ScriptedPolicy(["look", "win"])
        )
        assert isinstance(fine, Trajectory)
        assert fine.reward == 1.0


def test_wrong_settings_are_sentences() -> None:
    with pytest.raises(ConfigError, match=r"no dialect 'webshp'\. Did you mean 'webshop'"):
        AgentGymEnv("http://a", dialect="webshp")
    with pytest.raises(ConfigError, match="no address of a server"):
        AgentGymEnv("webshop", dialect="webshop")
    with pytest.raises(ConfigError, match=r"is \[first, number\] of tasks.*got \[-1\]"):
        AgentGymEnv("http://a", dialect="webshop", splits={"train": [-1]})
    with pytest.raises(ConfigError, match="no address of a server"):
        OpenEnvEnv("ftp://a")


needs_websockets = pytest.mark.skipif(
    importlib.util.find_spec("websockets") is None, reason="the extra `openenv` is not installed"
)


def echo(socket: ServerConnection) -> None:
    """An OpenEnv server: counts a session's steps, ends at "win", and goes wrong when told to."""
    steps, seed = 0, 0
    for line in socket:
        message = json.loads(line)
        data = message.get("data", {})
        if message["type"] == "close":
            return
        action = data.get("message")
        if message["type"] == "reset":
            steps, seed = 0, data["seed"]
            if seed == 9:
                error = {"message": "no slot", "code": "CAPACITY_REACHED"}
                socket.send(json.dumps({"type": "error", "data": error}))
                return
            told: dict[str, object] = {
                "observation": {"text": f"task {seed}", "n": 0},
                "reward": None,
                "done": False,
            }
        elif action == "die":
            socket.close()
            return
        elif action == "hang":
            threading.Event().wait(1.5)
            return
        elif action == "garbage":
            socket.send("{")
            continue
        elif not isinstance(action, str) or action in {"bad", "crash"}:
            code = "EXECUTION_ERROR" if action == "crash" else "VALIDATION_ERROR"
            error = {"message": f"cannot do {action}", "code": code}
            socket.send(json.dumps({"type": "error", "data": error}))
            continue
        else:
            steps += 1
            won = action == "win"
            told = {"observation": {"text": f"step {steps}", "n": steps}, "reward": won, "done": won}
        socket.send(json.dumps({"type": "observation", "data": told}))


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    from websockets.sync.server import serve

    with serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(10)


@needs_websockets
def test_openenv_is_spoken(address: str) -> None:
    env = agentrl.make(f"openenv:{address}")
    assert env.reset(seed=0, options={"index": 3}) == ("task 3", {"domain": "openenv"})
    assert env.step("go") == ("step 1", 0.0, False, False, {})
    assert env.step("bad") == ("cannot do bad", 0.0, False, False, {"valid": False})
    assert env.step("win") == ("step 2", 1.0, True, False, {"success": True})
    env.close()
    whole = OpenEnvEnv(address, action="", observation="n", max_steps=3, tasks={"train": 4})
    whole.reset(seed=0, options={"index": 1})
    assert whole.step('{"message": "go"}') == ("1", 0.0, False, False, {})
    assert whole.step("go")[4] == {"valid": False}
    assert whole.step('{"message": "go"}')[2:] == (False, True, {"success": False})
    whole.close()


@needs_websockets
def test_the_world_of_openenv_keeps_our_contract(address: str) -> None:
    report = agentrl.check_env(lambda: OpenEnvEnv(address), actions=["go", "win"], skip=["snapshot"])
    assert not report.errors, str(report)


@needs_websockets
@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("die", "failed: ConnectionClosed"),
        ("hang", "did not answer within 0.5 s"),
        ("garbage", "failed: JSONDecodeError"),
        ("crash", r"reports an error: cannot do crash \(EXECUTION_ERROR\)"),
    ],
)
def test_an_openenv_server_that_fails_is_infrastructure(address: str, action: str, told: str) -> None:
    env = OpenEnvEnv(address, seconds=0.5)
    env.reset(seed=0)
    with pytest.raises(EnvironmentFault, match=told):
        env.step(action)
    with pytest.raises(EnvironmentFault, match=r"failed: ConnectionRefusedError.*Start an OpenEnv server"):
        OpenEnvEnv("http://127.0.0.1:9").reset(seed=0)
    with pytest.raises(
        EnvironmentFault, match=r"is full: no slot \(CAPACITY_REACHED\)\. Raise its max_concurrent_envs"
    ):
        OpenEnvEnv(address).reset(seed=0, options={"index": 9})
    env.close()


def test_without_websockets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        del name

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(MissingExtraError, match=r"agentrl\[openenv\]"):
        OpenEnvEnv("http://a")


def test_prefixes_are_found() -> None:
    for prefix in ("agentgym", "openenv"):
        assert spec(f"{prefix}:http://127.0.0.1:36001").kwargs == {"name": "http://127.0.0.1:36001"}

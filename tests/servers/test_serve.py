"""Our worlds over HTTP: the same episodes as in process, each action once, failures told apart."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, ClassVar, cast

import httpx
import pytest
import uvicorn

import agentrl
from agentrl.errors import ConfigError, EnvironmentFault, EnvironmentUsageError
from agentrl.run.serve import ServeLimits, Sessions
from agentrl.run.serve.app import MOST_BYTES, build, check_exposure
from agentrl.run.settings import EnvironmentSettings
from agentrl.run.shard import protocol_of
from agentrl.testing import Faults, FaultyEnv, ScriptedPolicy, WordWorld
from agentrl.trajectory import Invalid, InvalidReason, Trajectory
from agentrl.world.remote import RemoteEnv, protocol_from_plain, protocol_to_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

HOUSEHOLD = "agentrl/Household-v0"


@contextlib.contextmanager
def offered(
    make: Callable[[], agentrl.TextEnv],
    limits: ServeLimits | None = None,
    *,
    token: str = "",
    privileged: bool = False,
) -> Generator[tuple[str, Sessions]]:
    sessions = Sessions(make, limits, privileged=privileged)
    config = uvicorn.Config(
        build(sessions, token=token), host="127.0.0.1", port=0, log_level="error", lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", sessions
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def echo() -> Callable[[str], str]:
    return lambda observation: observation.partition("Say ")[2].rstrip(".")


def post(url: str, content: object = None, **headers: str) -> httpx.Response:
    return httpx.post(url, json=content if content is not None else {}, headers=headers, timeout=20)


class Bells(agentrl.TextEnv):
    """A world of tools that counts how often they ran."""

    rung: ClassVar[Counter[str]] = Counter()

    @agentrl.tool
    def ring(self, times: int) -> str:
        """Ring.

        Args:
            times: how often.
        """
        Bells.rung["bell"] += 1
        return "Ding. " * times

    @agentrl.tool
    def stop(self) -> str:
        """Stop."""
        self.finish(reward=0.5, success=True)
        return "Over."


def test_episodes_behind_the_server_are_those_in_process() -> None:
    policy = ScriptedPolicy(echo)
    here = agentrl.collect(WordWorld, policy, split="valid_seen", tasks=6, members=2)
    with offered(WordWorld) as (url, _):
        there = agentrl.collect(lambda: RemoteEnv(url), policy, split="valid_seen", tasks=6, members=2)
    for mine, theirs in zip(here, there, strict=True):
        assert isinstance(mine, Trajectory)
        assert isinstance(theirs, Trajectory)
        assert [(t.observation, t.text, t.reward, t.kind, t.valid) for t in mine.turns] == [
            (t.observation, t.text, t.reward, t.kind, t.valid) for t in theirs.turns
        ]
        assert (mine.success, mine.stop, mine.task_type) == (theirs.success, theirs.stop, theirs.task_type)
        anchors = [turn.observation_key for turn in theirs.turns]
        assert len(set(anchors)) == len({turn.observation_key for turn in mine.turns})


def test_a_world_of_tools_keeps_its_protocol_its_calls_and_its_system_text() -> None:
    script = ["<ring>2</ring>", "<ring>many</ring>", "<stop></stop>"]
    (here,) = agentrl.collect(Bells, ScriptedPolicy(script))
    with offered(Bells) as (url, _):
        (there,) = agentrl.collect(lambda: RemoteEnv(url), ScriptedPolicy(script))
        env = RemoteEnv(url)
        for name in ("tags", "fenced", "json"):
            protocol_of(EnvironmentSettings(id="bells", protocol=name), env)
        with pytest.raises(ConfigError, match="bells reads calls of its tools, never plain text"):
            protocol_of(EnvironmentSettings(id="bells", protocol="plain"), env)
        env.protocol = env.default_protocol()
        env.reset(seed=1)
        assert "<ring>" in env.system_text()
        env.close()
    assert isinstance(here, Trajectory)
    assert isinstance(there, Trajectory)
    for mine, theirs in zip(here.turns, there.turns, strict=True):
        assert (mine.kind, mine.reward, mine.observation) == (theirs.kind, theirs.reward, theirs.observation)
        assert [(c.name, c.arguments, c.result, c.error) for c in mine.tool_calls] == [
            (c.name, c.arguments, c.result, c.error) for c in theirs.tool_calls
        ]
    assert (here.success, there.success) == (True, True)


def test_a_turn_that_is_sent_again_is_executed_once() -> None:
    Bells.rung.clear()
    with offered(Bells) as (url, _):
        session = post(f"{url}/sessions").json()["session"]
        turn = {"turn": 0, "action": "<ring>1</ring>"}
        first, second = (post(f"{url}/sessions/{session}/step", turn).json() for _ in range(2))
        assert first == second
        assert Bells.rung["bell"] == 1
        late = post(f"{url}/sessions/{session}/step", {"turn": 5, "action": "x"})
        assert (late.status_code, late.json()["error"]) == (
            409, "turn 5 is out of order; the session's next turn is 1",
        )  # fmt: skip


def test_many_sessions_are_stepped_in_one_call() -> None:
    with offered(WordWorld) as (url, _):
        opened = [post(f"{url}/sessions", {"split": "train", "index": k, "seed": k}).json() for k in range(5)]
        turns: list[dict[str, object]] = [
            {"session": item["session"], "turn": 0, "action": echo()(item["observation"])} for item in opened
        ]
        turns.insert(2, {"session": "gone", "turn": 0, "action": "x"})
        answers = post(f"{url}/step", turns).json()
    assert [answer.get("reward") for answer in answers] == [1.0, 1.0, None, 1.0, 1.0, 1.0]
    assert answers[2]["status"] == 404


def test_privileged_knowledge_is_given_by_privileged_servers_only() -> None:
    def first(privileged: bool) -> tuple[RemoteEnv, str]:
        with offered(lambda: agentrl.make(HOUSEHOLD), privileged=privileged) as (url, _):
            env = RemoteEnv(url)
            observation, _ = env.reset(seed=3, options={"split": "train", "index": 2})
            env.close()
            return env, observation

    plain, observation = first(privileged=False)
    assert (plain.state_key(), plain.admissible(), plain.gold()) == (None, None, None)
    knowing, same = first(privileged=True)
    assert observation == same
    assert knowing.state_key() is not None
    assert "inventory" in (knowing.admissible() or ())


def test_a_server_for_others_wants_a_token_and_checks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 can be reached from other machines"):
        check_exposure("0.0.0.0", "")
    check_exposure("0.0.0.0", "secret")
    check_exposure("127.0.0.1", "")
    with offered(WordWorld, token="secret") as (url, _):
        assert post(f"{url}/sessions").status_code == 401
        assert post(f"{url}/sessions", authorization="Bearer secre").status_code == 401
        assert post(f"{url}/sessions", authorization="Bearer secret").status_code == 200
        assert httpx.get(f"{url}/health").status_code == 200
        with pytest.raises(EnvironmentFault, match="401"):
            RemoteEnv(url)
        monkeypatch.setenv("AGENTRL_TOKEN", "secret")
        env = RemoteEnv(url)
        env.reset(seed=0)
        env.close()


def test_bounds_of_sessions_bodies_and_actions() -> None:
    limits = ServeLimits(sessions=2, action_characters=10, idle_seconds=3.0)
    with offered(WordWorld, limits) as (url, sessions):
        names = [post(f"{url}/sessions").json()["session"] for _ in range(2)]
        full = post(f"{url}/sessions")
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        long = post(f"{url}/sessions/{names[0]}/step", {"turn": 0, "action": "x" * 11})
        assert long.status_code == 413
        assert httpx.post(f"{url}/step", content=b"x" * (MOST_BYTES + 1)).status_code == 413
        time.sleep(3.1)
        assert post(f"{url}/sessions").status_code == 200  # the idle ones were closed
        assert post(f"{url}/sessions/{names[0]}/step", {"turn": 0, "action": "x"}).status_code == 404
        assert len(sessions) == 1


@pytest.mark.parametrize(
    ("opening", "status"),
    [
        ({"split": "nowhere"}, 422),
        ({"index": -1}, 422),
        ({"seed": "x"}, 422),
        ({"protocol": {"kind": "Morse"}}, 422),
        ({"protocol": {"kind": "Tags", "fields": {"max_calls": "many"}}}, 422),
        ([], 422),
    ],
)
def test_wrong_openings_are_refused(opening: object, status: int) -> None:
    with offered(WordWorld) as (url, sessions):
        assert httpx.post(f"{url}/sessions", json=opening).status_code == status
        assert len(sessions) == 0


def test_the_page_of_calls_needs_no_network() -> None:
    with offered(WordWorld) as (url, _):
        page = httpx.get(f"{url}/docs").text
    assert "/sessions/{session}/step" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_session_that_the_server_forgot_is_infrastructure() -> None:
    with offered(WordWorld, ServeLimits(idle_seconds=0.1)) as (url, _):
        env = RemoteEnv(url)
        env.reset(seed=0)
        time.sleep(0.2)
        other = RemoteEnv(url)
        other.reset(seed=1)
        with pytest.raises(EnvironmentFault, match="forgot the session"):
            env.step("x")
        env.close()
        other.close()


def test_a_server_that_is_gone_is_infrastructure_and_never_a_zero() -> None:
    with offered(WordWorld) as (url, _):
        env = RemoteEnv(url, seconds=1.0)
        env.reset(seed=0)
    with pytest.raises(EnvironmentFault, match="no server answered"):
        env.step("x")
    env.close()
    with pytest.raises(EnvironmentFault):
        RemoteEnv(url, seconds=0.5)


def test_two_hundred_rollouts_with_ten_percent_of_failures_lose_and_double_nothing() -> None:
    faults = Faults(0.1, ("fault",), seed=4)
    with offered(lambda: FaultyEnv(WordWorld(), faults=faults), ServeLimits(sessions=400)) as (url, sessions):
        results = agentrl.collect(lambda: RemoteEnv(url), ScriptedPolicy(echo), split="train", tasks=200)
        assert len(sessions) == 0
    honest = agentrl.collect(WordWorld, ScriptedPolicy(echo), split="train", tasks=200)
    assert faults.count > 50
    assert len(results) == 200
    tasks = Counter(item.task for item in results)
    assert set(tasks.values()) == {1}
    for item, other in zip(results, honest, strict=True):
        assert isinstance(other, Trajectory)
        if isinstance(item, Invalid):
            assert item.reason is InvalidReason.ENVIRONMENT_FAULT
        else:
            assert (item.task, item.reward, item.success) == (other.task, other.reward, other.success)
    assert sum(isinstance(item, Trajectory) for item in results) > 120


def test_evaluations_and_settings_take_a_world_behind_a_server() -> None:
    with offered(lambda: agentrl.make(HOUSEHOLD, settings="two_rooms"), privileged=True) as (url, _):
        suite = agentrl.EvaluationSuite.model_validate(
            {
                "environment": {"id": "agentrl.world.remote:RemoteEnv", "kwargs": {"url": url}},
                "scenario": [{"split": "valid_unseen", "tasks": 3}],
                "processes": 1,
                "limits": {"turns": 4},
            }
        )
        row = agentrl.evaluate(suite, "random").row("random")
    assert row.success.n_rollouts == 3
    assert cast("dict[str, int]", row.content()["counts"])["infrastructure"] == 0


def test_protocols_cross_the_wire() -> None:
    for protocol in (agentrl.Tags(names=("a",)), agentrl.Fenced(), agentrl.JsonCalls(3), agentrl.PlainText()):
        assert protocol_from_plain(protocol_to_plain(protocol)) == protocol

    class Mine(agentrl.PlainText):
        """The user's own."""

    with pytest.raises(ConfigError, match="Mine cannot be sent"):
        protocol_to_plain(Mine())


def test_what_a_remote_world_cannot_do_is_said() -> None:
    with offered(WordWorld) as (url, _):
        env = RemoteEnv(url)
        with pytest.raises(EnvironmentUsageError, match="cannot be copied"):
            env.snapshot()
        with pytest.raises(EnvironmentUsageError, match="no split 'x'"):
            env.reset(options={"split": "x"})
        env.close()
        with pytest.raises(EnvironmentUsageError, match="was closed"):
            env.reset(seed=0)

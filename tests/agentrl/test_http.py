"""HTTP calls: every way in which a server misbehaves ends in time, with an answer or a sentence."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import ConfigError, ServerRefused, ServerUnavailable
from agentrl.http import Patience, Servers
from agentrl.testing.server import PASSING_FAULTS, Asked, MisbehavingServer, Told

if TYPE_CHECKING:
    from agentrl.http import Answer
    from agentrl.testing.server import Fault
QUICK = Patience(
    total_seconds=10.0, connect_seconds=0.5, read_seconds=0.5, attempts=3, pause_seconds=0.01,
    most_bytes=1 << 20, rest_seconds=0.2,
)  # fmt: skip


def echo(asked: Asked) -> Told:
    return Told({"path": asked.path, "said": asked.json() if asked.body else None})


async def _post(servers: Servers, content: object = None) -> Answer:
    try:
        return await servers.post("/echo", content)
    finally:
        await servers.aclose()


def post(servers: Servers, content: object = None) -> Answer:
    return asyncio.run(_post(servers, content))


@pytest.mark.parametrize("fault", [fault for fault in PASSING_FAULTS if fault != "drip"])
def test_what_may_pass_is_tried_again(fault: Fault) -> None:
    with MisbehavingServer(echo, [fault]) as server:
        answer = post(Servers([server.url], patience=QUICK), {"a": 1})
    assert answer.value == {"path": "/echo", "said": {"a": 1}}
    assert answer.attempts == 2


def test_a_byte_a_second_is_cut_off_by_the_deadline_of_the_call() -> None:
    patience = Patience(total_seconds=2.5, read_seconds=2.0, attempts=3)
    began = time.monotonic()
    with (
        MisbehavingServer(echo, ["drip"]) as server,
        pytest.raises(ServerUnavailable, match=r"deadline of 2\.5"),
    ):
        post(Servers([server.url], patience=patience), {})
    assert time.monotonic() - began < 60


def test_faults_without_end_give_a_sentence_with_the_last_failure() -> None:
    with MisbehavingServer(echo, ["status 500", "garbage", "bomb"]) as server:
        with pytest.raises(
            ServerUnavailable, match=r"3 attempts failed.*longer than 1048576 bytes.*Check that"
        ):
            post(Servers([server.url], patience=QUICK), {})
        assert len(server.asked) == 3


def test_a_redirect_is_refused_and_names_where_it_leads() -> None:
    with (
        MisbehavingServer(echo, ["redirect"]) as server,
        pytest.raises(ServerRefused, match="302 to /echo") as e,
    ):
        post(Servers([server.url], patience=QUICK), {})
    assert e.value.status == 302


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_no_repetition_mends_is_refused_at_once(status: int) -> None:
    with MisbehavingServer(lambda _: Told({"error": "no"}, status)) as server:
        with pytest.raises(ServerRefused, match=f"status {status}"):
            post(Servers([server.url], patience=QUICK), {})
        assert len(server.asked) == 1


def test_a_server_that_asks_for_an_hour_ends_the_call_now() -> None:
    began = time.monotonic()
    with (
        MisbehavingServer(echo, ["status 429"], retry_after="3600") as server,
        pytest.raises(ServerUnavailable, match="after the deadline, in 3600 s"),
    ):
        post(Servers([server.url], patience=QUICK), {})
    assert time.monotonic() - began < 60


def test_retry_after_is_waited_for_as_seconds_and_as_a_date() -> None:
    with MisbehavingServer(echo, ["status 429"], retry_after="1") as server:
        assert post(Servers([server.url], patience=QUICK), {}).seconds >= 1.0
    with MisbehavingServer(echo, ["status 429"], retry_after="Wed, 21 Oct 2015 07:28:00 GMT") as server:
        assert post(Servers([server.url], patience=QUICK), {}).attempts == 2


def test_nobody_listens() -> None:
    with MisbehavingServer(echo) as server:
        gone = server.url
    with pytest.raises(ServerUnavailable, match=r"ConnectError.*Check that http://127\.0\.0\.1:\d+ runs"):
        post(Servers([gone], patience=QUICK), {})


def test_a_server_that_stays_away_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with MisbehavingServer(echo) as server:
        gone = server.url
    servers = Servers([gone], patience=replace(QUICK, attempts=5, rest_after=3))
    with pytest.raises(ServerUnavailable):
        post(servers, {})
    (told,) = caplog.messages
    assert told.startswith(f"{gone} failed 3 times in a row (ConnectError")


def test_a_name_that_does_not_resolve_is_a_sentence() -> None:
    with pytest.raises(ServerUnavailable, match=r"nowhere\.invalid"):
        post(Servers(["http://nowhere.invalid"], patience=QUICK), {})


def test_another_server_takes_over() -> None:
    with MisbehavingServer(echo) as gone:
        pass
    with MisbehavingServer(echo) as server:
        servers = Servers([gone.url, server.url], patience=QUICK)

        async def many() -> list[str]:
            try:
                answers = await asyncio.gather(*(servers.post("/echo", {}, sticky=str(k)) for k in range(20)))
                return [answer.url for answer in answers]
            finally:
                await servers.aclose()

        assert set(asyncio.run(many())) == {server.url}


def test_calls_of_one_name_prefer_one_server() -> None:
    with MisbehavingServer(echo) as first, MisbehavingServer(echo) as second:
        servers = Servers([first.url, second.url], patience=QUICK)

        async def many() -> list[str]:
            try:
                return [(await servers.post("/echo", {}, sticky=name)).url for name in "abcdefgh" * 2]
            finally:
                await servers.aclose()

        urls = asyncio.run(many())
    assert urls[:8] == urls[8:]
    assert set(urls) == {first.url, second.url}


def test_at_most_so_many_calls_are_under_way() -> None:
    under_way, most = 0, 0

    def slow(asked: Asked) -> Told:
        return echo(asked)

    class Counting(Servers):
        async def _exchange(self, *arguments: object) -> object:  # type: ignore[override]
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                return await super()._exchange(*arguments)  # type: ignore[arg-type]
            finally:
                under_way -= 1

    with MisbehavingServer(slow) as server:
        servers = Counting([server.url], patience=QUICK, concurrency=3)

        async def many() -> None:
            try:
                await asyncio.gather(*(servers.post("/echo", {}) for _ in range(20)))
            finally:
                await servers.aclose()

        asyncio.run(many())
        assert len(server.asked) == 20
    assert most == 3


def test_calls_are_paced() -> None:
    with MisbehavingServer(echo) as server:
        servers = Servers([server.url], patience=QUICK, per_minute=600)

        async def many() -> float:
            began = time.monotonic()
            try:
                await asyncio.gather(*(servers.post("/echo", {}) for _ in range(5)))
            finally:
                await servers.aclose()
            return time.monotonic() - began

        assert asyncio.run(many()) >= 0.4


def test_a_cancelled_call_leaves_connections_that_work() -> None:
    with MisbehavingServer(echo, ["silent", "silent"]) as server:
        servers = Servers([server.url], patience=Patience(attempts=1))

        async def work() -> object:
            try:
                for number in range(2):
                    call = asyncio.create_task(servers.post("/echo", {}))
                    while len(server.asked) == number:  # noqa: ASYNC110  # the server is in another thread
                        await asyncio.sleep(0.01)
                    call.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await call
                return (await servers.post("/echo", {"b": 2})).value
            finally:
                await servers.aclose()

        assert asyncio.run(work()) == {"path": "/echo", "said": {"b": 2}}


def test_the_same_object_works_in_one_loop_after_another() -> None:
    with MisbehavingServer(echo) as server:
        servers = Servers([server.url], patience=QUICK)
        assert [post(servers, {"k": k}).attempts for k in range(3)] == [1, 1, 1]


def test_no_error_and_no_repr_shows_the_key() -> None:
    key = "sk-very-secret-key"

    def leak(asked: Asked) -> Told:
        return Told({"error": f"wrong key {asked.headers['authorization']}"}, 401)

    with MisbehavingServer(leak) as server:
        servers = Servers([server.url], patience=QUICK, headers={"authorization": f"Bearer {key}"})
        with pytest.raises(ServerRefused) as caught:
            post(servers, {})
        assert server.asked[0].headers["authorization"] == f"Bearer {key}"
    assert key not in str(caught.value)
    assert "***" in str(caught.value)
    assert key not in repr(servers)


@pytest.mark.parametrize(
    ("urls", "sentence"),
    [
        ([], "no server was named"),
        (["localhost:8000"], "is no address of a server"),
        (["ftp://here/v1"], "is no address of a server"),
        (["http://me:secret@here/v1"], "holds a password"),
    ],
)
def test_addresses_are_checked(urls: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        Servers(urls)
    assert "secret" not in str(caught.value)


def test_bounds_are_checked() -> None:
    with pytest.raises(ConfigError, match="concurrency is 0"):
        Servers(["http://here"], concurrency=0)
    with pytest.raises(ConfigError, match="attempts is 0"):
        Patience(attempts=0)

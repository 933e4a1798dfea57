"""One suite for every back end, and what a server that fails is taken for."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import ConfigError, SandboxError
from agentrl.sandbox.opening import open_sandbox
from agentrl.sandbox.remote import RemoteSandbox
from agentrl.sandbox.result import Limits, Program, Status, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentrl.sandbox.base import Backend
    from agentrl.sandbox.jail import Sandbox

LIMITS = Limits(wall_seconds=5, memory=256 << 20, kept_output=1000)
SHORT = Limits(wall_seconds=0.5, memory=256 << 20)


class _Fusion(BaseHTTPRequestHandler):
    """A server of SandboxFusion's two calls, over our own jail."""

    sandbox: Sandbox

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self._run(asked) if self.path == "/run_code" else self._notebook(asked)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name of the base class
        pass

    def _run(self, asked: dict[str, str]) -> dict[str, object]:
        limits = Limits(wall_seconds=float(asked["run_timeout"]), memory=int(asked["memory_limit_MB"]) << 20)
        program = Program(asked["code"], files=_decoded(asked["files"]), stdin=asked["stdin"])
        result = self.sandbox.run(program, limits)
        late = result.status is Status.TIMEOUT
        ran = {
            "status": "TimeLimitExceeded" if late else "Finished",
            "return_code": None if late else result.returncode,
            "stdout": result.stdout,
            "stderr": result.stderr,
        }
        return {"status": "Success" if result.ok else "Failed", "message": "", "run_result": ran}

    def _notebook(self, asked: dict[str, object]) -> dict[str, object]:
        limits = Limits(wall_seconds=float(str(asked["cell_timeout"])), memory=256 << 20)
        cells: list[dict[str, object]] = []
        with self.sandbox.open_session(limits, files=_decoded(asked["files"])) as session:
            for code in asked["cells"]:  # type: ignore[attr-defined]  # a list of texts
                result = session.run(code)
                if result.status is Status.TIMEOUT:
                    return {"status": "Failed", "message": "", "driver": {"status": "TimeLimitExceeded"}}
                name, _, value = result.stderr.rstrip().rsplit("\n", 1)[-1].partition(": ")
                error = [] if result.ok else [{"ename": name, "evalue": value, "traceback": []}]
                cells.append({"stdout": result.stdout, "stderr": "", "display": [], "error": error})
        return {"status": "Success", "message": "", "driver": {"status": "Finished"}, "cells": cells}


def _decoded(files: object) -> dict[str, str]:
    assert isinstance(files, dict)
    return {name: base64.b64decode(text).decode() for name, text in files.items()}


@pytest.fixture(scope="module")
def jail(open_jail: Callable[[str, Limits], Sandbox]) -> Iterator[Sandbox]:
    with open_jail("auto", LIMITS) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(jail: Sandbox) -> Iterator[str]:
    handler = type("Handler", (_Fusion,), {"sandbox": jail})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", params=["auto", "bwrap", "unconfined", "remote"])
def sandbox(request: pytest.FixtureRequest, open_jail: Callable[[str, Limits], Sandbox]) -> Iterator[Backend]:
    named: str = request.param
    opened: Backend
    if named == "remote":
        opened = open_sandbox(request.getfixturevalue("address"), limits=LIMITS)
    else:
        opened = open_jail(named, LIMITS)
    assert isinstance(opened, RemoteSandbox) == (named == "remote")
    assert named in {"auto", str(opened.tier)}
    yield opened
    opened.close()


async def test_programs(sandbox: Backend) -> None:
    program = Program("print(open('d/a.txt').read(), input())", files={"d/a.txt": "file"}, stdin="typed\n")
    result = sandbox.run(program)
    assert (result.status, result.stdout, result.returncode) == (Status.OK, "file typed\n", 0)
    assert result.tier is sandbox.tier
    assert (await sandbox.execute("print(1)")).stdout == "1\n"
    failed = sandbox.run("import sys; print('x'); sys.exit(3)")
    assert (failed.status, failed.returncode, failed.stdout) == (Status.ERROR, 3, "x\n")
    assert "ZeroDivisionError" in sandbox.run("1 / 0").stderr
    assert sandbox.run("while True: pass", SHORT).status is Status.TIMEOUT
    assert sandbox.run("bytearray(1 << 30)").status is Status.MEMORY


def test_seed_and_setup(sandbox: Backend) -> None:
    program = Program("import random; print(said(), random.random())", seed=7, setup="def said(): return 'x'")
    first = sandbox.run(program)
    assert first.stdout.startswith("x 0.3238")
    assert sandbox.run(program).stdout == first.stdout


def test_output_is_cut_and_counted(sandbox: Backend) -> None:
    result = sandbox.run("print('x' * 3000)")
    assert (len(result.stdout), result.truncated) == (1000, (2001, 0))


def test_sessions(sandbox: Backend) -> None:
    session = sandbox.open_session(files={"a.txt": "file"}, seed=7, setup="def twice(x): return 2 * x")
    session.run("kept = twice(1)")
    assert session.run("print(open('a.txt').read())\nkept").stdout == "file\n2\n"
    assert "ZeroDivisionError" in session.run("kept = 3\n1 / 0").stderr
    assert session.run("while True: pass", SHORT).status is Status.TIMEOUT
    other = session.branch()
    other.run("kept = 99")
    assert session.run("kept").stdout == "3\n"
    assert other.run("kept").stdout == "99\n"
    session.close()
    other.close()
    with pytest.raises(SandboxError, match="closed"):
        session.run("kept")


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (500, b"down", "status 500"),
        (200, b"<html>", "no JSON"),
        (200, b"[]", "no JSON object"),
        (200, b'{"status": "SandboxError", "message": "no disk left"}', "no disk left"),
        (200, b'{"status": "Success"}', "no run_result"),
        (200, b'{"status": "Failed", "run_result": {"status": "Error", "return_code": null}}', "'Error'"),
    ],
)
def test_what_a_server_breaks_is_infrastructure(status: int, body: bytes, says: str) -> None:
    class Broken(_Fusion):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        with RemoteSandbox(f"http://127.0.0.1:{server.server_address[1]}") as sandbox:
            result = sandbox.run("pass")
        server.shutdown()
        thread.join()

    assert (result.status, result.tier) == (Status.INFRA_ERROR, Tier.REMOTE)
    assert says in result.message


def test_a_server_that_is_not_there_is_infrastructure_and_a_wrong_address_a_sentence() -> None:
    with RemoteSandbox("http://127.0.0.1:9") as sandbox:
        assert sandbox.run("pass").status is Status.INFRA_ERROR
    with pytest.raises(ConfigError, match="no address"):
        RemoteSandbox("localhost:8080")

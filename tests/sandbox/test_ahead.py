"""Jails that stand before anybody asks for them, and what becomes of everything when the trainer dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import SandboxError, SandboxUnavailable
from agentrl.sandbox import tree
from agentrl.sandbox.connection import Supervisor
from agentrl.sandbox.result import Limits, Program, Status

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from agentrl.sandbox.jail import Sandbox

ROOT = Path(__file__).parents[2]
LIMITS = Limits(wall_seconds=20, memory=256 << 20)
READABLE_PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module", params=["strict", "landlock"])
def sandbox(request: pytest.FixtureRequest, open_jail: Callable[[str, Limits], Sandbox]) -> Iterator[Sandbox]:
    with open_jail(request.param, LIMITS) as opened:
        yield opened


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("which", range(3), ids=["supervisor", "warden", "program"])
def test_a_jail_that_breaks_while_it_waits_is_nobodys_failure(
    which: int, sandbox: Sandbox, jail_ahead: Callable[[Sandbox], list[int]]
) -> None:
    waiting = jail_ahead(sandbox)
    os.kill(waiting[which], signal.SIGKILL)
    _until(lambda: not Path(f"/proc/{waiting[0]}").exists())

    results = [sandbox.run("print('well')") for _ in range(2)]

    assert [(each.status, each.stdout) for each in results] == [(Status.OK, "well\n")] * 2, results


def test_each_execution_takes_the_jail_that_waited_and_leaves_a_fresh_one(
    sandbox: Sandbox, jail_ahead: Callable[[Sandbox], list[int]]
) -> None:
    seen = set[int]()
    for _ in range(3):
        waiting = jail_ahead(sandbox)
        assert not seen & set(waiting)
        seen |= set(waiting)
        assert sandbox.run("import builtins; print(getattr(builtins, 'left', 0)); builtins.left = 1").ok


def test_a_host_that_looks_late_runs_a_program_once(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    begun = Supervisor.__init__

    def late(self: Supervisor, connection: socket.socket) -> None:
        time.sleep(0.3)  # as on a busy machine; the program has ended by then, and its supervisor too
        begun(self, connection)

    monkeypatch.setattr(Supervisor, "__init__", late)
    server = sandbox._server

    result = sandbox.run("print('once')")

    assert (result.status, result.stdout) == (Status.OK, "once\n")
    assert sandbox._server is server


def test_limits_are_those_of_the_request_and_not_of_the_jail_that_waited(sandbox: Sandbox) -> None:
    code = "import resource, sys; print(*(resource.getrlimit(each)[0] for each in (1, 6)))"
    wanted = Limits(wall_seconds=20, memory=256 << 20, disk=3 << 20, processes=9)
    shown = [int(word) for word in sandbox.run(code, wanted).stdout.split()]
    assert shown[0] == 3 << 20
    if str(sandbox.tier) == "strict":
        assert shown[1] == 9
        fill = "import os\nfor n in range(8): open(str(n), 'wb').write(b'x' * (1 << 20))"
        assert "No space left" in sandbox.run(fill, wanted).stderr
        assert sandbox.run(fill).ok


def test_files_that_cannot_be_laid_are_ours_to_report(sandbox: Sandbox) -> None:
    assert sandbox.run(Program("print(open('a/b').read())", files={"a/b": "x"})).stdout == "x\n"
    for path, words in (("a/b", "/a"), ("../x", "work folder")):
        files = {"a": ""}
        program = Program("pass", files=files)
        files[path] = ""  # after it was looked at
        result = sandbox.run(program)
        assert (result.status, words in result.message) == (Status.INFRA_ERROR, True), result


def test_a_fork_server_that_cannot_be_started_again_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    def refuse(*_: object) -> None:
        raise SandboxUnavailable("no memory")

    assert sandbox._server is not None
    sandbox._server._process.kill()
    sandbox._server._process.wait()
    with monkeypatch.context() as patch:
        patch.setattr("agentrl.sandbox.jail.ForkServer", refuse)
        for _ in range(2):
            assert (sandbox.run("1").status, sandbox.run("1").message) == (Status.INFRA_ERROR, "no memory")
        with pytest.raises(SandboxError, match="no memory"):
            sandbox.open_session()

    assert sandbox.run("print(1)").stdout == "1\n"


TRAINER = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
from agentrl.sandbox.jail import Sandbox
from agentrl.sandbox.result import Limits
sandbox = Sandbox(sys.argv[2], limits=Limits(wall_seconds=600), python=sys.argv[3])
session = sandbox.open_session()
hold = (
    "import os, subprocess, time\\n"
    "subprocess.Popen(['sleep', '600'], start_new_session=True)\\n"
    "if os.fork() == 0:\\n    os.setsid()\\n    os.fork()\\nprint('runs', flush=True)\\ntime.sleep(600)"
)
for run in (sandbox.run, session.run):
    threading.Thread(target=run, args=(hold,), daemon=True).start()
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("tier", "least"), [("strict", 13), ("landlock", 13), ("unconfined", 13), ("bwrap", 12)]
)
def test_when_the_trainer_is_killed_everything_ends_and_no_folder_is_left(
    tier: str, least: int, open_jail: Callable[[str, Limits], Sandbox]
) -> None:
    python = sys.executable if tier == "strict" else READABLE_PYTHON
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders let nobody through
        Path(place).chmod(0o1777)
        open_jail(tier, LIMITS).close()  # skips where there is none
        trainer = subprocess.Popen(
            [sys.executable, "-c", TRAINER, str(ROOT), tier, python], env={**os.environ, "TMPDIR": place}
        )
        try:
            _until(lambda: len(tree.below(trainer.pid)[0]) >= least)
            running = tree.below(trainer.pid)[0]
        finally:
            trainer.kill()
            trainer.wait()

        _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in running))
        _until(lambda: not list(Path(place).iterdir()))


def test_a_process_whose_parent_ends_meanwhile_is_not_out_of_sight(sandbox: Sandbox) -> None:
    """Each cell drops the state before the last, whose child falls to the warden while we look for it."""
    with sandbox.open_session() as session:
        for number in range(1, 40):
            assert session.run("x = globals().get('x', 0) + 1; x").stdout == f"{number}\n"

"""The tier without walls: only what it promises, and that it says so."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentrl.sandbox.probe import JAILS
from agentrl.sandbox.result import Limits, Status, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentrl.sandbox.jail import Sandbox

LIMITS = Limits(wall_seconds=5, memory=256 << 20)
DAEMON = """
import os, sys, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open(f"/proc/self/comm", "w").write("MARK")
            time.sleep(60)
        os._exit(0)
time.sleep(0.3)
"""


@pytest.fixture(scope="module")
def sandbox(open_jail: Callable[[str, Limits], Sandbox]) -> Iterator[Sandbox]:
    with open_jail("unconfined", LIMITS) as opened:
        yield opened


def _named(mark: str) -> list[str]:
    found: list[str] = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            found += [comm.parent.name] if comm.read_text().strip() == mark else []
        except OSError:
            continue
    return found


def test_opening_it_says_on_standard_error_that_nothing_is_isolated(
    capsys: pytest.CaptureFixture[str], open_jail: Callable[[str, Limits], Sandbox]
) -> None:
    with open_jail("unconfined", LIMITS) as sandbox:
        result = sandbox.run("print('ran')")

    said = capsys.readouterr()
    assert "NOT ISOLATED" in said.err
    assert said.out == ""
    assert (result.stdout, result.tier, sandbox.tier) == ("ran\n", Tier.UNCONFINED, Tier.UNCONFINED)
    assert "seccomp" not in result.layers


def test_auto_never_chooses_it() -> None:
    assert Tier.UNCONFINED not in JAILS


def test_the_environment_is_clean(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOP_SECRET", "gold")

    said = sandbox.run("import os; print('TOP_SECRET' in os.environ, os.environ['HOME'] == os.getcwd())")

    assert said.stdout == "False True\n"


def test_a_daemon_ends_with_its_execution(sandbox: Sandbox) -> None:
    mark = f"rl-{os.getpid()}"

    assert sandbox.run(DAEMON.replace("MARK", mark)).ok

    deadline = time.monotonic() + 5
    while _named(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _named(mark) == []


def test_a_program_that_ignores_signals_and_forks_is_stopped_in_time(sandbox: Sandbox) -> None:
    code = (
        "import os, signal\nfor number in (2, 15, 1): signal.signal(number, signal.SIG_IGN)\n"
        "os.fork(); os.fork()\nwhile True: pass"
    )

    result = sandbox.run(code, Limits(wall_seconds=0.5))

    assert result.status is Status.TIMEOUT
    assert sandbox.run("print('well')").stdout == "well\n"


def test_memory_is_watched_over_all_its_processes(sandbox: Sandbox) -> None:
    code = "import os, time\nfor _ in range(3): os.fork()\ndata = b'x' * (60 << 20)\ntime.sleep(3)"

    assert sandbox.run(code).status is Status.MEMORY


def test_nothing_is_left_in_its_folder(sandbox: Sandbox) -> None:
    where = sandbox.run("import os; open('left', 'w').close(); print(os.getcwd())").stdout.strip()

    deadline = time.monotonic() + 5
    while Path(where).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(where).exists()

"""Persistent sessions: what stays, what a stopped cell costs, snapshots and branches."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import SandboxError
from agentrl.sandbox.result import Limits, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentrl.sandbox.jail import Sandbox
    from agentrl.sandbox.session import JailSession

LIMITS = Limits(wall_seconds=5, memory=256 << 20)
SHORT = Limits(wall_seconds=0.5, memory=256 << 20)


@pytest.fixture(scope="module", params=["strict", "landlock"])
def sandbox(request: pytest.FixtureRequest, open_jail: Callable[[str, Limits], Sandbox]) -> Iterator[Sandbox]:
    with open_jail(request.param, LIMITS) as opened:
        yield opened


@pytest.fixture
def session(sandbox: Sandbox) -> Iterator[JailSession]:
    with sandbox.open_session() as opened:
        yield opened


def test_a_cell_sees_the_cells_before_it_and_shows_its_last_value(session: JailSession) -> None:
    assert session.run("import math\nx = 20").stdout == ""
    assert session.run("def half(): return x / 2\nhalf() + math.pi - math.pi").stdout == "10.0\n"
    assert session.run("print('said')\n'value'").stdout == "said\n'value'\n"


def test_an_error_names_cell_and_line_and_keeps_what_came_before_it(session: JailSession) -> None:
    session.run("x = 1")
    result = session.run("x = 2\n1 / 0\nx = 3")

    assert result.status is Status.ERROR
    assert 'File "cell 2", line 2' in result.stderr
    assert "1 / 0" in result.stderr
    assert session.run("x").stdout == "2\n"
    assert session.run("x = (").status is Status.ERROR
    assert session.run("import sys; sys.exit(3)").returncode == 3
    assert session.run("x").stdout == "2\n"


@pytest.mark.parametrize(
    ("cell", "status"),
    [
        ("while True: pass", Status.TIMEOUT),
        (
            "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\ntime.sleep(60)",
            "timeout",
        ),
        ("while True: print('x' * 65536)", Status.OUTPUT_LIMIT),
        ("print('x' * (9 << 20))", Status.OUTPUT_LIMIT),  # a cell that has ended when this is seen
        ("import os; os._exit(4)", Status.ERROR),
        ("import os; os.kill(os.getpid(), 9)", Status.KILLED),
        ("data = bytearray(600 << 20)", Status.MEMORY),
    ],
)
def test_a_cell_that_is_stopped_costs_nothing_but_itself(
    cell: str, status: str, session: JailSession
) -> None:
    session.run("kept = [1]")

    result = session.run(f"kept.append(2)\n{cell}", Limits(wall_seconds=2, memory=256 << 20))

    assert result.status == status, result
    assert not result.state_lost
    assert session.run("kept").stdout == "[1]\n"


def test_memory_of_many_processes_is_counted_together(session: JailSession) -> None:
    session.run("kept = 1")
    bomb = "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        d = b'x' * (90 << 20)\n"
    result = session.run(
        f"{bomb}        time.sleep(20)\ntime.sleep(20)", Limits(wall_seconds=20, memory=256 << 20)
    )

    assert result.status is Status.MEMORY
    following = session.run("kept")
    assert following.stdout == "1\n", following
    assert following.peak_memory < 90 << 20  # none of those that are ending


@pytest.mark.parametrize(
    "cell",
    ["p = os.fork()", "for _ in range(40):\n    try: p = os.fork()\n    except OSError: p = -1"],
    ids=["one child", "more children than there may be"],
)
def test_children_that_fall_out_of_a_cell_are_no_second_state(cell: str, session: JailSession) -> None:
    session.run("import os")
    for _ in range(3):
        session.run("mine = 0")  # what stands where the next cell is killed
        result = session.run(f"mine = os.getpid()\n{cell}")
        assert result.status in {Status.OK, Status.KILLED}, result
        # A child that fell out carries its parent's number.
        assert session.run("mine in {0, os.getppid()}").stdout == "True\n"


def test_a_bomb_of_processes_that_never_sleep_is_the_programs_own_end(sandbox: Sandbox) -> None:
    result = sandbox.run("import os\nwhile 1:\n    try: os.fork()\n    except OSError: pass")

    assert result.status in {Status.TIMEOUT, Status.KILLED}, result


def test_a_program_has_the_priority_of_the_host(sandbox: Sandbox, session: JailSession) -> None:
    ours = f"{os.getpriority(os.PRIO_PROCESS, 0)}\n"

    assert sandbox.run("import os\nprint(os.getpriority(os.PRIO_PROCESS, 0))").stdout == ours
    assert session.run("import os\nprint(os.getpriority(os.PRIO_PROCESS, 0))").stdout == ours
    assert session.run("os.setpriority(os.PRIO_PROCESS, 0, -20)").status is Status.ERROR


def test_nothing_of_a_cell_runs_on_between_cells(session: JailSession) -> None:
    session.run(
        "import os, subprocess, threading, time\nticks = [0]\n"
        "def tick():\n    while True:\n        ticks[0] += 1; time.sleep(0.001)\n"
        "threading.Thread(target=tick, daemon=True).start()\n"
        "subprocess.Popen(['sleep', '60'], start_new_session=True)\ntime.sleep(0.05)"
    )
    first = int(session.run("ticks[0]").stdout)
    time.sleep(0.2)

    assert int(session.run("ticks[0]").stdout) <= first + 50
    assert session.run("[os.waitpid(-1, os.WNOHANG)]").status is Status.ERROR
    assert "threads: 1" in session.run("print('threads:', threading.active_count())").stdout


def test_a_program_that_destroys_its_session_loses_its_variables_and_nothing_else(
    session: JailSession,
) -> None:
    session.run("x = 1")
    killer = "import os, signal\nfor pid in (os.getppid(), os.getpid()):\n    os.kill(pid, 9)"

    result = session.run(killer)

    assert (result.status, result.state_lost) == (Status.KILLED, True)
    assert "variables" in result.message
    assert "NameError" in session.run("x").stderr


def test_a_snapshot_brings_back_variables_files_and_randomness(session: JailSession) -> None:
    session.run("import random; x = [1]; open('f', 'w').write('first')")
    kept = session.snapshot()
    first = session.run("x.append(random.random()); open('f', 'w').write('second'); x").stdout

    session.restore(kept)
    assert session.run("x, open('f').read()").stdout == "([1], 'first')\n"
    session.restore(kept)
    assert session.run("x.append(random.random()); open('f', 'w').write('second'); x").stdout == first
    session.restore(kept, seed=5)
    assert session.run("x.append(random.random()); x").stdout != first
    kept.close()


def test_branches_do_not_see_each_other(session: JailSession) -> None:
    session.run("import os; x = 1; os.mkdir('d'); open('d/f', 'w').write('root')")
    with session.branch(seed=1) as left, session.branch(seed=2) as right:
        left.run("x = 2; open('d/f', 'w').write('left'); open('new', 'w').close()")
        right.run("x = 3; open('d/f', 'w').write('right')")
        # An interpreter that lies below /work is mounted there.
        look = "x, open('d/f').read(), [n for n in sorted(os.listdir('.')) if not os.path.ismount(n)]"

        assert left.run(look).stdout == "(2, 'left', ['d', 'new'])\n"
        assert right.run(look).stdout == "(3, 'right', ['d'])\n"
        assert session.run(look).stdout == "(1, 'root', ['d'])\n"
        assert (
            left.run("import random; random.random()").stdout
            != right.run("import random; random.random()").stdout
        )


def test_branches_share_no_memory_file(session: JailSession) -> None:
    """Only a jail with namespaces has such a folder."""
    with session.branch() as left, session.branch() as right:
        left.run("open('/dev/shm/left', 'w').close()")

        assert right.run("import os; os.path.exists('/dev/shm/left')").stdout == "False\n"


KILL_ALL = """
import os
for pid in [-1, *range(2, 64), *range(max(2, os.getpid() - 64), os.getpid() + 64)]:
    if pid != os.getpid():
        try: os.kill(pid, 9)
        except OSError: pass
"""
EXHAUST = """
import ctypes
libc, room = ctypes.CDLL(None), ctypes.create_string_buffer(24)
room[16] = 2
while True:
    made = libc.syscall(444, room, ctypes.c_size_t(24), 0)
    if libc.syscall(446, made, 0): break
"""


def test_branches_and_snapshots_are_out_of_each_others_reach(session: JailSession) -> None:
    session.run("x = 1")
    kept = session.snapshot()
    with session.branch() as left, session.branch() as right:
        left.run("x = 2")
        right.run("x = 3")
        assert left.run(KILL_ALL).status in {Status.OK, Status.KILLED}  # it may have ended its own
        shared = session.run(KILL_ALL)
        assert shared.ok, shared

        assert right.run("x").stdout == "3\n"
    session.restore(kept)
    assert session.run("x").stdout == "1\n"
    kept.close()


def test_where_branches_can_end_each_other_each_is_told_what_it_lost(session: JailSession) -> None:
    session.run("x = 1")
    session.run(EXHAUST)  # the kernel nests no more domains
    with session.branch() as left, session.branch() as right:
        left.run("x = 2")
        right.run("x = 3")

        assert left.run(KILL_ALL).status in {Status.OK, Status.KILLED}
        told = [each.run("x") for each in (right, session)]

        for result in told:
            assert (result.status, result.state_lost, result.stdout) == (Status.KILLED, True, "")
            assert "by another branch" in result.message
        assert "NameError" in right.run("x").stderr
        assert not right.run("1").state_lost


def test_a_loss_that_shows_while_room_is_made_is_told_like_any_other(
    session: JailSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.run("x = 1")
    with session.branch() as other:
        jail = other._jail
        assert jail is not None

        def late(state: int, limits: Limits) -> bool:
            jail.gone.add(state)  # a process on a busy machine ends only now
            return bool(limits)

        with monkeypatch.context() as patch:
            patch.setattr(jail, "make_room", late)
            result = other.run("x")

        assert (result.status, result.state_lost) == (Status.KILLED, True), result
        assert not other.run("1").state_lost


MENDED = [
    "import builtins; builtins.open = builtins.compile = builtins.exec = None",
    "import builtins; builtins.__import__ = None",
    "import builtins; vars(builtins).clear(); nothing",
    "__builtins__ = {}",
    "import types; __builtins__ = types.ModuleType('empty')",
    "import sys; sys.stdout = sys.stderr = sys.stdin = None",
    "import sys; sys.stdout.close(); sys.stderr.detach()",
    "import io, sys; sys.stdout = io.TextIOWrapper(sys.stdout.buffer)",
    "import sys; sys.modules.clear()",
    "import linecache, traceback; linecache.cache = traceback.format_exception = None",
    "import os; os.environ.update(HOME='/')",
    "import os; os.closerange(0, 64)",
]


def test_what_a_cell_puts_away_of_python_is_back_for_the_next(session: JailSession) -> None:
    session.run("x = 1")
    for wreck in MENDED:
        result = session.run(wreck)
        assert result.status in {Status.OK, Status.ERROR}, (wreck, result)
        following = session.run(
            "import math; open('f', 'w').close(); print(x); compile('x', '', 'eval') and x"
        )
        assert (following.status, following.stdout) == (Status.OK, "1\n1\n"), (wreck, following)
    with session.branch() as other:
        assert other.run("x").stdout == "1\n"


@pytest.mark.parametrize(
    "number", ["10**30", "-(10**30)", "2**63", "2**63 - 1", "-(2**63)", "-1", "256", "257", "True"]
)
def test_the_number_of_an_exit_is_what_the_interpreter_makes_of_it(number: str, sandbox: Sandbox) -> None:
    code = f"import sys; sys.exit({number})"
    expected = subprocess.run([sys.executable, "-c", code], check=False).returncode

    result = sandbox.run(code)
    assert (result.returncode, result.ok) == (expected, expected == 0)


def test_an_error_is_told_although_the_program_put_the_means_away(session: JailSession) -> None:
    wreck = "import sys, traceback\nsys.stderr = traceback.format_exception = None\n1 / 0"

    assert "ZeroDivisionError" in session.run(wreck).stderr


@pytest.mark.parametrize("wreck", ["import os; os.fork = None", "import json; json.loads = None"])
def test_a_session_that_its_program_made_useless_says_so_and_begins_anew(
    wreck: str, session: JailSession
) -> None:
    session.run("x = 1")
    result = session.run(wreck)
    if not result.state_lost:
        with session.branch() as other:
            told = other.run("x")
            assert (told.status, told.state_lost) == (Status.KILLED, True), told
        result = session.run("x")

    assert result.state_lost, result
    assert "cell" in result.message
    assert "NameError" in session.run("x").stderr


SEND = """
import os, socket, threading
def send():
    for number in range(3, 64):
        try: socket.socket(fileno=os.dup(number)).send(MESSAGE)
        except OSError: pass
send()
"""
HOSTILE = {
    "no rights": "import os; os.mkdir('d'); os.chmod('d', 0); os.chmod('.', 0)",
    "deep": "import os\ntry:\n    for _ in range(3000): os.mkdir('d'); os.chdir('d')\nexcept OSError: pass",
    "links": "import os; os.symlink('/etc/passwd', 'f'); os.symlink('..', 'up'); os.mkfifo('pipe')",
    "holes": "for n in range(30): open(str(n), 'wb').truncate(31 << 20)",
    "threads": (
        "import threading, time\n"
        "for _ in range(20): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()"
    ),
    "no processes": "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))",
    "no descriptors": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
    "alarms": (
        "import signal; signal.signal(signal.SIGALRM, lambda *_: 1 / 0)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)"
    ),
    "nested": SEND.replace("MESSAGE", "b'[' * 4000"),
    "a great number": SEND.replace("MESSAGE", 'b\'{"wait": 1099511627776, "cell": 1}\''),
    "deaf": "import socket; socket.recv_fds = None",
    "later": SEND.replace("MESSAGE", 'b\'{"wait": 1099511627776, "cell": 1}\'').replace(
        "\nsend()", "\ndef on():\n    while True: send()\nthreading.Thread(target=on, daemon=True).start()"
    ),
}


@pytest.mark.parametrize("cell", HOSTILE.values(), ids=HOSTILE)
def test_what_a_program_does_to_its_session_is_its_own_and_no_branchs(
    cell: str, session: JailSession
) -> None:
    session.run("x = 1; open('mine', 'w').write('mine')")
    with session.branch() as other:
        other.run("x = 2; open('mine', 'w').write('other')")

        results = [session.run(cell)]
        assert other.run("x, open('mine').read()").stdout == "(2, 'other')\n"
        results += [session.run("x"), session.run("1")]
        with session.branch() as third:
            results.append(third.run("1"))

        assert Status.INFRA_ERROR not in [each.status for each in results], results
        assert other.run("x").stdout == "2\n"


def test_a_session_that_cannot_be_saved_is_its_programs_loss(session: JailSession) -> None:
    session.run("import os; os.scandir = None")
    with session.branch() as other:
        for each in (other, session):
            result = each.run("1")
            assert (result.status, result.state_lost) == (Status.KILLED, True), result
            assert "variables" in result.message


def test_a_jail_stands_while_a_branch_uses_it(sandbox: Sandbox) -> None:
    session = sandbox.open_session()
    session.run("x = 1")
    branch = session.branch()
    session.close()

    assert branch.run("x").stdout == "1\n"
    branch.close()
    with pytest.raises(SandboxError, match="closed"):
        branch.run("x")


def test_a_session_begins_with_its_files_and_its_seed(sandbox: Sandbox) -> None:
    cell = "import random; random.random(), open('a.txt').read()"
    with sandbox.open_session(files={"a.txt": "text"}, seed=7) as first:
        assert first.run(cell).stdout.startswith("(0.3238")
        assert first.run("input()", stdin="typed\n").stdout == "'typed'\n"


def test_sessions_do_not_see_each_other(sandbox: Sandbox) -> None:
    with sandbox.open_session() as first, sandbox.open_session() as second:
        first.run("x = 1; open('mine', 'w').close()")

        assert "NameError" in second.run("x").stderr
        assert (
            second.run("import os; [n for n in os.listdir('.') if not os.path.ismount(n)]").stdout == "[]\n"
        )


def test_a_fork_server_that_dies_is_started_again(sandbox: Sandbox) -> None:
    assert sandbox._server is not None
    sandbox._server._process.kill()
    sandbox._server._process.wait()

    assert sandbox.run("print(1)").stdout == "1\n"


def test_a_supervisor_that_dies_is_ours_and_not_the_programs(sandbox: Sandbox) -> None:
    with sandbox.open_session() as session:
        session.run("x = 1")
        assert session._jail is not None
        branch = session.branch()
        session._jail.supervisor.kill()

        for each in (session, branch):
            result = each.run("x")
            assert (result.status, result.state_lost) == (Status.INFRA_ERROR, True)
            assert result.message
            assert each.run("print(1)").stdout == "1\n"
        branch.close()


def test_what_is_no_cell_no_input_and_no_snapshot_is_a_sentence(session: JailSession) -> None:
    with pytest.raises(TypeError, match="code of a cell must be a text; got 5"):
        session.run(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be a text; got b'1'. Decode it"):
        session.run("1", stdin=b"1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"snapshot\(\) returned; got 'junk'"):
        session.restore("junk")  # type: ignore[arg-type]
    kept = session.snapshot()
    kept.close()
    kept.close()
    with pytest.raises(SandboxError, match="snapshot was closed"):
        session.restore(kept)
    assert session.run("1").stdout == "1\n"


async def test_many_sessions_side_by_side(sandbox: Sandbox) -> None:
    sessions = [sandbox.open_session() for _ in range(8)]

    async def play(number: int) -> str:
        for _ in range(3):
            await asyncio.to_thread(sessions[number].run, f"x = globals().get('x', {number}) + 10")
        return (await asyncio.to_thread(sessions[number].run, "x")).stdout

    assert await asyncio.gather(*map(play, range(8))) == [f"{number + 30}\n" for number in range(8)]
    for session in sessions:
        session.close()

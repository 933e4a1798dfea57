"""A cell that runs out of memory ends in one way, whoever notices first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentrl.sandbox.result import Limits, Status
from agentrl_tools.python import PythonTool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentrl.sandbox.jail import Sandbox

LIMITS = Limits(wall_seconds=20, memory=128 << 20)
FILL = "taken = []\nprint('begun')\nprint('half a line', end='')\n"
FOREVER = "while True: taken.append(b'x' * 10**6)\n"
CHILDREN = (
    "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n        taken = b'x' * (60 << 20)\n"
    "        time.sleep(60)\ntime.sleep(60)"
)
ENDINGS = {
    "python finds nothing more": f"{FILL}{FOREVER}",
    "at once": f"{FILL}taken = bytearray(1 << 30)",
    "processes together": f"{FILL}{CHILDREN}",
    "it knows of the error and goes on": f"{FILL}try:\n    {FOREVER}except MemoryError: raise",
    "the next cell would have nothing": f"{FILL}print()\ntry:\n    {FOREVER}except MemoryError: pass",
}


@pytest.fixture(scope="module", params=["strict", "landlock"])
def sandbox(request: pytest.FixtureRequest, open_jail: Callable[[str, Limits], Sandbox]) -> Iterator[Sandbox]:
    with open_jail(request.param, LIMITS) as opened:
        yield opened


def test_all_ways_to_run_out_of_memory_are_told_alike_and_leave_the_same(sandbox: Sandbox) -> None:
    told: dict[str, list[str]] = {}
    for name, cell in ENDINGS.items():
        python = PythonTool(sandbox, limits=LIMITS)
        python.python("kept = [1]")
        told[name] = [
            python.python(each).text
            for each in (f"kept.append(2)\n{cell}", "'taken' in globals()", "y = 5", "kept, y")
        ]
        python.close()

    note = "[the program needed more memory than it may have; the variables are as they were before it]"
    last = told.pop("the next cell would have nothing")
    assert last == [f"begun\nhalf a line\n{note}", "False", "(no output)", "([1], 5)"]
    for name, texts in told.items():
        assert texts == [f"begun\n{note}", "False", "(no output)", "([1], 5)"], name


def test_a_want_of_memory_that_a_program_expects_is_its_own_business(sandbox: Sandbox) -> None:
    """The watcher of all processes leaves one process to its own limit, which it can see."""
    cell = f"taken = []\ntry:\n    {FOREVER}except MemoryError: taken = len(taken)"
    with sandbox.open_session() as session:
        for _ in range(5):
            result = session.run(cell)
            assert result.status is Status.OK, result
            assert 100 < int(session.run("taken").stdout) < 140
        raised = session.run("y = 1\nraise MemoryError('as it pleases')")
        assert (raised.status, session.run("y").stdout) == (Status.ERROR, "1\n")


def test_a_cell_that_leaves_its_process_no_room_is_taken_back(sandbox: Sandbox) -> None:
    with sandbox.open_session() as session:
        session.run("import resource; x = 1")
        result = session.run("x = 2; resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))")

        assert (result.status, result.state_lost) == (Status.MEMORY, False)
        assert session.run("x").stdout == "1\n"


@pytest.mark.parametrize(
    "wreck",
    [
        "resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))",
        pytest.param(
            "os.register_at_fork(before=lambda: time.sleep(600))",
            marks=pytest.mark.slow,  # a state has ten seconds to begin a cell
        ),
    ],
)
def test_a_session_whose_cells_never_begin_is_lost_however_short_their_time(
    wreck: str, sandbox: Sandbox
) -> None:
    with sandbox.open_session() as session:
        session.run("import os, resource, time; x = 1")
        session.run(wreck)
        result = session.run("x", Limits(wall_seconds=0.1, memory=128 << 20))

        assert (result.status, result.state_lost) == (Status.KILLED, True), result
        assert "no cell begins any more" in result.message
        assert "NameError" in session.run("x").stderr

"""What a result says of limits, and what is said of limits and programs that are none."""

from __future__ import annotations

import os
import socket
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import pytest

from agentrl.errors import SandboxError
from agentrl.sandbox.graders import ProgramGrader, Verdict
from agentrl.sandbox.jail import Sandbox
from agentrl.sandbox.result import MIB, Limits, Program, Status
from agentrl.sandbox.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentrl.sandbox.graders import HiddenTest

LIMITS = Limits(wall_seconds=20, memory=256 * MIB, output=1 * MIB, disk=2 * MIB)
SHORT = Limits(wall_seconds=0.5, memory=256 * MIB)
BOMB = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        data = b"x" * (90 << 20)
        time.sleep(30)
time.sleep(30)
"""
THREADS = """
import threading
waiting = threading.Event()
threads = [threading.Thread(target=waiting.wait) for _ in range(20)]
for thread in threads: thread.start()
print(threading.active_count())
waiting.set()
"""
ODD_LIMITS: list[dict[str, object]] = [
    {"wall_seconds": "1"},
    {"wall_seconds": None},
    {"wall_seconds": True},
    {"wall_seconds": float("inf")},
    {"wall_seconds": float("nan")},
    {"wall_seconds": 0},
    {"wall_seconds": 1e9},
    {"wall_seconds": 10**400},
    {"processes": 1.5},
    {"memory": "1G"},
    {"memory": -1},
    {"memory": 1 << 70},
    {"disk": False},
    {"output": None},
]
ODD_PROGRAMS: list[tuple[dict[str, object], str]] = [
    ({"code": 5}, "code of a program must be a text; got 5"),
    ({"stdin": 5}, "stdin of a program must be a text; got 5"),
    ({"stdin": b"1"}, "Decode it first"),
    ({"setup": None}, "setup of a program must be a text"),
    ({"seed": "a"}, "seed of a program must be a whole number; got 'a'"),
    ({"seed": 1.5}, "seed of a program must be a whole number"),
    ({"seed": 10**30}, "seed of a program must be from"),
    ({"files": {"a": b"\xff"}}, r"content of the file 'a' must be a text; got b'\\xff'. Decode"),
    ({"files": {1: "x"}}, "path of a file must be a text; got 1"),
    ({"files": ["a"]}, "files of a program map paths to texts"),
    ({"files": {"../x": ""}}, r"must lead to a file in the work folder; got '\.\./x'"),
    ({"files": {"a/../../x": ""}}, "must lead to a file in the work folder"),
    ({"files": {"/etc/x": ""}}, "must lead to a file in the work folder"),
    ({"files": {"/tmp/x": ""}}, "must lead to a file in the work folder"),
    ({"files": {"": ""}}, "must lead to a file in the work folder"),
    ({"files": {"a/": ""}}, "must lead to a file in the work folder"),
    ({"files": {"a\0": ""}}, "must lead to a file in the work folder"),
    ({"files": {"x" * 300: ""}}, "names of at most 255 bytes"),
    ({"files": {"é" * 128: ""}}, "names of at most 255 bytes"),
    ({"files": {"d/" * 1100 + "x": ""}}, "2,048 in all"),
    ({"files": {"\ud800": ""}}, "must be UTF-8"),
    ({"files": {"a/b/c": "", "a": ""}}, "'a' is a file, so 'a/b/c' cannot lie in it"),
    ({"files": {"a": "", "./a": ""}}, r"'a' and '\./a' are the same file"),
    ({"argv": "ls -l"}, "Split it into words"),
    ({"argv": ("ls", 1)}, "a word of a command must be a text; got 1"),
]


@pytest.fixture(scope="module", params=["strict", "landlock"])
def sandbox(request: pytest.FixtureRequest, open_jail: Callable[[str, Limits], Sandbox]) -> Iterator[Sandbox]:
    with open_jail(request.param, LIMITS) as opened:
        yield opened


@pytest.mark.parametrize(
    ("code", "limits", "status", "words"),
    [
        ("while True: pass", SHORT, Status.TIMEOUT, "its limit is 0.5 s (wall_seconds)"),
        ("data = bytearray(600 << 20)", LIMITS, Status.MEMORY, "limit of 256 MiB (memory); it held"),
        (BOMB, LIMITS, Status.MEMORY, "their limit is 256 MiB (memory)"),
        ("while True: print('x' * 65536)", LIMITS, Status.OUTPUT_LIMIT, "its limit is 1.0 MiB (output)"),
        ("import os; os.kill(os.getpid(), 11)", LIMITS, Status.KILLED, "11"),
        ("raise MemoryError", LIMITS, Status.ERROR, ""),
        ("raise MemoryError('as it pleases')", LIMITS, Status.ERROR, ""),
        (
            "try: bytearray(600 << 20)\nexcept MemoryError as error: raise error",
            LIMITS,
            Status.MEMORY,
            "(memory)",
        ),
    ],
    ids=["time", "one allocation", "many processes", "output", "signal", "raised", "with words", "again"],
)
def test_what_stopped_a_program_is_a_sentence(
    code: str, limits: Limits, status: Status, words: str, sandbox: Sandbox
) -> None:
    with sandbox.open_session() as session:
        for result in (sandbox.run(code, limits), session.run(code, limits)):
            assert result.status is status, result
            if "os.kill" in code:
                assert (bool(result.message), result.signal) == (True, 11)
            elif words:
                assert words in result.message, result
            else:
                assert result.message == ""


def test_files_that_do_not_fit_are_refused_before_anything_begins(sandbox: Sandbox) -> None:
    files = {"a": "x" * (1 * MIB), "b": "é" * (1 * MIB)}
    result = sandbox.run(Program("print(1)", files=files))

    assert (result.status, result.stdout) == (Status.INFRA_ERROR, "")
    assert "3,145,728 bytes, and its limit is 2,097,152 (disk)" in result.message
    with pytest.raises(SandboxError, match=r"its limit is 2,097,152 \(disk\)"):
        sandbox.open_session(files=files)


def test_half_a_character_reaches_a_program_as_a_question_mark(sandbox: Sandbox) -> None:
    """A model's JSON may hold one, and nothing that it writes is a failure of ours."""
    program = Program("print(input(), open('a').read())", files={"a": "b\udc00"}, stdin="a\ud800")

    assert sandbox.run(program).stdout == "a? b?\n"
    with sandbox.open_session() as session:
        assert session.run("input()", stdin="a\ud800").stdout == "'a?'\n"
        assert "surrogates not allowed" in session.run("print('\ud800')").stderr


def test_a_long_input_is_fed_without_copies_of_what_is_left() -> None:
    stdin = b"x" * (4 * MIB)
    ours, theirs = socket.socketpair()
    with ours, theirs, Streams(LIMITS) as streams, ThreadPoolExecutor(1) as pool:
        reading = os.dup(streams.theirs[0])
        streams.release()

        def read() -> int:
            with os.fdopen(reading, "rb") as file:
                size = sum(len(part) for part in iter(lambda: file.read(4096), b""))
            theirs.send(b"verdict")
            return size

        size = pool.submit(read)
        tracemalloc.start()
        try:
            assert streams.drain(ours, stdin, time.monotonic() + 60) == b"verdict"
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (size.result(), most < 1 * MIB) == (len(stdin), True)


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_a_word_that_no_command_can_have_is_told(word: str, sandbox: Sandbox) -> None:
    result = sandbox.run(Program(argv=("/bin/echo", word)))

    assert (result.status, result.stderr.startswith("/bin/echo: ")) == (Status.ERROR, True), result


@pytest.mark.parametrize("code", ["-" * 200_000 + "1", "lambda:" * 20_000 + "1"])
def test_a_source_too_deep_for_the_parser_is_an_error_and_no_want_of_memory(
    code: str, sandbox: Sandbox
) -> None:
    assert sandbox.run(code).status is Status.ERROR


def test_threads_do_not_take_the_limit_on_memory_for_arenas(sandbox: Sandbox) -> None:
    assert sandbox.run(THREADS).stdout == "21\n"


@pytest.mark.parametrize("given", ODD_LIMITS, ids=str)
def test_a_limit_that_is_none_is_a_sentence(given: dict[str, object]) -> None:
    name, value = next(iter(given.items()))
    with pytest.raises((TypeError, ValueError), match=f"{name} of the limits must be .*; got ") as caught:
        Limits(**given)  # type: ignore[arg-type]
    assert repr(value)[:60] in str(caught.value)


@pytest.mark.parametrize(("given", "words"), ODD_PROGRAMS)
def test_a_program_that_is_none_is_a_sentence(given: dict[str, object], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        Program(**given)  # type: ignore[arg-type]


ODD_SANDBOXES: list[tuple[dict[str, object], str]] = [
    ({"limits": 5}, "limits must be a Limits; got 5"),
    ({"parallel": 0}, "parallel of the sandbox must be from 1 to inf; got 0"),
    ({"parallel": -1}, "parallel of the sandbox must be from 1"),
    ({"parallel": 1.5}, "parallel of the sandbox must be a whole number"),
    ({"parallel": "a"}, "parallel of the sandbox must be a whole number"),
    ({"python": 5}, "python of the sandbox must be a text; got 5"),
    ({"preload": "numpy"}, r"preload is a tuple of modules, such as \('numpy',\); got 'numpy'"),
    ({"preload": (5,)}, "a module of preload must be a text; got 5"),
]


@pytest.mark.parametrize(("given", "words"), ODD_SANDBOXES)
def test_a_setting_of_a_sandbox_that_is_none_is_a_sentence(given: dict[str, object], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        cast("Callable[..., object]", Sandbox)("strict", **given)


def test_what_is_no_program_and_no_limits_is_a_sentence(sandbox: Sandbox) -> None:
    run = cast("Callable[..., object]", sandbox.run)
    with pytest.raises(TypeError, match="what a sandbox runs must be a Program; got None"):
        run(None)
    with pytest.raises(TypeError, match="limits must be a Limits; got 5"):
        run("1", 5)
    for given in ({"limits": 4}, {"limits": 0}, {"files": 0}):
        with pytest.raises(TypeError, match=r"must be a Limits; got|map paths to texts"):
            cast("Callable[..., object]", sandbox.open_session)(**given)


@pytest.mark.parametrize("seconds", ["a", -1, float("nan"), None])
def test_a_bound_of_a_grader_that_is_none_is_a_sentence(seconds: object) -> None:
    with pytest.raises((TypeError, ValueError), match="seconds of a grader must be"):
        cast("Callable[..., object]", ProgramGrader)(seconds=seconds)


@pytest.mark.parametrize("tests", ["x", ["x"], [None]])
def test_a_hidden_test_that_is_none_is_the_graders_error(tests: object, sandbox: Sandbox) -> None:
    grade = ProgramGrader()("print(1)", cast("list[HiddenTest]", tests), sandbox)

    assert grade.verdict is Verdict.GRADER_ERROR
    assert "a test is a StdinTest or a CallTest; got" in grade.message

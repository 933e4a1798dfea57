from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import pytest

from agentrl.errors import ConfigError
from agentrl.sandbox.graders import CallTest, ProgramGrader, StdinTest, Verdict
from agentrl.sandbox.graders.programs import same_value
from agentrl.sandbox.result import ExecutionResult, Limits, Program, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentrl.sandbox.jail import Sandbox

GRADER = ProgramGrader(Limits(wall_seconds=1, memory=256 << 20), more_time=1)
SQUARE = (CallTest("square", (3,), 9), CallTest("square", (-2,), 4))
SUM = (StdinTest("1 2\n", "3\n"), StdinTest("40 2\n", "42"))


@pytest.fixture(scope="module")
def sandbox(open_jail: Callable[[str, Limits], Sandbox]) -> Iterator[Sandbox]:
    with open_jail("auto", Limits()) as made:
        yield made


def test_a_right_program_is_correct(sandbox: Sandbox) -> None:
    assert GRADER("def square(x): return x * x", SQUARE, sandbox).verdict is Verdict.CORRECT
    assert GRADER("print(sum(map(int, input().split())))", SUM, sandbox).verdict is Verdict.CORRECT


# What programs do to look right; the names are those of the list of boundary attacks.
CHEATS = {
    "B1 exits before the tests": "import sys; sys.exit(0)",
    "B1 ends its process": "import os; os._exit(0)",
    "B1 ends at exit": "import atexit, os; atexit.register(os._exit, 0)",
    "B2 equals everything": """
class Any(int):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def square(x): return Any(0)
""",
    "B2 patches builtins": """
import builtins, json
builtins.all = lambda *_: True
builtins.isinstance = lambda *_: True
json.dumps = lambda value, **_: "9"
def square(x): return x * x if x == 3 else 0
""",
    "B3 looks for tests and arguments": """
import gc, os, sys
def square(x):
    texts = [str(item) for item in gc.get_objects() if isinstance(item, (dict, list, tuple))]
    found = open("/proc/self/cmdline").read() if os.path.exists("/proc/self/cmdline") else ""
    return 9 if any("expected" in text for text in texts) or "expected" in found else None
""",
    "B4 writes a result": """
import os
for name in ("result.json", "reward.txt", "/tmp/reward", "../reward"):
    try: open(name, "w").write("1.0")
    except OSError: pass
def square(x): return None
""",
    "B5 prints success": "print('PASSED', '{\"passed\": true}')\ndef square(x): return None",
    "B5 finds the word and says true": """
import sys
def square(x):
    frame = sys._getframe()
    while frame:
        if "_asked" in frame.f_globals:
            print("\\n" + frame.f_globals["_asked"]["word"] + "true")
        frame = frame.f_back
    sys.stdout.flush()
    import os; os._exit(0)
""",
    "B6 leaves a daemon": """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(30)
    os._exit(0)
def square(x): return None
""",
    "B7 returns an object": """
import os
class Bomb:
    def __reduce__(self): return (os.system, ("true",))
def square(x): return Bomb()
""",
    "B8 bombs in its methods": """
class Bomb(dict):
    def __del__(self): raise SystemExit(0)
    def __repr__(self): return "9"
    def items(self): return [("a", 9)]
def square(x): return Bomb(a=1)
""",
    "deep nesting": """
import sys
def square(x):
    sys.stdout.write("[" * 100000)
    return None
""",
    "a loop": "def square(x):\n    while True: pass",
    "a flood": "def square(x):\n    while True: print('x' * 100000)",
    "memory": "def square(x): return len(bytearray(1 << 33))",
    "no function": "x = 1",
    "no syntax": "def square(x:",
    "one special case": "def square(x): return 9",
}


@pytest.mark.parametrize("code", CHEATS.values(), ids=CHEATS.keys())
def test_a_cheat_is_wrong(code: str, sandbox: Sandbox) -> None:
    grade = GRADER(code, SQUARE, sandbox)

    assert grade.verdict is Verdict.WRONG, grade
    assert grade.score == 0.0
    assert GRADER("def square(x): return x * x", SQUARE, sandbox).reward == 1.0


def test_no_expectation_reaches_the_jail() -> None:
    seen: list[Program] = []

    class Spy:
        def run(self, program: Program | str, limits: Limits | None = None) -> ExecutionResult:
            assert isinstance(program, Program)
            seen.append(program)
            return ExecutionResult(Status.OK, 0)

    GRADER("pass", [CallTest("f", (1,), "the gold"), StdinTest("in", "the gold")], Spy())
    ProgramGrader(partial=True)("pass", [CallTest("f", (1,), "the gold"), StdinTest("i", "the gold")], Spy())

    assert len(seen) == 3
    assert "the gold" not in repr(seen)


def test_a_partial_score_counts_all_tests(sandbox: Sandbox) -> None:
    grade = ProgramGrader(partial=True)("def square(x): return 9", SQUARE, sandbox)

    assert (grade.verdict, grade.score) == (Verdict.WRONG, 0.5)
    assert grade.message.startswith("test 2 of 2")


class Ends:
    """A back end that always ends one way."""

    def __init__(self, *statuses: Status) -> None:
        self.statuses = list(statuses)
        self.walls: list[float] = []

    def run(self, program: Program | str, limits: Limits | None = None) -> ExecutionResult:
        assert limits is not None
        self.walls.append(limits.wall_seconds)
        return ExecutionResult(self.statuses.pop(0), message="the fork server died")


def test_a_broken_jail_is_no_wrong_answer() -> None:
    grade = GRADER("pass", SUM, Ends(Status.INFRA_ERROR))

    assert (grade.verdict, grade.reward) == (Verdict.GRADER_ERROR, None)


def test_a_program_out_of_time_gets_a_second_try() -> None:
    ends = Ends(Status.TIMEOUT, Status.TIMEOUT)

    assert ProgramGrader(Limits(wall_seconds=2))("pass", SUM, ends).verdict is Verdict.WRONG
    assert ends.walls == [2, 8]


def test_all_tests_of_a_program_share_one_bound_of_time() -> None:
    ends = Ends(Status.TIMEOUT)
    grader = ProgramGrader(Limits(wall_seconds=2), seconds=1.5)
    assert grader("pass", SUM, ends).verdict is Verdict.WRONG
    assert 1 < ends.walls[0] <= 1.5  # and no second try with less time than the first

    grade = ProgramGrader(seconds=0.0)("pass", SUM, Ends())
    assert grade.message == "test 1 of 2: all tests together took longer than 0 s"


@pytest.mark.parametrize("code", ["", "  \n", "x" * 300_000])
def test_no_program_is_unparsable(code: str) -> None:
    assert GRADER(code, SUM, Ends()).verdict is Verdict.UNPARSABLE


def test_what_is_no_text_is_no_program() -> None:
    assert GRADER(cast("str", None), SUM, Ends()).verdict is Verdict.UNPARSABLE


@pytest.mark.parametrize(("arguments", "expected"), [(({1},), 1), ((1,), object()), (5, 1)])
def test_a_test_that_is_not_json_is_named(arguments: tuple[object, ...], expected: object) -> None:
    with pytest.raises(ConfigError, match="'square' needs a tuple of arguments"):
        CallTest("square", arguments, expected)


@pytest.mark.parametrize("odd", [None, 3, b"3", ["3"]])
def test_a_test_that_is_no_text_is_named(odd: object) -> None:
    text = cast("str", odd)
    with pytest.raises(ConfigError, match="stdin of a test is a text"):
        StdinTest(text, "3")
    with pytest.raises(ConfigError, match="stdout of a test is a text"):
        StdinTest("3", text)
    with pytest.raises(ConfigError, match="function of a test is named by a text"):
        CallTest(text, (1,), 1)


def test_nan_equals_nan_and_nothing_else(sandbox: Sandbox) -> None:
    assert GRADER("def f(): return [float('nan')]", [CallTest("f", (), [math.nan])], sandbox).reward == 1.0
    assert not same_value(math.nan, 1.0, 1e-9)
    assert not same_value(10**400, 1.0, 1e-9)


def test_no_tests_are_an_error_of_the_data() -> None:
    assert GRADER("pass", (), Ends()).verdict is Verdict.GRADER_ERROR


def test_a_long_output_is_not_cut_before_it_is_compared(sandbox: Sandbox) -> None:
    expected = "x" * 200_000

    assert GRADER("print('x' * 200000)", [StdinTest("", expected)], sandbox).reward == 1.0

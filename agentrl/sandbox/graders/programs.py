"""Programs against hidden tests: a program gets its input and nothing else; it is judged outside."""

from __future__ import annotations

import json
import math
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from agentrl.errors import ConfigError
from agentrl.sandbox.result import (
    ExecutionResult,
    Grade,
    Limits,
    Program,
    Status,
    Verdict,
    check_is,
    check_number,
    is_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CHARACTERS = 200_000
_LEAST = 0.01

# The arguments are read before the program is executed, so that it cannot hold them back; the result leaves
# as JSON behind a word that the program has no use for: what counts is the value, and that is compared
# outside.
_CALL = """
import json as _json, sys as _sys
_asked = _json.loads(_sys.stdin.read())
_scope = {"__name__": "solution"}
exec(compile(_asked["code"], "solution.py", "exec"), _scope)
_value = _scope[_asked["function"]](*_asked["arguments"])
_sys.stdout.write("\\n" + _asked["word"] + _json.dumps(_value) + "\\n")
"""


class Runs(Protocol):
    """What executes a program: a jail, or another back end."""

    def run(self, program: Program | str, limits: Limits | None = None) -> ExecutionResult:
        """Run one program to its end."""
        ...


@dataclass(frozen=True)
class StdinTest:
    """A program reads `stdin` and must write `stdout`; blanks at the ends of lines do not count.

    Raises:
        ConfigError: one of them is no text.
    """

    stdin: str
    stdout: str

    def __post_init__(self) -> None:
        for name, value in (("stdin", self.stdin), ("stdout", self.stdout)):
            if not is_text(value):
                raise ConfigError(
                    f"{name} of a test is a text, as a program reads or writes it; got {value!r:.100}."
                )


@dataclass(frozen=True)
class CallTest:
    """A function gets JSON arguments and must return what, as JSON, equals `expected`; NaN equals NaN.

    Raises:
        ConfigError: a value is not JSON.
    """

    function: str
    arguments: tuple[object, ...]
    expected: object

    def __post_init__(self) -> None:
        if not is_text(self.function):
            raise ConfigError(f"The function of a test is named by a text; got {self.function!r:.100}.")
        try:
            json.dumps([*self.arguments, self.expected])
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"The test of {self.function!r} needs a tuple of arguments and an expected value that are "
                f"JSON: {error}."
            ) from None


HiddenTest: TypeAlias = StdinTest | CallTest


@dataclass(frozen=True)
class ProgramGrader:
    """Runs a program once for each test, each time in a jail of its own.

    No test, expected value or code of ours that judges enters the jail. A program that fails, floods or does
    not end is wrong. One that does not end is tried once more with more time, for the machine may be busy.

    Attributes:
        limits: of one test.
        more_time: how many times as long the second try may take; 1 for no second try.
        seconds: of all tests together, second tries included; a program that needs longer is wrong.
        partial: a wrong program scores the share of tests that it passed, and all of them are run.
        tolerance: relative, for decimals; 0 compares texts.
    """

    limits: Limits = field(default_factory=lambda: Limits(wall_seconds=2.0, memory=256 << 20))
    more_time: float = 4.0
    partial: bool = False
    tolerance: float = 1e-9
    seconds: float = math.inf

    def __post_init__(self) -> None:
        check_is("limits of a grader", self.limits, Limits)
        if self.seconds != 0:  # the time may be over already
            check_number("seconds of a grader", self.seconds, math.inf)

    def __call__(self, code: str, tests: Sequence[HiddenTest], sandbox: Runs) -> Grade:
        """Grade one program."""
        refused = _refused(code, tests)
        if refused is not None:
            return refused
        passed, reason = 0, ""
        until = time.monotonic() + self.seconds
        for number, test in enumerate(tests, 1):
            said = self._passes(code, test, sandbox, until)
            if said.verdict not in {Verdict.CORRECT, Verdict.WRONG}:
                return said
            if said.verdict is Verdict.CORRECT:
                passed += 1
                continue
            reason = reason or f"test {number} of {len(tests)}: {said.message}"
            if not self.partial:
                break
        if passed == len(tests):
            return Grade(Verdict.CORRECT, 1.0)
        return Grade(Verdict.WRONG, passed / len(tests) if self.partial else 0.0, reason)

    def _passes(self, code: str, test: HiddenTest, sandbox: Runs, until: float) -> Grade:
        if time.monotonic() >= until:
            return Grade(Verdict.WRONG, message=f"all tests together took longer than {self.seconds:g} s")
        word = secrets.token_hex(16)
        expected = test.stdout if isinstance(test, StdinTest) else json.dumps(test.expected)
        limits = replace(self.limits, kept_output=self.limits.kept_output + 4 * len(expected))
        result = self._ran(_program(code, test, word), limits, sandbox, until)
        if result.status is Status.INFRA_ERROR:
            return Grade(Verdict.GRADER_ERROR, message=result.message)
        if not result.ok:
            said = result.stderr.strip()[-300:]
            return Grade(Verdict.WRONG, message=f"{result.status}: {said or result.message}")
        if isinstance(test, StdinTest):
            right = same_output(result.stdout, test.stdout, self.tolerance)
        else:
            right = _returned(result.stdout, word, test.expected, self.tolerance)
        return Grade(Verdict.CORRECT, 1.0) if right else Grade(Verdict.WRONG, message="another output")

    def _ran(self, program: Program, limits: Limits, sandbox: Runs, until: float) -> ExecutionResult:
        given = min(limits.wall_seconds, until - time.monotonic())
        result = sandbox.run(program, replace(limits, wall_seconds=max(given, _LEAST)))
        more = min(self.more_time * limits.wall_seconds, until - time.monotonic())
        if result.status is Status.TIMEOUT and more > given:
            return sandbox.run(program, replace(limits, wall_seconds=more))
        return result


def _refused(code: str, tests: Sequence[HiddenTest]) -> Grade | None:
    """Grade what is no program, or has no tests; None where there is something to run."""
    odd = [test for test in tests if not _is_test(test)]
    if odd or not tests:
        words = f"a test is a StdinTest or a CallTest; got {odd[0]!r:.60}" if odd else "the task has no tests"
        return Grade(Verdict.GRADER_ERROR, message=words)
    if not is_text(code):
        return Grade(Verdict.UNPARSABLE, message=f"a program is a text; got {type(code).__name__}")
    if not code.strip() or len(code) > MAX_CHARACTERS:
        return Grade(Verdict.UNPARSABLE, message=f"a program has 1 to {MAX_CHARACTERS:,} characters")
    return None


def _is_test(value: object) -> bool:
    return isinstance(value, StdinTest | CallTest)


def _program(code: str, test: HiddenTest, word: str) -> Program:
    if isinstance(test, StdinTest):
        return Program(code, stdin=test.stdin)
    asked = {"code": code, "function": test.function, "arguments": list(test.arguments), "word": word}
    return Program(_CALL, stdin=json.dumps(asked))


def same_output(said: str, expected: str, tolerance: float = 0.0) -> bool:
    r"""Compare what was written, line by line; within a line word by word where the decimals differ.

    >>> (
    ...     same_output("1.0 a \n\n", "1.0 a"),
    ...     same_output("0.33333333", "0.33333334", 1e-6),
    ...     same_output("1", "2"),
    ... )
    (True, True, False)
    """
    ours, theirs = (text.rstrip().replace("\r\n", "\n").split("\n") for text in (said, expected))
    return len(ours) == len(theirs) and all(
        first.rstrip() == second.rstrip()
        or (tolerance > 0 and _near(first.split(), second.split(), tolerance))
        for first, second in zip(ours, theirs, strict=True)
    )


def _near(ours: list[str], theirs: list[str], tolerance: float) -> bool:
    return len(ours) == len(theirs) and all(
        first == second or _decimals(first, second, tolerance)
        for first, second in zip(ours, theirs, strict=True)
    )


def _decimals(first: str, second: str, tolerance: float) -> bool:
    if not {"."} & set(first + second):
        return False
    try:
        return math.isclose(float(first), float(second), rel_tol=tolerance, abs_tol=tolerance)
    except ValueError:
        return False


def _returned(stdout: str, word: str, expected: object, tolerance: float) -> bool:
    _, mark, rest = stdout.rpartition(f"\n{word}")
    if not mark:
        return False
    try:
        value = json.loads(rest)
    except (ValueError, RecursionError):
        return False
    return same_value(value, json.loads(json.dumps(expected)), tolerance)


def _near_numbers(first: float, second: float, tolerance: float) -> bool:
    if first != first and second != second:  # noqa: PLR0124  # what NaN is
        return True
    try:
        return math.isclose(first, second, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer that no float holds
        return False


def same_value(first: object, second: object, tolerance: float = 0.0) -> bool:
    """Compare two JSON values; True is not 1, 1 is 1.0, and decimals may differ by the tolerance.

    >>> same_value([1, {"a": 0.1 + 0.2}], [1.0, {"a": 0.3}], 1e-9), same_value(True, 1)
    (True, False)
    """
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, int | float) and isinstance(second, int | float):
        return first == second or _near_numbers(first, second, tolerance)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(
            same_value(a, b, tolerance) for a, b in zip(first, second, strict=True)
        )
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            same_value(value, second[key], tolerance) for key, value in first.items()
        )
    return type(first) is type(second) and first == second

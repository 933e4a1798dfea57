"""A scripted player: reads the task, writes Python for it, and answers with what that prints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agentrl.world.protocol import Protocol

# What a question looks like, and a program that computes its answer from the numbers in it.
_PROBLEMS: Final = (
    (
        r"buys (\d+) \w+ at (\d+) .* and (\d+) \w+ at (\d+) .* pays with (\d+)",
        "print({4} - {0} * {1} - {2} * {3})",
    ),
    (
        r"holds (\d+) dollars\. .* earns (\d+) percent .* after (\d+) years",
        "held = {0}\nfor year in range({2}):\n    held = held + held * {1} // 100\nprint(held)",
    ),
    (
        r"from 1 to (\d+) are divisible by (\d+) or by (\d+), but not by both",
        "print(sum((n % {1} == 0) != (n % {2} == 0) for n in range(1, {0} + 1)))",
    ),
    (r"digits of (\d+) to the power of (\d+)", "print(sum(map(int, str({0} ** {1}))))"),
    (
        r"walks (\d+) metres .* start of (\d+) minutes\. .* with (\d+) metres",
        "from fractions import Fraction\nprint(Fraction({0} * {1}, {2} - {0}))",
    ),
    (
        r"begins with (\d+) and (\d+)\. .* is (\d+) times .* modulo (\d+)\. What is term number (\d+)",
        "a, b = {0}, {1}\nfor term in range({4} - 1):\n    a, b = b, ({2} * b + a) % {3}\nprint(a)",
    ),
    (
        r"prime numbers from (\d+) to (\d+)",
        "print(sum(n for n in range({0}, {1} + 1) if all(n % d for d in range(2, int(n ** 0.5) + 1))))",
    ),
)
_SUMS: Final = (
    (r"buys (\d+) \w+ at (\d+) dollars each\. How", "print({0} * {1})"),
    (r"has (\d+) \w+\. \w+ has (\d+) more", "print({0} + {0} + {1})"),
    (r"has (\d+) \w+ and gives (\d+) to \w+ and (\d+) to", "print({0} - {1} - {2})"),
    (r"(\d+) boxes hold (\d+) \w+ each, and (\d+)", "print({0} * {1} + {2})"),
    (r"packs (\d+) \w+ into boxes of (\d+)\. How many boxes", "print({0} // {1})"),
    (r"packs (\d+) \w+ into boxes of (\d+)\. How many \w+ are left", "print({0} % {1})"),
    (r"is (\d+) metres long and (\d+) metres wide", "print(({0} + {1}) * 2)"),
    (r"walks (\d+) metres each minute for (\d+) minutes, \w+ (\d+) metres", "print({0} * {1} - {2})"),
)
_ROTATE = """
def rotate(values):
    values = [{0} * x + {1} for x in values]
    k = {2} % len(values) if values else 0
    return values[-k:] + values[:-k] if k else list(values)
"""
_SHIFT = """
def shift(text):
    letters = "abcdefghijklmnopqrstuvwxyz"
    rest = text.replace("{0}", "").replace("{1}", "")
    return rest.translate(str.maketrans(letters, letters[{2}:] + letters[:{2}]))
"""
_RUNS = """
from itertools import groupby
def count_runs(text):
    rest = text.replace("{0}", "").replace("{1}", "")
    return sum(len(list(run)) >= {2} for _, run in groupby(rest))
"""
_WINDOWS = """
def window_sums(values):
    values = [{0} * x + {1} for x in values]
    return [sum(values[i:i + {2}]) for i in range(len(values) - {2} + 1)]
"""
_FREQUENT = """
def frequent(values):
    values = [{0} * x + {1} for x in values]
    return sorted({{v for v in values if values.count(v) >= {2}}})
"""
_PAIRS = """
def count_pairs(values):
    values = [{0} * x + {1} for x in values]
    n = len(values)
    return sum(values[i] + values[j] == {2} for i in range(n) for j in range(i))
"""
_CHANGED: Final = r"by (\d+) \* x \+ (\d+)\. .*"
_WITHOUT: Final = r"removes the letters (\w) and (\w) .*"
_EXERCISES: Final = (
    (_CHANGED + r"rotated (\d+) places", _ROTATE),
    (_WITHOUT + r"moved (\d+) places on", _SHIFT),
    (_WITHOUT + r"a length of at least (\d+)", _RUNS),
    (_CHANGED + r"sums of each (\d+) neighbours", _WINDOWS),
    (_CHANGED + r"at least (\d+) times, each once", _FREQUENT),
    (_CHANGED + r"add up to (-?\d+)", _PAIRS),
)
TRIES: Final = 3
"""How often a program is written: a run has so much time by the clock, and a busy machine may need more."""


class Solver:
    """Solves generated tasks from their text alone; what it cannot read it answers with 0."""

    def __init__(self, question: str, protocol: Protocol) -> None:
        self._protocol = protocol
        self._program = _written(_PROBLEMS + _SUMS, question)
        self._function = _written(_EXERCISES, question)
        self._answer = "0"
        self._tries = TRIES

    def act(self) -> str:
        """Write the program, then the answer; a function at once."""
        if self._function is not None:
            return self._protocol.write("submit", {"code": self._function.strip()})
        if self._program is not None:
            return self._protocol.write("python", {"code": self._program})
        return self._protocol.write_answer(self._answer)

    def observe(self, command: str, feedback: str) -> None:
        """Take what a program printed for the answer; one that printed none was stopped: again."""
        if self._program is None or command != self.act():
            return
        self._tries -= 1
        # The output may stand in a protocol's markup.
        numbers = re.findall(r"-?\d+(?:/\d+)?", feedback)
        if numbers or not self._tries:
            self._answer, self._program = (numbers or ["0"])[-1], None


def _written(known: tuple[tuple[str, str], ...], question: str) -> str | None:
    for pattern, program in known:
        found = re.search(pattern, question, re.DOTALL)
        if found:
            return program.format(*found.groups())
    return None

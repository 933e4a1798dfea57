"""What an agent is given: a problem with an answer, or a function to write with tests that it never sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agentrl.sandbox.graders.programs import HiddenTest  # noqa: TC001  # a dataclass field is read at run time


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with one answer; `kind` is a label for reports."""

    question: str
    answer: str
    kind: str = "problem"


@dataclass(frozen=True, slots=True)
class Exercise:
    """A function, or a program, to write. `tests` stay outside of the jail and of every observation."""

    question: str
    tests: tuple[HiddenTest, ...]
    kind: str = "function"


Work: TypeAlias = Problem | Exercise

"""A user's own scoring function: in a process with a deadline; only a number in its range counts."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.errors import SandboxError
from agentrl.sandbox.result import Grade, Verdict
from agentrl.sandbox.worker import WorkerDied, WorkerFailure, WorkerTimeout, shared

if TYPE_CHECKING:
    from collections.abc import Callable

_TARGET = "agentrl.sandbox.graders.scorer:prepare"


@dataclass(frozen=True)
class FunctionGrader:
    """Grades with `function(answer, gold)`, which returns a number from 0 to 1, True or False.

    What it raises, what is no such number, and a process that dies are errors of the grader: never a reward.

    Attributes:
        function: "module:name", importable without this program.
        path: a folder to import it from, if it is not installed.
        correct_from: the least score that counts as correct.
        seconds: of CPU, for one answer.
    """

    function: str
    path: str = ""
    correct_from: float = 1.0
    seconds: float = 5.0
    workers: int = 1

    def __call__(self, answer: str, gold: str) -> Grade:
        """Grade one answer."""
        try:
            pool = shared(_TARGET, {"function": self.function, "path": self.path}, size=self.workers)
            said = pool.call({"answer": answer, "gold": gold}, self.seconds)
        except WorkerTimeout:
            return Grade(
                Verdict.TIMEOUT, message=f"{self.function} did not end within {self.seconds:g} CPU-seconds"
            )
        except (WorkerFailure, WorkerDied, SandboxError) as error:
            return Grade(Verdict.GRADER_ERROR, message=f"{self.function}: {error}")
        return self.graded(said["score"])

    def graded(self, value: object) -> Grade:
        """Make a grade of what a scoring function returned.

        >>> FunctionGrader("m:f").graded(float("nan")).message
        'm:f must return a number from 0 to 1, True or False; it returned nan'
        """
        if not isinstance(value, bool | int | float) or not math.isfinite(value) or not 0 <= value <= 1:
            words = f"must return a number from 0 to 1, True or False; it returned {value}"
            return Grade(Verdict.GRADER_ERROR, message=f"{self.function} {words}")
        verdict = Verdict.CORRECT if value >= self.correct_from else Verdict.WRONG
        return Grade(verdict, float(value))


def prepare(settings: dict[str, object]) -> Callable[[dict[str, object]], dict[str, object]]:
    """Import the function; what it returns crosses as a number or as its description."""
    import sys

    if settings["path"]:
        sys.path.insert(0, str(settings["path"]))
    module, _, name = str(settings["function"]).partition(":")
    function = getattr(importlib.import_module(module), name)

    def score(asked: dict[str, object]) -> dict[str, object]:
        value = function(asked["answer"], asked["gold"])
        plain = isinstance(value, bool | int | float)
        return {"score": value if plain else f"{type(value).__name__} {value!r}"[:200]}

    return score

"""The process that compares expressions with math-verify."""

from __future__ import annotations

import functools
import importlib
import logging
from typing import TYPE_CHECKING, TypeAlias, cast

from agentrl.sandbox.worker_main import harden

if TYPE_CHECKING:
    from collections.abc import Callable

    from sympy import Basic, MatrixBase

    Expressions: TypeAlias = list[Basic | MatrixBase | str]


def prepare(settings: dict[str, object]) -> Callable[[dict[str, object]], dict[str, object]]:
    """Import math-verify, give up everything else, and return what compares."""
    del settings
    importlib.import_module("math_verify")  # with sympy, before the doors are shut
    logging.disable(logging.CRITICAL)
    parsed("1+\\frac{1}{2}")
    harden()
    return compare


@functools.lru_cache(maxsize=4096)
def parsed(text: str) -> Expressions:
    """Read LaTeX. The reader of plain expressions is left out: it gives its input to `eval`."""
    from math_verify import LatexExtractionConfig, parse

    untimed = cast("int", None)  # documented by math-verify, and missing in its types
    found = parse(f"${text}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=untimed)
    return cast("Expressions", found)


def compare(asked: dict[str, object]) -> dict[str, object]:
    """Compare an answer with the gold one, gold first."""
    gold, answer = parsed(str(asked["gold"])), parsed(str(asked["answer"]))
    if not _read(gold):
        return {"verdict": "grader_error", "message": f"the gold answer {asked['gold']!r} cannot be read"}
    if not _read(answer):
        return {"verdict": "unparsable", "message": "the answer cannot be read as mathematics"}
    if _contradicts(answer) and not _contradicts(gold):
        return {"verdict": "wrong", "message": "the answer equates numbers that differ"}
    return {"verdict": "correct" if _equal(gold, answer) else "wrong"}


def _read(expressions: Expressions) -> bool:
    return any(not isinstance(item, str) for item in expressions)


def _contradicts(expressions: Expressions) -> bool:
    """Say whether numbers are equated that differ by more than rounding: 12 = 14 is two answers."""
    import sympy

    equations = [found for item in expressions if not isinstance(item, str) for found in item.atoms(sympy.Eq)]
    numbers = [found for found in equations if not found.free_symbols]
    return any(_differ(found.lhs, found.rhs) for found in numbers)


def _differ(first: Basic, second: Basic) -> bool:
    import sympy

    try:
        ours, theirs = complex(sympy.N(first)), complex(sympy.N(second))
    except (TypeError, ValueError, OverflowError):
        return False
    rounded = bool(first.atoms(sympy.Float) | second.atoms(sympy.Float))
    return abs(ours - theirs) > (0.01 if rounded else 1e-9) * max(abs(ours), abs(theirs))


def _equal(gold: Expressions, answer: Expressions) -> bool:
    from math_verify import verify

    if verify(gold, answer, timeout_seconds=None):
        return True
    # math-verify reads x < 3 as an interval on one side only.
    mixed = _relation(gold) != _relation(answer)
    return mixed and bool(verify(answer, gold, timeout_seconds=None))


def _relation(expressions: Expressions) -> bool:
    import sympy
    from sympy.core.relational import Relational

    return any(isinstance(item, Relational | sympy.And | sympy.Or) for item in expressions)

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
    if _undefined(answer) and not _undefined(gold):
        return {"verdict": "unparsable", "message": "the answer has no value, for it divides by zero"}
    if _contradicts(answer) and not _contradicts(gold):
        return {"verdict": "wrong", "message": "the answer equates numbers that differ"}
    return {"verdict": "correct" if _equal(gold, answer) else "wrong"}


def _read(expressions: Expressions) -> bool:
    return any(not isinstance(item, str) for item in expressions)


def _undefined(expressions: Expressions) -> bool:
    """Say whether something is divided by zero, as far as no expression has to be worked out for it."""
    import sympy

    items = [item for item in expressions if not isinstance(item, str)]
    powers = [power.as_base_exp() for item in items for power in item.atoms(sympy.Pow)]
    return any(item.has(sympy.zoo, sympy.nan) for item in items) or any(
        exponent.is_negative and _zero(base) for base, exponent in powers
    )


def _zero(base: Basic) -> bool:
    """Say whether a base is zero, where that takes no more than to add and to multiply."""
    import sympy

    plain = isinstance(base, sympy.Number | sympy.Add | sympy.Mul) and not base.free_symbols
    return plain and not base.has(sympy.Pow, sympy.Function) and bool(base.doit() == 0)


def _contradicts(expressions: Expressions) -> bool:
    """Say whether numbers are equated that differ by more than rounding: 12 = 14 is two answers."""
    import sympy

    equations = [found for item in expressions if not isinstance(item, str) for found in item.atoms(sympy.Eq)]
    numbers = [found for found in equations if not found.free_symbols]
    return any(_differ(*found.args) for found in numbers)


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
    complex_gold, complex_answer = _with_unit(gold), _with_unit(answer)
    if (complex_gold, complex_answer) != (gold, answer) and verify(
        complex_gold, complex_answer, timeout_seconds=None
    ):
        return True
    # math-verify reads x < 3 as an interval on one side only.
    mixed = _relation(gold) != _relation(answer)
    return mixed and bool(verify(answer, gold, timeout_seconds=None))


def _with_unit(expressions: Expressions) -> Expressions:
    """Read i as the imaginary unit, which math-verify takes for a variable."""
    import sympy

    def read(item: Basic | MatrixBase) -> Basic | MatrixBase:
        found = {symbol: sympy.I for symbol in item.free_symbols if str(symbol) == "i"}
        return item.subs(found) if found else item

    return [item if isinstance(item, str) else read(item) for item in expressions]


def _relation(expressions: Expressions) -> bool:
    import sympy
    from sympy.core.relational import Relational

    return any(isinstance(item, Relational | sympy.And | sympy.Or) for item in expressions)

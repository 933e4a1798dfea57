"""The process that compares expressions with math-verify."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from agentrl.sandbox.worker_main import harden

if TYPE_CHECKING:
    from collections.abc import Callable


def prepare(settings: dict[str, object]) -> Callable[[dict[str, object]], dict[str, object]]:
    """Import math-verify, give up everything else, and return what compares."""
    del settings
    import math_verify  # noqa: F401  # with sympy, before the doors are shut

    logging.disable(logging.CRITICAL)
    parsed("1+\\frac{1}{2}")
    harden()
    return compare


@functools.lru_cache(maxsize=4096)
def parsed(text: str) -> tuple[object, ...]:
    """Read LaTeX. The reader of plain expressions is left out: it gives its input to `eval`."""
    from math_verify import LatexExtractionConfig, parse

    return tuple(parse(f"${text}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=None))


def compare(asked: dict[str, object]) -> dict[str, object]:
    """Compare an answer with the gold one, gold first."""
    gold, answer = parsed(str(asked["gold"])), parsed(str(asked["answer"]))
    if not _read(gold):
        return {"verdict": "grader_error", "message": f"the gold answer {asked['gold']!r} cannot be read"}
    if not _read(answer):
        return {"verdict": "unparsable", "message": "the answer cannot be read as mathematics"}
    return {"verdict": "correct" if _equal(gold, answer) else "wrong"}


def _read(expressions: tuple[object, ...]) -> bool:
    return any(not isinstance(item, str) for item in expressions)


def _equal(gold: tuple[object, ...], answer: tuple[object, ...]) -> bool:
    from math_verify import verify

    if verify(list(gold), list(answer), timeout_seconds=None):
        return True
    # math-verify reads x < 3 as an interval on one side only.
    mixed = _relation(gold) != _relation(answer)
    return mixed and bool(verify(list(answer), list(gold), timeout_seconds=None))


def _relation(expressions: tuple[object, ...]) -> bool:
    import sympy
    from sympy.core.relational import Relational

    return any(isinstance(item, Relational | sympy.And | sympy.Or) for item in expressions)

"""JSON as a model writes it: read strictly, with errors that a model can repair."""

from __future__ import annotations

import json
import math
from typing import TypeAlias

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


def read_json(text: str) -> Json:
    """Read one JSON value; duplicate keys, NaN and infinite numbers, which Python reads, are refused.

    Raises:
        ValueError: a sentence that says what is wrong and where.

    >>> read_json('{"query": "tea", "k": 3}')
    {'query': 'tea', 'k': 3}
    >>> read_json('{"k": 1, "k": 2}')
    Traceback (most recent call last):
    ValueError: the key 'k' occurs twice
    """
    value, length = read_json_at(text)
    if rest := text[length:].strip():
        raise ValueError(f"there is more after it: {rest[:40]!r}")
    return value


def read_json_at(text: str) -> tuple[Json, int]:
    """Read the JSON value that a text begins with, and return it with the characters it takes.

    Raises:
        ValueError: as `read_json`.

    >>> read_json_at(' {"k": 3} and more')
    ({'k': 3}, 9)
    """
    blank = len(text) - len(text.lstrip())
    try:
        value, end = _DECODER.raw_decode(text, blank)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value, end


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} occurs twice")
        found[key] = value
    return found


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text} is too large")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)

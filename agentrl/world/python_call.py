"""A call written as Python, `search(query="tea")`, read without executing anything."""

from __future__ import annotations

import ast
import math
import re
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl.world.json_text import Json

Signatures: TypeAlias = "Mapping[str, Sequence[str]]"
"""Names of a tool's parameters in order, by tool."""

MAX_CHARACTERS: Final = 20_000
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_KNOWN_ESCAPES: Final = frozenset("\n\\'\"abfnrtvxNuU01234567")


def read_python_calls(source: str, signatures: Signatures) -> list[tuple[str, dict[str, Json]]]:
    r"""Read a program of calls whose arguments are literals; `print(f())` is the call of `f`.

    Args:
        signatures: the tools there are; arguments without a name take theirs from it.

    Raises:
        ValueError: a sentence that says what is wrong.

    >>> read_python_calls('print(search("tea", k=3))', {"search": ("query", "k")})
    [('search', {'query': 'tea', 'k': 3})]
    """
    statements = _parsed(source)
    found: list[tuple[str, dict[str, Json]]] = []
    for statement in statements:
        value = statement.value if isinstance(statement, ast.Expr | ast.Assign) else statement
        values = value.elts if isinstance(value, ast.List) else [value]
        found += [_read(one, signatures) for one in values]
    return found


def write_python_call(name: str, arguments: Mapping[str, Json]) -> str:
    """Return the call as `read_python_calls` reads it.

    >>> write_python_call("search", {"query": "tea", "k": 3})
    "search(query='tea', k=3)"
    """
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _parsed(source: str) -> list[ast.stmt]:
    if len(source) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(source)} characters; at most {MAX_CHARACTERS} are read")
    # An escape that Python does not know means itself; written out it raises no warning.
    plain = _ESCAPE.sub(lambda pair: pair[0] if pair[1] in _KNOWN_ESCAPES else "\\" + pair[0], source)
    try:
        return ast.parse(plain.strip()).body
    except SyntaxError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError("it is no Python that can be read") from error


def _read(node: ast.AST, signatures: Signatures) -> tuple[str, dict[str, Json]]:
    if not isinstance(node, ast.Call):
        raise ValueError("it holds more than calls of tools")  # noqa: TRY004  # the caller's contract
    name = _name(node.func)
    if name == "print" and name not in signatures and len(node.args) == 1 and not node.keywords:
        return _read(node.args[0], signatures)
    arguments: dict[str, Json] = {}
    names = signatures.get(name, ())
    if len(node.args) > len(names):
        raise ValueError(f"write the names of the arguments of {name}, as in {name}(key=value)")
    given = [*zip(names, node.args, strict=False), *((item.arg, item.value) for item in node.keywords)]
    for key, value in given:
        if key is None or key in arguments:
            raise ValueError(f"{name} is given an argument twice or without a name")
        arguments[key] = _literal(value)
    return name, arguments


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    raise ValueError("it calls something that has no name")


def _literal(node: ast.AST) -> Json:
    try:
        value = ast.literal_eval(ast.Expression(node) if isinstance(node, ast.expr) else node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError("an argument is no plain value: give texts, numbers, lists or objects") from error
    return _as_json(value)


def _as_json(value: object) -> Json:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {str(key): _as_json(one) for key, one in value.items()}
    raise ValueError(f"an argument is a {type(value).__name__}; give texts, numbers, lists or objects")

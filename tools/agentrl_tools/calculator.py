"""`calculator`: arithmetic without `eval`, with bounds on size and depth."""

from __future__ import annotations

import ast
import math
import operator
from typing import TYPE_CHECKING, Final, TypeAlias

from agentrl.errors import did_you_mean
from agentrl.world.tool import tool

if TYPE_CHECKING:
    from collections.abc import Callable

Number: TypeAlias = int | float
LONGEST: Final = 1000
"""Characters of an expression."""
DEEPEST: Final = 60
LARGEST_BITS: Final = 4096
"""Larger integers are refused: their digits would fill the context, and powers of them take for ever."""

_BINARY: Final[dict[type[ast.operator], Callable[[Number, Number], Number]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: Final[dict[type[ast.unaryop], Callable[[Number], Number]]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_NAMES: Final[dict[str, float]] = {"pi": math.pi, "e": math.e}
_FUNCTIONS: Final[dict[str, tuple[Callable[..., object], int, int]]] = {
    "abs": (abs, 1, 1),
    "ceil": (math.ceil, 1, 1),
    "cos": (math.cos, 1, 1),
    "exp": (math.exp, 1, 1),
    "floor": (math.floor, 1, 1),
    "gcd": (math.gcd, 2, 2),
    "log": (math.log, 1, 2),
    "max": (max, 2, 100),
    "min": (min, 2, 100),
    "round": (round, 1, 2),
    "sin": (math.sin, 1, 1),
    "sqrt": (math.sqrt, 1, 1),
    "tan": (math.tan, 1, 1),
}
"""Function, least and most arguments."""


@tool
def calculator(expression: str) -> str:
    """Compute an arithmetic expression, for example (3 + 4) * sqrt(2).

    Args:
        expression: numbers, + - * / // % ** (or ^), brackets, pi, e, and abs, ceil, cos, exp, floor, gcd,
            log, max, min, round, sin, sqrt, tan.
    """
    return shown(compute(expression))


def compute(expression: str) -> Number:
    """Return the value of an arithmetic expression.

    Integers stay exact. `^` is a power, as people write it.

    Raises:
        ValueError, ArithmeticError: a sentence about what cannot be read or computed.

    >>> compute("2^10 - 24"), compute("7 / 2")
    (1000, 3.5)
    """
    if len(expression) > LONGEST:
        raise ValueError(f"the expression has {len(expression)} characters; at most {LONGEST} are read")
    text = expression.strip().replace("^", "**").replace("×", "*").replace("÷", "/").replace("−", "-")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression!r} is no arithmetic expression") from error
    return _bounded(_value(tree.body, 0))


def shown(value: Number) -> str:
    """Write a number as a person would: no trailing `.0`, twelve significant digits.

    >>> shown(0.1 + 0.2), shown(6.0)
    ('0.3', '6')
    """
    if isinstance(value, int):
        return str(value)
    return f"{value:.12g}"


def _value(node: ast.expr, depth: int) -> Number:
    if depth > DEEPEST:
        raise ValueError(f"the expression is nested more than {DEEPEST} deep")
    below = depth + 1
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.UnaryOp(op=sign) if type(sign) in _UNARY:
            return _UNARY[type(sign)](_value(node.operand, below))
        case ast.BinOp(op=ast.Pow()):
            return _power(_value(node.left, below), _value(node.right, below))
        case ast.BinOp(op=between) if type(between) in _BINARY:
            return _bounded(_BINARY[type(between)](_value(node.left, below), _value(node.right, below)))
        case ast.Call(func=ast.Name(id=name), args=given, keywords=[]):
            return _bounded(_called(name, [_value(item, below) for item in given]))
        case _:
            raise ValueError(f"{ast.unparse(node)[:40]!r} is not arithmetic")


def _called(name: str, given: list[Number]) -> object:
    if name not in _FUNCTIONS:
        raise ValueError(f"there is no function {name!r}.{did_you_mean(name, _FUNCTIONS)}")
    function, least, most = _FUNCTIONS[name]
    if not least <= len(given) <= most:
        raise ValueError(f"{name} takes {least} to {most} arguments; got {len(given)}")
    try:
        return function(*given)
    except TypeError as error:
        raise ValueError(f"{name} does not take {', '.join(map(shown, given))}") from error


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        if base.bit_length() * exponent > LARGEST_BITS:
            raise OverflowError("the power is too large")
        return int(base**exponent)
    value = float(base) ** float(exponent) if base >= 0 or float(exponent).is_integer() else math.nan
    return _bounded(value)


def _bounded(value: object) -> Number:
    if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ArithmeticError("the result is not a real number")
    if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
        raise OverflowError("the number is too large")
    return value

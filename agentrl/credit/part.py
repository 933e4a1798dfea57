"""What every part of an algorithm shares: it prints, describes itself, is rebuilt, and may hold schedules.

A part is a plain module-level function or a frozen dataclass with `__call__`; a part with parts inside is a
tree. What a part declares (`needs`, `reads_current`) is asked of the whole tree by `parts_inside`, so that no
part that holds others has to pass it on.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass, replace
from types import FunctionType
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeGuard, TypeVar, cast, get_args, get_origin

import numpy as np

from agentrl.errors import AlgorithmError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from _typeshed import DataclassInstance
    from numpy.typing import NDArray

Description: TypeAlias = "dict[str, Description] | list[Description] | str | int | float | bool | None"

Value = TypeVar("Value")
Scalar = TypeVar("Scalar", bound=np.generic)


class Schedule(ABC):
    """A number that changes with the progress of training, 0 at the start and 1 at the end."""

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """Return the number at `progress` in [0, 1]."""


Number: TypeAlias = "float | Schedule"

_MOVED = {
    f"agentrl.credit.advantage:{name}": f"agentrl.credit.compose:{name}" for name in ("Sum", "Weighted")
}
"""Where parts stand now that run cards of earlier versions name elsewhere."""

NOTHING = 1e-6
"""Relative figures below this count as zero; comparing floats with 0 would depend on their rounding."""


def fixed(number: Number) -> float:
    """Return a plain number. Raises `AlgorithmError` for a schedule that nobody resolved.

    >>> fixed(0.2)
    0.2
    """
    if isinstance(number, Schedule):
        raise AlgorithmError(
            f"{number!r} is a schedule, and a part needs a number. "
            "Use algorithm.at(progress) before credit and loss."
        )
    return number


def resolve(value: Value, progress: float) -> Value:
    """Return the value with every schedule inside replaced by its number at `progress`."""
    if isinstance(value, Schedule):
        return cast("Value", value(progress))
    if isinstance(value, tuple):
        return cast("Value", tuple(resolve(item, progress) for item in value))
    if not _is_part(value):
        return value
    old = {item.name: getattr(value, item.name) for item in fields(value)}
    new = {name: resolve(item, progress) for name, item in old.items()}
    changed = {name: item for name, item in new.items() if item is not old[name]}
    return cast("Value", replace(value, **changed)) if changed else cast("Value", value)


class Checked:
    """Refuses a text that is not among the choices of its field, where the field's type is a `Literal`.

    A dataclass with such a field inherits it, mostly through `Printed`; one with a `__post_init__` of its own
    calls this one first.
    """

    def __post_init__(self) -> None:
        """Raise `AlgorithmError` for the first text outside of its choices."""
        for name, choices in choices_of(type(self)).items():  # type: ignore[arg-type]  # classes are hashable
            given: object = getattr(self, name)
            if not isinstance(given, str) or given not in choices:
                listed = ", ".join(map(repr, choices))
                raise AlgorithmError(
                    f"{name} of {type(self).__name__} must be one of {listed}; got {given!r}."
                    f"{did_you_mean(str(given).casefold(), choices)}"
                )


@functools.cache
def choices_of(part: type) -> Mapping[str, tuple[str, ...]]:
    """Return the choices of each field whose type is a `Literal`, by its name.

    >>> from agentrl.credit.keep import NoVoid
    >>> choices_of(NoVoid)
    {'scope': ('trajectory', 'turn')}
    """
    found: dict[str, tuple[str, ...]] = {}
    for base in reversed(part.__mro__):
        names = dict(vars(sys.modules.get(base.__module__, sys)))
        for field, annotation in vars(base).get("__annotations__", {}).items():
            kind = _evaluated(annotation, names)
            if get_origin(kind) is Literal:
                found[field] = get_args(kind)
    return found


def _evaluated(annotation: object, names: dict[str, object]) -> object:
    """Return the type that an annotation names; None where it is known to type checkers only."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return cast("object", eval(annotation, names))  # noqa: S307  # source text of a class
    except (NameError, AttributeError, TypeError):
        return None


class Printed(Checked):
    """Prints a part with the names of the functions inside; a plain repr of a function shows an address."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{item.name}={_show(getattr(self, item.name))}" for item in fields(self))  # type: ignore[arg-type]  # a mixin of dataclasses
        return f"{type(self).__name__}({shown})"


def name_of(part: object) -> str:
    """Return a short name of a part for messages and metrics.

    >>> name_of(fixed)
    'fixed'
    """
    return part.__name__ if isinstance(part, FunctionType | type) else type(part).__name__


def per_turn(values: NDArray[Scalar], part: object, turns: int) -> NDArray[Scalar]:
    """Return what a part gave. Raises `AlgorithmError` that names the part unless it is an array of (S,)."""
    answer: object = values
    if not isinstance(answer, np.ndarray) or values.shape != (turns,):
        given = f"shape {values.shape}" if hasattr(values, "shape") else f"a {type(values).__name__}"
        raise AlgorithmError(
            f"{name_of(part)} gave {given}; expected an array of one figure per turn, ({turns},)."
        )
    return values


def parts_inside(value: object) -> Iterator[object]:
    """Give a part and all parts inside it, from the outside in.

    >>> from agentrl.credit.advantage import Relative
    >>> [name_of(part) for part in parts_inside(0.5 * Relative())]
    ['Weighted', 'Relative', 'episode_total', 'same_task', 'mean', 'Std']
    """
    if callable(value):
        yield value
    if isinstance(value, tuple):
        inside: tuple[object, ...] = value
    else:
        inside = tuple(getattr(value, item.name) for item in fields(value)) if _is_part(value) else ()
    for item in inside:
        yield from parts_inside(item)


def describe(value: object) -> Description:
    """Return a part as plain data: dotted names of functions and classes, and their fields.

    Raises:
        AlgorithmError: a closure, a lambda or another object that no dotted name leads back to.

    >>> describe(fixed)
    {'function': 'agentrl.credit.part:fixed'}
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, tuple):
        return [describe(item) for item in value]
    if isinstance(value, FunctionType):
        return {"function": _dotted(value)}
    if _is_part(value):
        inside = {item.name: describe(getattr(value, item.name)) for item in fields(value)}
        return {"part": _dotted(type(value)), **inside}
    raise AlgorithmError(
        f"{value!r} cannot be written to a run card; a part is a module-level function or a frozen dataclass."
    )


def rebuild(description: Description) -> object:
    """Return the value that `describe` wrote.

    It imports the modules named there, so read only run cards that you trust.

    >>> rebuild(describe(fixed)) is fixed
    True
    """
    if isinstance(description, list):
        return tuple(rebuild(item) for item in description)
    if not isinstance(description, dict):
        return description
    if "function" in description:
        return load(str(description["function"]))
    inside = {name: rebuild(item) for name, item in description.items() if name != "part"}
    part = load(str(description["part"]))
    if not isinstance(part, type):
        raise AlgorithmError(f"{description['part']!r} is not a class; a run card names a part's class.")
    return cast("object", part(**inside))


def load(path: str) -> object:
    """Return the object at a dotted path `"package.module:NAME"`.

    Raises:
        AlgorithmError: the path has no colon, there is no such module, or it has no such name.
    """
    module_name, colon, name = _MOVED.get(path, path).partition(":")
    if not colon:
        raise AlgorithmError(f"{path!r} is not a dotted path; write 'package.module:NAME'.")
    if not _exists(module_name):
        raise AlgorithmError(
            f"there is no module {module_name!r}; install it or add its folder to PYTHONPATH."
        )
    module = importlib.import_module(module_name)
    if not hasattr(module, name):
        raise AlgorithmError(f"module {module_name!r} has no {name!r}.{did_you_mean(name, vars(module))}")
    return cast("object", getattr(module, name))


def _exists(module_name: str) -> bool:
    try:
        return importlib.util.find_spec(module_name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _is_part(value: object) -> TypeGuard[DataclassInstance]:
    return is_dataclass(value) and not isinstance(value, type)


def _dotted(named: FunctionType | type[object]) -> str:
    if "<" in named.__qualname__ or "." in named.__qualname__:
        raise AlgorithmError(
            f"{named.__qualname__} is local to a function or class, so a run card cannot name it; "
            "move it to the top of a module."
        )
    return f"{named.__module__}:{named.__qualname__}"


def _show(value: object) -> str:
    if isinstance(value, FunctionType):
        return value.__name__
    if isinstance(value, tuple):
        return "(" + ", ".join(_show(item) for item in value) + ("," if len(value) == 1 else "") + ")"
    return repr(value)

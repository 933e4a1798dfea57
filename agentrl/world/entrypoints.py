"""Things named by text: `module:attribute` with sentences for errors, and what packages offer."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentrl.errors import MissingExtraError, RegistryError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_KINDS: Final[Mapping[object, tuple[type, str]]] = {
    name: kind
    for plain, kind in (
        (int, (numbers.Integral, "a whole number")),
        (float, (numbers.Real, "a number")),
        (bool, (bool, "true or false")),
        (str, (str, "a text")),
    )
    for name in (plain, plain.__name__)
}
"""Annotations of constructors that can be checked without resolving names, as types and as texts."""


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """A name that an installed distribution offers; nothing is imported to know it."""

    name: str
    value: str
    distribution: str


@functools.cache
def discovered(group: str) -> tuple[EntryPoint, ...]:
    """Return what the installed distributions offer in a group, read once; `rescan` forgets it."""
    found = {
        EntryPoint(item.name, item.value.replace(" ", ""), item.dist.name if item.dist else "")
        for item in importlib.metadata.entry_points(group=group)
    }
    return tuple(sorted(found, key=lambda item: (item.name, item.distribution, item.value)))


def rescan() -> None:
    """Forget the entry points read so far, after packages were installed or `sys.path` changed."""
    discovered.cache_clear()


def one_named(group: str, name: str) -> EntryPoint | None:
    """Return the entry point of this name, or None.

    A name such as "mine/Guess-v0" belongs to the distribution "mine", whoever else offers it.

    Raises:
        RegistryError: several distributions offer the name with different values.
    """
    found = [item for item in discovered(group) if item.name == name]
    owner = name.partition("/")[0]
    found = [item for item in found if "/" in name and item.distribution == owner] or found
    if len({item.value for item in found}) > 1:
        sources = " and ".join(f"{item.value} ({item.distribution})" for item in found)
        raise RegistryError(f"{name!r} is offered by {sources}. Uninstall one of them.")
    return found[0] if found else None


def load_attribute(path: str, what: str) -> object:
    """Import `module:attribute`.

    Args:
        path: for example "my_package.worlds:Guess".
        what: what is being loaded, for the message.

    Raises:
        RegistryError: the module cannot be imported or has no such attribute.
        MissingExtraError: the module itself asks for an extra.
    """
    module_name, _, attribute = path.partition(":")
    if not attribute:
        raise RegistryError(
            f"{what} cannot be loaded: its entry point {path!r} names a module alone; write 'module:Class'."
        )
    try:
        found: object = importlib.import_module(module_name)
    except MissingExtraError:
        raise
    except (Exception, SystemExit) as error:
        raise RegistryError(
            f"{what} cannot be loaded: importing {module_name!r} failed with {type(error).__name__}: {error}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, dir(found))
            raise RegistryError(f"{what} cannot be loaded: {module_name!r} has no {attribute!r}.{hint}")
        found = getattr(found, part)
    return found


def check_arguments(factory: Callable[..., object], given: Mapping[str, object], what: str) -> None:
    """Check constructor arguments before the constructor runs: their names, and the kinds of plain ones.

    Raises:
        RegistryError: an argument is unknown, missing, or no number (truth, text) where its annotation says
            so; the message names what is accepted.
    """
    parameters = inspect.signature(factory).parameters.values()
    named = {p.name: p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}}
    accepted = f"It accepts {', '.join(named)}." if named else "It accepts none."
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        for name in given:
            if name not in named:
                raise RegistryError(f"{what} has no argument {name!r}.{did_you_mean(name, named)} {accepted}")
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in given:
            raise RegistryError(f"{what} needs the argument {name!r}. {accepted}")
        if name in given:
            _check_kind(f"{what} takes {name}", parameter.annotation, given[name])


def _check_kind(what: str, annotation: object, value: object) -> None:
    kind = _KINDS.get(annotation) if isinstance(annotation, str | type) else None
    if kind is None:
        return
    if not isinstance(value, kind[0]) or (isinstance(value, bool) and kind[0] is not bool):
        raise RegistryError(f"{what} as {kind[1]}; got {value!r}.")

"""Environments and tools by name: `namespace/Name-vN`, `module:Class`, and what installed packages offer."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import os
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, cast, overload

import gymnasium
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from agentrl.errors import AgentrlError, RegistryError, as_sentence, did_you_mean
from agentrl.world.asynchronous import AsyncTextEnv
from agentrl.world.closing import RAISED
from agentrl.world.entrypoints import (
    EntryPoint,
    check_arguments,
    discovered,
    load_attribute,
    one_named,
    rescan,
)
from agentrl.world.env import TextEnv
from agentrl.world.tool import Tool, tools_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gymnasium.envs.registration import EnvCreator

__all__ = [
    "AnyEnv", "EnvSpec", "clashes", "list_envs", "list_tools", "load_tool", "load_toolset", "make",
    "make_any", "mirror_to_gymnasium", "register", "rescan", "spec",
]  # fmt: skip

AnyEnv: TypeAlias = TextEnv | AsyncTextEnv
Factory: TypeAlias = "Callable[..., AnyEnv]"
F = TypeVar("F", bound="Callable[..., AnyEnv]")

ENVIRONMENTS: Final = "agentrl.envs"
FAMILIES: Final = "agentrl.env_families"
TOOL_FAMILIES: Final = "agentrl.tool_families"
"""Worlds of others by prefix: the entry point "gym" makes each id "gym:NAME"; NAME is its argument `name`."""
TOOLS: Final = "agentrl.tools"
_ID: Final = re.compile(r"(?P<family>[A-Za-z0-9_-]+/[A-Za-z][A-Za-z0-9_.-]*?)-v\d+\Z")
_PATH: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z")
_SPECS: Final[dict[str, EnvSpec]] = {}


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """How an environment is made.

    Attributes:
        id: `namespace/Name-vN`, or `module:Class` for one that was never registered.
        entry_point: "module:Class", or the class or function itself.
        kwargs: passed to the constructor; those given to `make` win.
        distribution: the installed package that offers it, empty for one registered in a script.
        tags, description: for lists and reports.
    """

    id: str
    entry_point: str | Factory
    kwargs: Mapping[str, object] = field(default_factory=dict)
    distribution: str = ""
    tags: tuple[str, ...] = ()
    description: str = ""

    @property
    def source(self) -> str:
        """The entry point as text."""
        return self.entry_point if isinstance(self.entry_point, str) else _path_of(self.entry_point)

    def load(self) -> Factory:
        """Return the class or function that makes the environment.

        Raises:
            RegistryError: it cannot be imported or is not callable.
        """
        if not isinstance(self.entry_point, str):
            return self.entry_point
        origin = f" of the package {self.distribution!r}" if self.distribution else ""
        found = load_attribute(self.entry_point, f"the environment {self.id!r}{origin}")
        if not callable(found):
            raise RegistryError(f"{self.entry_point!r} is no class or function; got {type(found).__name__}.")
        return cast("Factory", found)

    def make(self, **kwargs: object) -> AnyEnv:
        """Make the environment with these arguments on top of the spec's own."""
        factory = self.load()
        arguments = {**self.kwargs, **kwargs}
        check_arguments(factory, arguments, f"the environment {self.id!r}")
        made = self._made(factory, arguments)
        if not isinstance(made, TextEnv | AsyncTextEnv):
            raise RegistryError(
                f"{self.source!r} made a {type(made).__name__}; "
                f"an environment is a TextEnv or an AsyncTextEnv."
            )
        if isinstance(made, TextEnv) and _ID.match(self.id):
            made.spec = _gymnasium_spec(dataclasses.replace(self, kwargs=arguments))
        return made

    def _made(self, factory: Factory, arguments: Mapping[str, object]) -> AnyEnv:
        try:
            return factory(**arguments)
        except (AgentrlError, OSError):
            raise
        except RAISED as error:
            raise RegistryError(
                f"the environment {self.id!r} cannot be made: {self.source} raised "
                f"{type(error).__name__}: {as_sentence(error)} Mend it, or what it was given."
            ) from error


@overload
def register(
    id: str, entry_point: None = None, *, tags: tuple[str, ...] = (), description: str = "", **kwargs: object
) -> Callable[[F], F]: ...
@overload
def register(
    id: str,
    entry_point: str | Factory,
    *,
    tags: tuple[str, ...] = (),
    description: str = "",
    **kwargs: object,
) -> EnvSpec: ...
def register(
    id: str,  # noqa: A002  # gymnasium's name
    entry_point: str | Factory | None = None,
    *,
    tags: tuple[str, ...] = (),
    description: str = "",
    **kwargs: object,
) -> EnvSpec | Callable[[F], F]:
    """Register an environment; a decorator without `entry_point`.

    Registering the same source again (a script imported twice, a notebook cell run again) changes nothing
    but the arguments. Classes are mirrored to Gymnasium, so `gymnasium.make(id)` works too.

    Args:
        id: `namespace/Name-vN`.
        entry_point: "module:Class", a class or a function.
        tags: labels for `list_envs(tag=...)`.
        description: one sentence; the first line of the docstring by default.
        kwargs: passed to the constructor.

    Raises:
        RegistryError: the id is malformed or taken by another source.

    >>> @register("docs/Echo-v0")
    ... class Echo(TextEnv):
    ...     '''Says what it is told.'''
    >>> spec("docs/Echo-v0").description
    'Says what it is told.'
    """
    _check_id(id)

    def add(factory: F) -> F:
        _add(EnvSpec(id, factory, kwargs, "", tags, description or _first_line(factory)))
        return factory

    if entry_point is None:
        return add
    if not isinstance(entry_point, str):
        return _add(EnvSpec(id, entry_point, kwargs, "", tags, description or _first_line(entry_point)))
    if not _PATH.match(entry_point):
        raise RegistryError(f"an entry point is 'module:Class'; got {entry_point!r}.")
    return _add(EnvSpec(id, entry_point, kwargs, "", tags, description))


def _add(new: EnvSpec) -> EnvSpec:
    old = _SPECS.get(new.id)
    if old is not None:
        if not _same_source(old.entry_point, new.entry_point):
            raise RegistryError(
                f"the id {new.id!r} is taken by {old.source}; {new.source} needs another name or version."
            )
        if _module_of(old.entry_point) != _module_of(new.entry_point):
            # The same file under two names: `__main__` and its import. The first one stays.
            new = dataclasses.replace(new, entry_point=old.entry_point)
    _SPECS[new.id] = new
    if isinstance(new.entry_point, type) and issubclass(new.entry_point, TextEnv):
        mirror_to_gymnasium(new)
    return new


def spec(id: str) -> EnvSpec:  # noqa: A002  # gymnasium's name
    """Return the spec of an id, "module:Class", "family:name", or "module:id" after importing the module.

    Raises:
        RegistryError: nothing has this name; the message names the nearest one.
    """
    if id in _SPECS:
        return _SPECS[id]
    module, colon, rest = id.partition(":")
    family = one_named(FAMILIES, module) if colon else None
    if family is not None:
        return EnvSpec(id, family.value, {"name": rest}, family.distribution)
    if _PATH.match(id):
        return EnvSpec(id, id)
    if colon:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise RegistryError(f"{id!r} cannot be found: {as_sentence(error)}") from error
        return spec(rest)
    _check_id(id)
    offered = one_named(ENVIRONMENTS, id)
    if offered is None:
        raise RegistryError(
            f"there is no environment {id!r}.{_nearest(id)} `agentrl envs list` names them all."
        )
    return _spec_of(offered)


def _spec_of(offered: EntryPoint) -> EnvSpec:
    return EnvSpec(offered.name, offered.value, distribution=offered.distribution)


def make_any(id: str, **kwargs: object) -> AnyEnv:  # noqa: A002  # gymnasium's name
    """Make an environment, synchronous or not. See `make`."""
    return spec(id).make(**kwargs)


def make(id: str, **kwargs: object) -> TextEnv:  # noqa: A002  # gymnasium's name
    """Make an environment.

    Args:
        id: `namespace/Name-vN`, or "module:Class" for one that is not registered.
        kwargs: passed to the constructor.

    Raises:
        RegistryError: the id is unknown, an argument is wrong, or the package that offers it is broken.
        MissingExtraError: the environment needs packages that are not installed.
    """
    made = make_any(id, **kwargs)
    if isinstance(made, AsyncTextEnv):
        raise RegistryError(
            f"{id!r} is an AsyncTextEnv; make it with make_any, and await its reset and step."
        )
    return made


def list_envs(*, tag: str | None = None) -> tuple[str, ...]:
    """Return the ids of all environments, registered or offered by packages; imports none of them."""
    found = {item.name: _spec_of(item) for item in discovered(ENVIRONMENTS) if _ID.match(item.name)}
    found.update(_SPECS)
    return tuple(sorted(name for name, item in found.items() if tag is None or tag in item.tags))


def clashes() -> list[tuple[EnvSpec, str]]:
    """Return what packages offer under an id that means something else, or nothing, with why."""
    found: list[tuple[EnvSpec, str]] = []
    for item in discovered(ENVIRONMENTS):
        if _ID.match(item.name) and item.name not in _SPECS:
            try:
                chosen = one_named(ENVIRONMENTS, item.name)
            except RegistryError as error:
                found.append((_spec_of(item), str(error)))
                continue
            if chosen is not None and chosen.value != item.value:
                found.append((_spec_of(item), f"the id belongs to {chosen.distribution!r}"))
    return found


def list_tools() -> tuple[str, ...]:
    """Return the names of the tools that installed packages offer; imports none of them."""
    return tuple(dict.fromkeys(item.name for item in discovered(TOOLS)))


def load_tool(name: str, **kwargs: object) -> tuple[Tool, ...]:
    """Return the tools of what `load_toolset` returns.

    Raises:
        RegistryError: nothing has this name, an argument is wrong, or what it names has no tools.
    """
    found = load_toolset(name, **kwargs)
    tools = tools_of(found)
    if not tools:
        raise RegistryError(f"{name!r} names {found!r}, which has no tools. Mark its methods with @tool.")
    return tools


def load_toolset(name: str, **kwargs: object) -> object:
    """Return the thing that has the tools of a name, of "family:rest" or of "module:attribute".

    Args:
        name: of an entry point of the group `agentrl.tools`; or the name of one of `agentrl.tool_families`, a
            colon, and what its class gets as `name`.
        kwargs: passed to the constructor, where the name stands for a class.

    Raises:
        RegistryError: nothing has this name, or an argument is wrong.
    """
    family, colon, rest = name.partition(":")
    offered = one_named(TOOL_FAMILIES, family) if colon else None
    if offered is not None:
        kwargs = {"name": rest, **kwargs}
    else:
        offered = one_named(TOOLS, name)
    if offered is None and not _PATH.match(name):
        raise RegistryError(
            f"there is no tool {name!r}.{did_you_mean(name, list_tools())} `agentrl tools list` names them."
        )
    found = load_attribute(name if offered is None else offered.value, f"the tool {name!r}")
    if callable(found) and not tools_of(found):
        check_arguments(found, kwargs, f"the tool {name!r}")
        found = found(**kwargs)
    elif kwargs:
        raise RegistryError(
            f"the tool {name!r} takes no arguments when it is loaded; got {', '.join(kwargs)}."
        )
    return found


def mirror_to_gymnasium(spec: EnvSpec) -> None:
    """Enter a spec into Gymnasium's registry, so that `gymnasium.make(spec.id)` works. Twice does no harm.

    Raises:
        RegistryError: the id is malformed, or Gymnasium has it from another source.
    """
    _check_id(spec.id)
    old = gymnasium.registry.get(spec.id)
    point = old.entry_point if old is not None else None
    if point is not None and not _same_source(point, spec.entry_point):
        raise RegistryError(
            f"Gymnasium has {spec.id!r} from {point!r} already; {spec.source} needs another id."
        )
    gymnasium.registry[spec.id] = _gymnasium_spec(spec)


def _gymnasium_spec(spec: EnvSpec) -> GymnasiumSpec:
    # Order is enforced by TextEnv itself, also after the end of an episode.
    point = cast("str | EnvCreator", spec.entry_point)
    return GymnasiumSpec(id=spec.id, entry_point=point, kwargs=dict(spec.kwargs), order_enforce=False)


def _check_id(id: str) -> None:  # noqa: A002  # gymnasium's name
    if not _ID.match(id):
        raise RegistryError(
            f"an environment id is 'namespace/Name-vN', for example 'mine/Guess-v0'; got {id!r}."
            f"{did_you_mean(id, list_envs())}"
        )


def _nearest(id: str) -> str:  # noqa: A002  # gymnasium's name
    match = _ID.match(id)
    family = match["family"] if match else id
    versions = [known for known in list_envs() if known.rsplit("-v", 1)[0] == family]
    return f" There is {', '.join(versions)}." if versions else did_you_mean(id, list_envs())


def _first_line(factory: object) -> str:
    own = vars(factory).get("__doc__") if isinstance(factory, type) else inspect.getdoc(factory)
    return str(own).strip().splitlines()[0] if own else ""


def _module_of(entry_point: object) -> str:
    if isinstance(entry_point, str):
        return entry_point.partition(":")[0]
    return str(getattr(entry_point, "__module__", ""))


def _path_of(factory: object) -> str:
    return f"{_module_of(factory)}:{getattr(factory, '__qualname__', repr(factory))}"


def _same_source(one: object, other: object) -> bool:
    paths = [item if isinstance(item, str) else _path_of(item) for item in (one, other)]
    if paths[0] == paths[1]:
        return True
    names = [path.partition(":")[2] for path in paths]
    files = [_file_of(path.partition(":")[0]) for path in paths]
    return names[0] == names[1] and files[0] is not None and files[0] == files[1]


def _file_of(module: str) -> str | None:
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if loaded is None:
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
        file = found.origin if found is not None else None
    return os.path.realpath(file) if file else None

"""One game in TextWorld's PDDL engine: commands in, ALFWorld's texts out, the true facts beside them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agentrl.errors import EnvironmentFault, MissingExtraError
from agentrl_envs.textworld.engine import ONE_AT_A_TIME, undisturbed

if TYPE_CHECKING:
    from collections.abc import Generator

    from agentrl_envs.alfworld.data import Game, Logic

NOTHING: Final = "Nothing happens."
_LETTERS: Final = {"_bar_": "|", "_minus_": "-", "_plus_": "+", "_dot_": ".", "_comma_": ","}
_BASIN: Final = "basin"
_BOOKKEEPING: Final = frozenset({"checked", "examined"})
"""What was looked at: no action and no goal of ALFWorld asks for it."""


def require_engine() -> None:
    """Raise `MissingExtraError` where TextWorld or its planner is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("textworld", "fast_downward")):
        raise MissingExtraError("ALFWorld", "alfworld")


_IDLE: Final[list[Any]] = []
"""Copies of the engine that no session holds. They stay: a process that unloaded one crashes when it ends."""


@dataclass(frozen=True, slots=True)
class Translated:
    """A game as the engine wants it: shared by all sessions and only read."""

    task: Any
    sas: bytes
    logic: Any
    names: dict[str, str]


class Session:
    """Plays games of ALFWorld; not for two threads. `close` gives its copy of the engine back.

    Texts, commands and goals are those of `textworld.envs.PddlEnv` with ALFWorld's names, measured equal; the
    translation is shared, half of it (for a planner) is left out, and commands are worded once.
    """

    def __init__(self) -> None:
        self._library: Any = None
        self._game: Game | None = None
        self._commands: dict[str, str] = {}

    def start(self, game: Game) -> str:
        """Begin a game and return its opening. Raises `EnvironmentFault` where the engine refuses it."""
        with undisturbed():
            if self._library is None:
                self._library = _IDLE.pop() if _IDLE else _load_library()
            if game != self._game:
                self._commands = {}
            self._game = game
            self._translated = _translate(game)
            self._state = _new_state(self._library, self._translated)
            self._entities = _entities(self._translated)
            self._look_around()
            return self._said("#intro#", {})

    def send(self, command: str) -> str:
        """Carry out one command; "Nothing happens." where it is not admissible."""
        with ONE_AT_A_TIME:
            action = self._actions.get(command.strip())
            if action is None:
                return NOTHING
            self._state.apply(action)
            text = self._said(action.feedback_rule, action.mapping)
            self._look_around()
            return text

    def commands(self) -> list[str]:
        """Return the admissible commands, sorted."""
        return sorted(self._actions)

    def won(self) -> bool:
        """Whether the goal holds now."""
        return bool(self._library.check_goal())

    def facts(self) -> frozenset[str]:
        """Return what is true now; what was looked at, which decides nothing, is left out."""
        return frozenset(str(fact) for fact in self._state.facts if fact.name not in _BOOKKEEPING)

    def close(self) -> None:
        """Give the engine back; `start` takes another."""
        if self._library is not None:
            _IDLE.append(self._library)
        self._library = self._game = None

    def _look_around(self) -> None:
        """Find the actions that are possible now. Of two with one wording the first counts, as upstream."""
        self._actions: dict[str, Any] = {}
        for action in self._state.all_applicable_actions():
            self._actions.setdefault(self._worded(action), action)

    def _worded(self, action: Any) -> str:  # noqa: ANN401  # an untyped package's object
        """Return the command of a ground action; it names things and where receptacles stand: both stay."""
        key = f"{action.name} {' '.join(variable.name for variable in action.mapping.values())}"
        if key not in self._commands:
            action.command_template = self._said(action.command_template, action.mapping)
            self._commands[key] = action.format_command(self._translated.names)
        return self._commands[key]

    def _said(self, rule: str, mapping: Any) -> str:  # noqa: ANN401  # an untyped package's object
        context = {
            "state": self._state,
            "facts": list(self._state.facts),
            "variables": {place.name: self._entities[thing.name] for place, thing in mapping.items()},
            "mapping": mapping,
            "entity_infos": self._entities,
        }
        return str(self._translated.logic.grammar.derive(rule, context))


def names_of(identifiers: list[str]) -> dict[str, str]:
    """Name things as ALFWorld does: their type, and a number that counts backwards through the sorted ids.

    >>> names_of(["mug_bar_1", "mug_bar_2", "sink_bar_3_bar_sinkbasin"])
    {'mug_bar_1': 'mug 2', 'mug_bar_2': 'mug 1', 'sink_bar_3_bar_sinkbasin': 'sinkbasin 1'}
    """
    kinds = {name: _kind_of(name) for name in sorted(identifiers)}
    left = Counter(kind for name, kind in kinds.items() if "_bar_" in name)
    names: dict[str, str] = {}
    for name, kind in kinds.items():
        if "_bar_" not in name:
            names[name] = f"{kind} "
            continue
        names[name] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return names


def _kind_of(identifier: str) -> str:
    text = functools.reduce(lambda text, pair: text.replace(*pair), _LETTERS.items(), identifier)
    kind, bar, _ = text.partition("|")
    return f"{kind}{_BASIN}" if bar and _BASIN in identifier else kind


def _load_library() -> Any:  # noqa: ANN401  # an untyped package's object
    import fast_downward  # pyright: ignore[reportMissingImports]  # an extra that may be absent

    return fast_downward.load_lib()


@functools.lru_cache(maxsize=64)
def _translate(game: Game) -> Translated:
    import fast_downward  # pyright: ignore[reportMissingImports]  # an extra that may be absent

    with _arguments_kept():
        try:
            translation: Any = fast_downward.pddl2sas(game.logic.domain, game.problem)
            task, sas = translation
        except (Exception, SystemExit) as error:
            detail = f"{type(error).__name__}: {error}"
            raise EnvironmentFault(f"the engine cannot read this problem of ALFWorld: {detail}") from error
    identifiers = [item.name for item in task.objects]
    logic = _grammar(game.logic)
    _add_types(task, logic)
    return Translated(task, sas.encode(), logic, names_of(identifiers))


@functools.lru_cache(maxsize=16)
def _grammar(logic: Logic) -> Any:  # noqa: ANN401  # an untyped package's object
    from textworld.envs.pddl.logic import GameLogic

    return GameLogic(domain=logic.domain, grammar=logic.grammar)


def _add_types(task: Any, logic: Any) -> None:  # noqa: ANN401  # an untyped package's objects
    from textworld.logic import Type

    for kind in task.types:
        with contextlib.suppress(ValueError):  # another game of this logic has added it
            logic.types.add(Type(kind.name, kind.supertype_names))


@contextlib.contextmanager
def _arguments_kept() -> Generator[None, None, None]:
    """Keep the arguments of the process: the translator writes its own into them."""
    arguments = sys.argv
    try:
        yield
    finally:
        sys.argv = arguments


def _entities(translated: Translated) -> dict[str, Any]:
    from textworld.generator.game import EntityInfo

    objects = translated.task.objects
    entities: dict[str, Any] = {item.name: EntityInfo(item.name, item.type_name) for item in objects}
    for identifier, entity in entities.items():
        entity.name, entity.definite, entity.indefinite = translated.names[identifier], "the", "a"
    return entities


def _new_state(library: Any, translated: Translated) -> Any:  # noqa: ANN401  # an untyped package's objects
    """Return the game's first state: what upstream's constructor does, from a translation that is ready."""
    from fast_downward.translate import pddl  # pyright: ignore[reportMissingImports]  # an extra that may be absent
    from textworld.envs.pddl.logic import Atom, PddlState
    from textworld.logic import Proposition, Variable

    task, kinds = translated.task, {item.name: item.type_name for item in translated.task.objects}
    state = PddlState.__new__(PddlState)
    vars(state).update(
        _facts=defaultdict(set), _vars_by_name={}, _vars_by_type=defaultdict(set), _var_counts=Counter(),
        _logic=translated.logic, _actions={action.name: action for action in task.actions},
        downward_lib=library, task=task, name2type=kinds,
    )  # fmt: skip
    library.load_sas(translated.sas)
    state.add_facts([
        Proposition(atom.predicate, [Variable(name, kinds[name]) for name in atom.args])
        for atom in task.init
        if isinstance(atom, pddl.conditions.Atom) and atom.predicate != "="
    ])  # fmt: skip
    atoms = (Atom * library.get_state_size())()
    library.get_state(atoms)
    facts = [atom.get_fact(kinds) for atom in atoms]
    state.add_facts([fact for fact in facts if not fact.is_negation])
    return state

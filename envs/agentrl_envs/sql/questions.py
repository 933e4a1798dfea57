"""Kinds of questions: a sentence with holes, and the query that answers it, given the names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentrl_envs.sql.naming import Names

Holes: TypeAlias = "Mapping[str, str]"
STATISTICS = {"average": "avg", "highest": "max", "lowest": "min", "total": "sum"}


@dataclass(frozen=True)
class Kind:
    """One kind of question.

    Attributes:
        name: the task type, for reports.
        text: the sentence; holes are noun, plural, column, value, statistic, parent, parents, grandparent.
        query: writes the query.
    """

    name: str
    text: str
    query: Callable[[Names, Holes], str]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What reads the holes back."""
        escaped = re.escape(self.text).replace(r"\{", "{").replace(r"\}", "}")
        return re.compile(re.sub(r"\{(\w+)\}", _hole, escaped))


def _hole(match: re.Match[str]) -> str:
    name = match[1]
    return rf"(?P<{name}>[^']*?)" if name == "value" else rf"(?P<{name}>[a-z ]+?)"


def literal(text: str) -> str:
    """Write a text as SQL does."""
    return "'" + text.replace("'", "''") + "'"


def _counted(names: Names, holes: Holes) -> str:
    return f"SELECT count(*) FROM {names.table(holes['noun'])}"


def _above(names: Names, holes: Holes) -> str:
    column = names.column(holes["noun"], holes["column"])
    return f"{_counted(names, holes)} WHERE {column} > {holes['value']}"


def _missing(names: Names, holes: Holes) -> str:
    return f"{_counted(names, holes)} WHERE {names.column(holes['noun'], holes['column'])} IS NULL"


def _listed(names: Names, holes: Holes) -> str:
    noun, column = holes["noun"], holes["column"]
    value = literal(names.value(noun, column, holes["value"]))
    name, held = names.column(noun, "name"), names.column(noun, column)
    return f"SELECT {name} FROM {names.table(noun)} WHERE {held} = {value}"


def _statistic(names: Names, holes: Holes) -> str:
    noun = holes["noun"]
    function = STATISTICS[holes["statistic"]]
    return f"SELECT {function}({names.column(noun, holes['column'])}) FROM {names.table(noun)}"


def _grouped(names: Names, holes: Holes) -> str:
    noun = holes["noun"]
    column = names.column(noun, holes["column"])
    return f"SELECT {column}, count(*) FROM {names.table(noun)} GROUP BY {column}"


def _top(names: Names, holes: Holes) -> str:
    noun = holes["noun"]
    column, name = names.column(noun, holes["column"]), names.column(noun, "name")
    known = f"SELECT {name} FROM {names.table(noun)} WHERE {column} IS NOT NULL"
    return f"{known} ORDER BY {column} DESC, {name} LIMIT 1"


def _joined(names: Names, child: str, parent: str) -> str:
    link, key = names.link(child, parent), names.column(parent, "key")
    return f"{names.table(child)} AS c JOIN {names.table(parent)} AS p ON c.{link} = p.{key}"


def _of_parent(names: Names, holes: Holes) -> str:
    noun, parent = holes["noun"], holes["parent"]
    name = names.column(parent, "name")
    return f"SELECT count(*) FROM {_joined(names, noun, parent)} WHERE p.{name} = {literal(holes['value'])}"


def _average_of_parent(names: Names, holes: Holes) -> str:
    noun, parent = holes["noun"], holes["parent"]
    column, name = names.column(noun, holes["column"]), names.column(parent, "name")
    joined = _joined(names, noun, parent)
    return f"SELECT avg(c.{column}) FROM {joined} WHERE p.{name} = {literal(holes['value'])}"


def _by_parent(names: Names, holes: Holes) -> str:
    noun, parent, column = holes["noun"], holes["parent"], holes["column"]
    value = literal(names.value(parent, column, holes["value"]))
    joined = _joined(names, noun, parent)
    name, held = names.column(noun, "name"), names.column(parent, column)
    return f"SELECT c.{name} FROM {joined} WHERE p.{held} = {value}"


def _most(names: Names, holes: Holes) -> str:
    noun, parent = holes["noun"], holes["parent"]
    key, name = names.column(parent, "key"), names.column(parent, "name")
    joined = _joined(names, noun, parent)
    return (
        f"SELECT p.{name} FROM {joined} GROUP BY p.{key}, p.{name} ORDER BY count(*) DESC, p.{name} LIMIT 1"
    )


def _childless(names: Names, holes: Holes) -> str:
    noun, parent = holes["noun"], holes["parent"]
    link, key = names.link(noun, parent), names.column(parent, "key")
    child = f"SELECT 1 FROM {names.table(noun)} AS c WHERE c.{link} = p.{key}"
    return f"SELECT count(*) FROM {names.table(parent)} AS p WHERE NOT EXISTS ({child})"


def _two_hops(names: Names, holes: Holes) -> str:
    noun, parent, grand = holes["noun"], holes["parent"], holes["grandparent"]
    link, key = names.link(parent, grand), names.column(grand, "key")
    joined = f"{_joined(names, noun, parent)} JOIN {names.table(grand)} AS g ON p.{link} = g.{key}"
    return f"SELECT count(*) FROM {joined} WHERE g.{names.column(grand, 'name')} = {literal(holes['value'])}"


KINDS = (
    Kind("count", "How many {plural} are there?", _counted),
    Kind("count above", "How many {plural} have a {column} above {value}?", _above),
    Kind("missing", "How many {plural} have no known {column}?", _missing),
    Kind("list", "What are the names of the {plural} with the {column} '{value}'?", _listed),
    Kind("statistic", "What is the {statistic} {column} of all {plural}?", _statistic),
    Kind("group", "For each {column}, how many {plural} are there? Give both.", _grouped),
    Kind(
        "top", "Which {noun} has the highest {column}? Give the name; among equals the first by name.", _top
    ),
    Kind("join count", "How many {plural} belong to the {parent} named '{value}'?", _of_parent),
    Kind(
        "join average",
        "What is the average {column} of the {plural} that belong to the {parent} named '{value}'?",
        _average_of_parent,
    ),
    Kind(
        "join list",
        "What are the names of the {plural} whose {parent} has the {column} '{value}'?",
        _by_parent,
    ),
    Kind(
        "most", "Which {parent} has the most {plural}? Give the name; among equals the first by name.", _most
    ),
    Kind("childless", "How many {parents} have no {plural} at all?", _childless),
    Kind(
        "two hops",
        "How many {plural} belong to any {parent} of the {grandparent} named '{value}'?",
        _two_hops,
    ),
)
KIND_NAMES = tuple(kind.name for kind in KINDS)

"""A database from a seed: rows with skew and gaps, and questions whose answers were taken from it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agentrl_envs.sql.domains import Choice, Domain, Entity, Number, plural
from agentrl_envs.sql.naming import CASES, STYLES, Style
from agentrl_envs.sql.questions import KIND_NAMES, KINDS, STATISTICS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentrl_envs.sql.domains import Column

VERSION = 1
QUESTIONS = 8
MOST_ROWS = 1_000_000
LONGEST_RESULT = 100
_CHUNK = 20_000
_FIRST = (
    *("Amber", "Brisk", "Calm", "Dusty", "Early", "Fair", "Grand", "Hollow", "Iron", "Jade", "Keen", "Lone"),
    *(
        "Misty",
        "Noble",
        "Olive",
        "Plain",
        "Quiet",
        "Rapid",
        "Silver",
        "Tall",
        "Upper",
        "Velvet",
        "Wild",
        "Young",
    ),
)
_SECOND = (
    *(
        "Arrow",
        "Bridge",
        "Cedar",
        "Delta",
        "Ember",
        "Falcon",
        "Garden",
        "Harbor",
        "Island",
        "Juniper",
        "Kestrel",
    ),
    *(
        "Lantern",
        "Meadow",
        "Needle",
        "Orchid",
        "Pebble",
        "Quarry",
        "River",
        "Summit",
        "Thistle",
        "Valley",
        "Willow",
    ),
)


@dataclass(frozen=True)
class Question:
    """A question with its query."""

    kind: str
    text: str
    query: str


@dataclass(frozen=True)
class Recipe:
    """What a database is made from; equal recipes make equal databases.

    Attributes:
        seed: any integers; rows: of all tables together, about; kinds: names of those of its questions.
    """

    domain: Domain
    seed: tuple[int, ...]
    rows: int
    spellings: tuple[str, ...] = STYLES
    kinds: tuple[str, ...] = KIND_NAMES
    cases: tuple[str, ...] = CASES

    def rng(self, purpose: int) -> np.random.Generator:
        """Return a generator for one purpose."""
        return np.random.default_rng([VERSION, purpose, *self.seed, *self.domain.name.encode()])

    @property
    def style(self) -> Style:
        """How this database spells things."""
        rng = self.rng(0)
        return Style(self.domain, str(rng.choice(self.spellings)), str(rng.choice(self.cases)))

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each entity."""
        total = sum(entity.weight for entity in self.domain.entities)
        return {
            entity.noun: max(3, round(self.rows * entity.weight / total)) for entity in self.domain.entities
        }


def columns_of(recipe: Recipe, entity: Entity) -> list[tuple[str, str]]:
    """Return (quoted name, type with constraints) of each column of an entity's table."""
    style = recipe.style
    found = [
        (style.column(entity.noun, "key"), "INTEGER PRIMARY KEY"),
        (style.column(entity.noun, "name"), "TEXT NOT NULL"),
    ]
    for column in entity.columns:
        whole = isinstance(column, Number) and not column.decimals
        kind = "INTEGER" if whole else "DOUBLE PRECISION" if isinstance(column, Number) else "TEXT"
        found.append((style.column(entity.noun, column.words), kind))
    if entity.parent:
        target = f"{style.table(entity.parent)} ({style.column(entity.parent, 'key')})"
        found.append((style.link(entity.noun, entity.parent), f"INTEGER REFERENCES {target}"))
    return found


def table_of(recipe: Recipe, entity: Entity) -> str:
    """Return the statement that creates an entity's table; SQLite and PostgreSQL read it alike."""
    columns = ", ".join(f"{name} {kind}" for name, kind in columns_of(recipe, entity))
    return f"CREATE TABLE {recipe.style.table(entity.noun)} ({columns})"


def index_of(recipe: Recipe, entity: Entity) -> str:
    """Return the statement that makes its reference quick to follow back; empty without one."""
    if not entity.parent:
        return ""
    link = recipe.style.link(entity.noun, entity.parent)
    name = f"{entity.noun}_by_{entity.parent}".replace(" ", "_")
    return f"CREATE INDEX {name} ON {recipe.style.table(entity.noun)} ({link})"


def rows_of(recipe: Recipe, entity: Entity) -> Iterator[list[tuple[object, ...]]]:
    """Yield the rows of an entity's table in chunks."""
    counts = recipe.counts()
    count = counts[entity.noun]
    rng = recipe.rng(1 + recipe.domain.entities.index(entity))
    order = rng.permutation(count)
    links = _links(rng, count, counts[entity.parent]) if entity.parent else None
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        columns: list[list[object]] = [
            list(range(start + 1, start + size + 1)),
            [_name(int(index)) for index in order[start : start + size]],
        ]
        columns += [_values(rng, column, size, recipe.style, entity.noun) for column in entity.columns]
        if links is not None:
            columns.append([int(link) or None for link in links[start : start + size]])
        yield list(zip(*columns, strict=True))


def _name(index: int) -> str:
    first, rest = _FIRST[index % len(_FIRST)], index // len(_FIRST)
    second, number = _SECOND[rest % len(_SECOND)], rest // len(_SECOND)
    return f"{first} {second} {number + 1}" if number else f"{first} {second}"


def _links(rng: np.random.Generator, count: int, parents: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Draw parents, 0 for none: a few have most children, some have none."""
    weights = 1.0 / np.arange(1, parents + 1) ** 0.8
    weights[rng.random(parents) < 0.15] = 0.0
    weights = weights if weights.sum() else np.ones(parents)
    chosen = rng.choice(rng.permutation(parents), size=count, p=weights / weights.sum()) + 1
    chosen[rng.random(count) < 0.03] = 0
    return chosen.astype(np.int64)


def _values(rng: np.random.Generator, column: Column, size: int, style: Style, noun: str) -> list[object]:
    missing = rng.random(size) < column.missing
    if isinstance(column, Choice):
        weights = 1.0 / np.arange(1, len(column.values) + 1)
        drawn = rng.choice(len(column.values), size=size, p=weights / weights.sum())
        written = [style.value(noun, column.words, value) for value in column.values]
        return [None if gone else written[index] for gone, index in zip(missing, drawn, strict=True)]
    # The square makes small values common and large ones rare.
    numbers = column.low + (column.high - column.low) * rng.random(size) ** 2
    if column.decimals:
        rounded = np.round(numbers, column.decimals).tolist()
    else:
        rounded = np.rint(numbers).astype(int).tolist()
    return [None if gone else number for gone, number in zip(missing, rounded, strict=True)]


def build(recipe: Recipe, path: Path) -> list[Question]:
    """Write a database to a new SQLite file and return its questions.

    Raises:
        ValueError: more rows are asked for than a million.
    """
    if not 10 <= recipe.rows <= MOST_ROWS:
        raise ValueError(f"rows must be 10 to {MOST_ROWS:,}; got {recipe.rows:,}.")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = off")
        connection.execute("PRAGMA synchronous = off")
        for entity in recipe.domain.entities:
            connection.execute(table_of(recipe, entity))
            width = len(columns_of(recipe, entity))
            places = ", ".join("?" * width)
            insert = f"INSERT INTO {recipe.style.table(entity.noun)} VALUES ({places})"
            for rows in rows_of(recipe, entity):
                connection.executemany(insert, rows)
            if index := index_of(recipe, entity):
                connection.execute(index)
        connection.commit()
        return list(_questions(recipe, connection))


def _questions(recipe: Recipe, connection: sqlite3.Connection) -> Iterator[Question]:
    rng = recipe.rng(99)
    seen: set[str] = set()
    kinds = [kind for kind in KINDS if kind.name in recipe.kinds]
    for _ in range(40 * QUESTIONS):
        kind = kinds[int(rng.integers(len(kinds)))]
        holes = _holes(recipe, connection, rng, kind)
        if holes is None:
            continue
        text, query = kind.text.format(**holes), kind.query(recipe.style, holes)
        rows = connection.execute(query).fetchmany(LONGEST_RESULT + 1)
        if text in seen or not 0 < len(rows) <= LONGEST_RESULT or rows in ([(0,)], [(None,)]):
            continue
        seen.add(text)
        yield Question(kind.name, text, query)
        if len(seen) == QUESTIONS:
            return


def _holes(
    recipe: Recipe, connection: sqlite3.Connection, rng: np.random.Generator, kind: Kind
) -> dict[str, str] | None:
    """Fill the holes of a sentence by chance; None where the domain has nothing that fits."""
    wanted = set(kind.pattern.groupindex)
    entities = [entity for entity in recipe.domain.entities if _fits(recipe.domain, entity, wanted)]
    entity = entities[int(rng.integers(len(entities)))]
    holes = {"noun": entity.noun, "plural": plural(entity.noun), "parent": entity.parent}
    holes["parents"] = plural(entity.parent) if entity.parent else ""
    owner = recipe.domain.entity(entity.parent) if kind.name == "join list" else entity
    if "grandparent" in wanted:
        holes["grandparent"] = recipe.domain.entity(entity.parent).parent
    if "statistic" in wanted:
        holes["statistic"] = str(rng.choice(list(STATISTICS)))
    if "column" in wanted:
        numbers = kind.name in {"count above", "statistic", "top", "join average"}
        fitting = [
            column
            for column in owner.columns
            if (kind.name == "missing" and column.missing) or isinstance(column, Number) is numbers
        ]
        if not fitting or (kind.name == "missing" and not any(column.missing for column in fitting)):
            return None
        column = fitting[int(rng.integers(len(fitting)))]
        holes["column"] = column.words
        if "value" in wanted and kind.name != "join average":
            holes["value"] = _value(rng, column)
    if "value" in wanted and "value" not in holes:
        named = holes.get("grandparent") or entity.parent
        holes["value"] = _named(recipe, connection, rng, named)
    return holes


def _fits(domain: Domain, entity: Entity, wanted: set[str]) -> bool:
    if "grandparent" in wanted:
        return bool(entity.parent) and bool(domain.entity(entity.parent).parent)
    return bool(entity.parent) or not wanted & {"parent", "parents"}


def _value(rng: np.random.Generator, column: Column) -> str:
    if isinstance(column, Choice):
        return column.values[int(rng.integers(len(column.values)))]
    return str(int(column.low + (column.high - column.low) * rng.uniform(0.05, 0.6)))


def _named(recipe: Recipe, connection: sqlite3.Connection, rng: np.random.Generator, noun: str) -> str:
    style = recipe.style
    key = int(rng.integers(recipe.counts()[noun])) + 1
    name, primary = style.column(noun, "name"), style.column(noun, "key")
    query = f"SELECT {name} FROM {style.table(noun)} WHERE {primary} = ?"
    return str(connection.execute(query, (key,)).fetchone()[0])

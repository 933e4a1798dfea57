"""A scripted player: explores a database and answers from what it saw, never from the gold query."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agentrl_envs.sql.domains import plural
from agentrl_envs.sql.naming import quoted, words_of
from agentrl_envs.sql.questions import KINDS

if TYPE_CHECKING:
    from agentrl.world.protocol import Protocol

_MARKUP = re.compile(r"</?\w+>")
_TABLE = re.compile(r"^(\w+)\((.*?)\)(?:,|$)", re.MULTILINE)


class Seen:
    """Names as they were read from the schema, and values as a query showed them."""

    def __init__(self, schema: str) -> None:
        self._tables: dict[str, list[str]] = {
            name: [column.split()[0] for column in columns.split(", ")]
            for name, columns in _TABLE.findall(schema)
        }
        self.values: dict[str, str] = {}

    def table(self, noun: str) -> str:
        """Find the table of a noun."""
        return quoted(self._table(noun))

    def column(self, noun: str, words: str) -> str:
        """Find a column; the key comes first."""
        columns = self._tables[self._table(noun)]
        if words == "key":
            return quoted(columns[0])
        wanted = (tuple(words.split()), tuple(f"{noun} {words}".split()))
        return quoted(next(column for column in columns if words_of(column) in wanted))

    def link(self, child: str, parent: str) -> str:
        """Find the reference to a parent."""
        columns = self._tables[self._table(child)][1:]
        return quoted(next(column for column in columns if words_of(column) == (*parent.split(), "id")))

    def value(self, noun: str, words: str, spoken: str) -> str:
        """Return a value as the database writes it, as far as it was seen."""
        return self.values.get(spoken.casefold(), spoken)

    def _table(self, noun: str) -> str:
        forms = (tuple(noun.split()), tuple(plural(noun).split()))
        return next(name for name in self._tables if words_of(name) in forms)

    def noun(self, many: str) -> str:
        """Return the singular of a plural that names a table: the key says it, or the table itself."""
        for name, columns in self._tables.items():
            noun = " ".join(words_of(columns[0])[:-1] or words_of(name))
            if plural(noun) == many:
                return noun
        raise LookupError(f"no table for {many!r}")


class SqlExpert:
    """Reads the schema, looks up how values are written, and answers.

    Args:
        observation: the first one, with the question.
        protocol: how actions are written.
    """

    def __init__(self, observation: str, protocol: Protocol) -> None:
        self._protocol = protocol
        text = observation.partition("Question: ")[2].partition("\n")[0].strip()
        self._kind, self._holes = next(
            (kind, match.groupdict()) for kind in KINDS if (match := kind.pattern.fullmatch(text))
        )
        self._seen: Seen | None = None
        self._asked = ""

    def act(self) -> str:
        """Choose the next action."""
        if self._seen is None:
            self._asked = "schema"
            return self._protocol.write("schema", {})
        if self._asked == "schema" and (looked_up := self._lookup(self._seen)):
            self._asked = "values"
            return self._protocol.write("sql", {"query": looked_up})
        self._asked = "answer"
        query = self._kind.query(self._seen, self._holes)
        return self._protocol.write_answer(query)

    def observe(self, command: str, feedback: str) -> None:
        """Learn what an action gave."""
        if command == self._protocol.write("schema", {}):
            self._seen = Seen(_MARKUP.sub("", feedback))
            if "noun" not in self._holes:
                self._holes["noun"] = self._seen.noun(self._holes["plural"])
            if "parents" in self._holes:
                self._holes["parent"] = self._seen.noun(self._holes["parents"])
        elif self._asked == "values" and self._seen is not None:
            plain = _MARKUP.sub("", feedback)
            self._seen.values = {line.strip().casefold(): line.strip() for line in plain.split("\n")}

    def _lookup(self, seen: Seen) -> str:
        if self._kind.name not in {"list", "join list"}:
            return ""
        noun = self._holes["noun" if self._kind.name == "list" else "parent"]
        column = seen.column(noun, self._holes["column"])
        return f"SELECT DISTINCT {column} FROM {seen.table(noun)}"  # names of the schema

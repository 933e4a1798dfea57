"""How a database spells what people talk about, in one of three styles, and how to read it back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from agentrl_envs.sql.domains import Domain, plural

STYLES = ("snake", "plural", "camel")
CASES = ("lower", "upper", "title")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


class Names(Protocol):
    """Identifiers, quoted, of what a question talks about."""

    def table(self, noun: str) -> str:
        """Return the table of an entity."""
        ...

    def column(self, noun: str, words: str) -> str:
        """Return a column of an entity; "name" and "key" are columns of all."""
        ...

    def link(self, child: str, parent: str) -> str:
        """Return the column of the child that names its parent."""
        ...

    def value(self, noun: str, words: str, spoken: str) -> str:
        """Return how the database writes a value of a column, unquoted."""
        ...


@dataclass(frozen=True)
class Style:
    """The true names of one database.

    Attributes:
        spelling: of identifiers, one of `STYLES`; `case`: of the values, one of `CASES`.
    """

    domain: Domain
    spelling: str
    case: str

    def table(self, noun: str) -> str:
        """Return the table of an entity."""
        return quoted(self._spelled(plural(noun) if self.spelling == "plural" else noun))

    def column(self, noun: str, words: str) -> str:
        """Return a column of an entity."""
        if words == "key":
            return quoted("id" if self.spelling == "snake" else self._spelled(f"{noun} id"))
        own = f"{noun} {words}" if self.spelling == "plural" else words
        return quoted(self._spelled(own))

    def link(self, child: str, parent: str) -> str:
        """Return the column of the child that names its parent."""
        del child
        return quoted(self._spelled(f"{parent} id"))

    def value(self, noun: str, words: str, spoken: str) -> str:
        """Return how the database writes a value."""
        del noun, words
        return {"lower": spoken.lower(), "upper": spoken.upper(), "title": spoken.title()}[self.case]

    def _spelled(self, words: str) -> str:
        parts = words.split()
        return "".join(map(str.title, parts)) if self.spelling == "camel" else "_".join(parts)


def quoted(identifier: str) -> str:
    """Quote an identifier."""
    return f'"{identifier}"'


def words_of(identifier: str) -> tuple[str, ...]:
    """Split an identifier into words.

    >>> words_of("FoundingYear"), words_of("loan_fine")
    (('founding', 'year'), ('loan', 'fine'))
    """
    return tuple(word.lower() for word in _WORDS.findall(identifier))

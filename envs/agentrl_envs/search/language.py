"""The language of the generated world: kinds of entities, their relations, and the sentences that say so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

PERSON, COMPANY, TOWN, SCHOOL, BOOK = range(5)
KINDS: Final = ("person", "company", "town", "school", "book")
SHARES: Final = (0.4, 0.2, 0.2, 0.1, 0.1)
"""What share of the entities is of each kind."""

ASKED: Final = ("Who is", "Which company is", "Which town is", "Which school is", "Which book is")


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation that gives each entity of one kind exactly one of another.

    Attributes:
        source, target: kinds of entities.
        noun: as in "the founder of Zorell Mills".
        sentences: two ways to say it of `{s}`; both name it, so that a search for it finds its own document.
    """

    source: int
    target: int
    noun: str
    sentences: tuple[str, str]


RELATIONS: Final = (
    Relation(PERSON, TOWN, "birthplace", ("{s} was born in {o}.", "The place of birth of {s} is {o}.")),
    Relation(PERSON, COMPANY, "employer", ("{s} works for {o}.", "The employer of {s} is {o}.")),
    Relation(PERSON, PERSON, "teacher", ("{s} was a pupil of {o}.", "The teacher of {s} was {o}.")),
    Relation(COMPANY, PERSON, "founder", ("{s} was founded by {o}.", "The founder of {s} is {o}.")),
    Relation(COMPANY, TOWN, "seat", ("{s} has its seat in {o}.", "The head office of {s} stands in {o}.")),
    Relation(TOWN, PERSON, "mayor", ("{s} is governed by {o}.", "The mayor of {s} is {o}.")),
    Relation(TOWN, TOWN, "twin town", ("{s} is twinned with {o}.", "The twin town of {s} is {o}.")),
    Relation(SCHOOL, PERSON, "rector", ("{s} is led by {o}.", "The rector of {s} is {o}.")),
    Relation(SCHOOL, TOWN, "home town", ("{s} was built in {o}.", "The buildings of {s} stand in {o}.")),
    Relation(BOOK, PERSON, "author", ("{s} was written by {o}.", "The author of {s} is {o}.")),
    Relation(BOOK, COMPANY, "publisher", ("{s} was published by {o}.", "The publisher of {s} is {o}.")),
)
OF_KIND: Final = tuple(
    tuple(number for number, relation in enumerate(RELATIONS) if relation.source == kind)
    for kind in range(len(KINDS))
)
"""The relations that each kind of entity has."""

TRADES: Final = ("painter", "baker", "sailor", "doctor", "singer", "farmer", "lawyer", "miller")
INTRODUCTIONS: Final = (
    "{s} is a {trade}.",
    "{s} is a company of {count} workers.",
    "{s} is a town of {count} people.",
    "{s} is a school of {count} pupils.",
    "{s} is a book of {count} pages.",
)

_NOUNS: Final = {relation.noun: relation for relation in RELATIONS}
_STEP: Final = re.compile(r"the ([a-z ]+?) of (?=the |[A-Z])")


def question_text(start: str, chain: tuple[int, ...]) -> str:
    """Return the question that follows relations from an entity, the first one first.

    >>> question_text("Zorell Mills", (3, 0))
    'Which town is the birthplace of the founder of Zorell Mills?'
    """
    phrase = start
    for number in chain:
        phrase = f"the {RELATIONS[number].noun} of {phrase}"
    return f"{ASKED[RELATIONS[chain[-1]].target]} {phrase}?"


def read_question(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the entity that a question starts from, and the nouns of its relations in the order to follow.

    >>> read_question("Which town is the birthplace of the founder of Zorell Mills?")
    ('Zorell Mills', ('founder', 'birthplace'))
    """
    question = next(line for line in reversed(text.splitlines()) if line.rstrip().endswith("?")).rstrip(" ?")
    nouns: list[str] = []
    position = question.index(" is ") + 4
    while (step := _STEP.match(question, position)) and step[1] in _NOUNS:
        nouns.append(step[1])
        position = step.end()
    return question[position:], tuple(reversed(nouns))


def queries(noun: str, name: str) -> tuple[str, ...]:
    """Return searches for the document that says a relation of an entity, in the order in which to try them.

    >>> queries("founder", "Zorell Mills")[:2]
    ('Zorell Mills', 'Zorell Mills was founded by')
    """
    first, second = (sentence.format(s=name, o="").rstrip(" .") for sentence in _NOUNS[noun].sentences)
    return name, first, f"{name} {name} {second}", f"{name} {name} is {first} {second}"


def read_value(noun: str, title: str, text: str) -> str | None:
    """Return what a document says about a relation of its subject, or None.

    >>> read_value("founder", "Zorell Mills", "The founder of Zorell Mills is Mira Tolan. It is old.")
    'Mira Tolan'
    """
    for sentence in _NOUNS[noun].sentences:
        before, after = sentence.format(s=title, o="\n").split("\n")
        found = re.search(rf"{re.escape(before)}([^.]+){re.escape(after)}", text)
        if found:
            return found[1]
    return None

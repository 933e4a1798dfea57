"""What databases are about. An entity becomes a table, and may belong to one of another entity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Number:
    """A column of numbers.

    Attributes:
        words: what people call it.
        low, high: the range; decimals: digits after the point, 0 for integers.
        missing: share of NULL.
    """

    words: str
    low: int
    high: int
    decimals: int = 0
    missing: float = 0.0


@dataclass(frozen=True)
class Choice:
    """A column with one of a few values, some far more common than others."""

    words: str
    values: tuple[str, ...]
    missing: float = 0.0


Column: TypeAlias = Number | Choice


@dataclass(frozen=True)
class Entity:
    """A table. It has a key and a name besides its columns.

    Attributes:
        noun: in the singular; `plural` follows from it.
        weight: its share of all rows, before it is scaled.
        parent: the noun of the entity that each one belongs to, if any.
    """

    noun: str
    columns: tuple[Column, ...]
    weight: int = 1
    parent: str = ""


@dataclass(frozen=True)
class Domain:
    """Entities in an order in which parents come first."""

    name: str
    entities: tuple[Entity, ...]

    def entity(self, noun: str) -> Entity:
        """Return the entity of a noun."""
        return next(entity for entity in self.entities if entity.noun == noun)


def plural(noun: str) -> str:
    """Return the plural of a noun of ours.

    >>> plural("city"), plural("play"), plural("coach")
    ('cities', 'plays', 'coaches')
    """
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "ch", "sh", "x")) else f"{noun}s"


DOMAINS = {
    domain.name: domain
    for domain in (
        Domain(
            "music",
            (
                Entity(
                    "label",
                    (
                        Choice("country", ("france", "japan", "brazil", "kenya")),
                        Number("founding year", 1900, 2020),
                    ),
                ),
                Entity(
                    "artist",
                    (
                        Choice("genre", ("jazz", "rock", "folk", "opera")),
                        Number("debut year", 1950, 2024, missing=0.1),
                    ),
                    4,
                    "label",
                ),
                Entity(
                    "track",
                    (
                        Number("length", 60, 600),
                        Number("price", 0, 4, 2, 0.15),
                        Choice("mood", ("calm", "bright", "dark"), 0.1),
                    ),
                    20,
                    "artist",
                ),
            ),
        ),
        Domain(
            "library",
            (
                Entity(
                    "branch",
                    (
                        Choice("district", ("north", "south", "harbour", "old town")),
                        Number("opening year", 1880, 2015),
                    ),
                ),
                Entity(
                    "reader",
                    (Number("age", 6, 95, missing=0.1), Choice("membership", ("basic", "student", "family"))),
                    5,
                    "branch",
                ),
                Entity(
                    "loan",
                    (
                        Number("duration", 1, 60),
                        Number("fine", 0, 30, 2, 0.4),
                        Choice("medium", ("book", "film", "game")),
                    ),
                    18,
                    "reader",
                ),
            ),
        ),
        Domain(
            "clinic",
            (
                Entity("ward", (Choice("wing", ("east", "west", "main")), Number("bed count", 4, 60))),
                Entity(
                    "doctor",
                    (
                        Choice("specialty", ("surgery", "cardiology", "paediatrics", "neurology"), 0.05),
                        Number("salary", 40000, 190000),
                    ),
                    3,
                    "ward",
                ),
                Entity(
                    "visit",
                    (
                        Number("cost", 20, 4000, 2, 0.1),
                        Number("waiting time", 0, 240),
                        Choice("outcome", ("cured", "improved", "referred"), 0.1),
                    ),
                    20,
                    "doctor",
                ),
            ),
        ),
        Domain(
            "airline",
            (
                Entity(
                    "airport",
                    (
                        Choice("continent", ("africa", "asia", "europe", "america")),
                        Number("runway count", 1, 6),
                    ),
                ),
                Entity(
                    "aircraft",
                    (
                        Choice("maker", ("airbus", "boeing", "embraer")),
                        Number("seat count", 30, 420, missing=0.05),
                    ),
                    3,
                    "airport",
                ),
                Entity(
                    "flight",
                    (
                        Number("distance", 150, 9000),
                        Number("delay", 0, 300, missing=0.2),
                        Choice("status", ("landed", "cancelled", "diverted")),
                    ),
                    20,
                    "aircraft",
                ),
            ),
        ),
        Domain(
            "university",
            (
                Entity(
                    "faculty", (Choice("campus", ("city", "hill", "lake")), Number("budget", 100000, 9000000))
                ),
                Entity(
                    "course",
                    (
                        Number("credit count", 1, 12),
                        Choice("level", ("bachelor", "master", "doctoral"), 0.05),
                    ),
                    5,
                    "faculty",
                ),
                Entity(
                    "enrolment",
                    (
                        Number("score", 0, 100, 1, 0.15),
                        Number("term", 1, 8),
                        Choice("funding", ("grant", "loan", "own means"), 0.1),
                    ),
                    20,
                    "course",
                ),
            ),
        ),
        Domain(
            "shop",
            (
                Entity(
                    "supplier",
                    (
                        Choice("region", ("coast", "valley", "island", "plain")),
                        Number("rating", 1, 5, 1, 0.1),
                    ),
                ),
                Entity(
                    "product",
                    (
                        Number("weight", 1, 900, 1),
                        Number("price", 1, 500, 2),
                        Choice("colour", ("red", "green", "blue", "white"), 0.15),
                    ),
                    4,
                    "supplier",
                ),
                Entity(
                    "purchase",
                    (
                        Number("quantity", 1, 40),
                        Number("discount", 0, 50, missing=0.5),
                        Choice("channel", ("web", "store", "phone")),
                    ),
                    20,
                    "product",
                ),
            ),
        ),
        Domain(
            "league",
            (
                Entity(
                    "club",
                    (
                        Choice("state", ("victoria", "bavaria", "ontario", "kerala")),
                        Number("founding year", 1870, 2010),
                    ),
                ),
                Entity(
                    "player",
                    (
                        Choice("position", ("keeper", "defender", "striker"), 0.05),
                        Number("height", 160, 205, missing=0.1),
                    ),
                    6,
                    "club",
                ),
                Entity(
                    "goal",
                    (
                        Number("minute", 1, 95),
                        Number("speed", 20, 130, 1, 0.3),
                        Choice("kind", ("header", "penalty", "volley"), 0.1),
                    ),
                    16,
                    "player",
                ),
            ),
        ),
        Domain(
            "farm",
            (
                Entity("farm", (Choice("climate", ("dry", "humid", "cold")), Number("area", 5, 900, 1))),
                Entity(
                    "field",
                    (Choice("soil", ("clay", "sand", "loam"), 0.1), Number("slope", 0, 40)),
                    5,
                    "farm",
                ),
                Entity(
                    "harvest",
                    (
                        Number("yield", 1, 90, 1, 0.1),
                        Number("season", 1990, 2024),
                        Choice("crop", ("wheat", "barley", "maize", "beans")),
                    ),
                    18,
                    "field",
                ),
            ),
        ),
    )
}
TRAINED = ("music", "library", "clinic", "airline", "university", "shop")
HELD_OUT = ("league", "farm")

"""Made-up names: two words from pools that are small for the number of names, so that many share one."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Final

import numpy as np

from agentrl_envs.search.language import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ONSETS: Final = tuple("b d f g k l m n p r s t v z br dr gr kr tr st".split())  # noqa: SIM905  # one line reads better
RIMES: Final = tuple("a o e i u an el or in ul".split())  # noqa: SIM905  # as above
FIRST_ENDINGS: Final = ("ra", "ko", "nis", "la", "den", "mi")
LAST_ENDINGS: Final = ("sky", "ler", "ton", "man", "gard", "vik")
PLACE_ENDINGS: Final = ("port", "vale", "burg", "ford", "mere", "stad")
QUARTERS: Final = ("Old", "New", "Upper", "Lower", "Great", "Little", "North", "South", "East", "West")
TRADES: Final = ("Mills", "Works", "Bank", "Lines", "Foods", "Steel", "Glass", "Motors", "Press", "Mines")
SCHOOLS: Final = ("College", "Academy", "Institute", "School", "Seminary")
MOODS: Final = (
    "Silent",
    "Golden",
    "Broken",
    "Distant",
    "Hidden",
    "Burning",
    "Last",
    "Sleeping",
    "Blue",
    "Hollow",
)
SPARE: Final = 2.0
"""How many names there could be for each one there is."""


@dataclass(frozen=True, slots=True)
class Pools:
    """The two word lists that names of one kind combine, and what stands before them."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    before: str = ""

    @property
    def size(self) -> int:
        """How many names there are."""
        return len(self.first) * len(self.second)

    def name(self, number: int) -> str:
        """Return one of the names."""
        first, second = divmod(number, len(self.second))
        return f"{self.before}{self.first[first]} {self.second[second]}"


@functools.lru_cache(maxsize=64)
def pools_of(kind: int, names: int) -> Pools:
    """Return the pools for so many names of a kind; all worlds of one size share them.

    >>> pools_of(0, 8).name(5)
    'Borko Borler'
    """
    wanted = max(math.ceil(SPARE * names), 4)
    if KINDS[kind] == "person":
        side = math.ceil(math.sqrt(wanted))
        return Pools(words(FIRST_ENDINGS, side), words(LAST_ENDINGS, side))
    if KINDS[kind] == "company":
        return Pools(words(LAST_ENDINGS, math.ceil(wanted / len(TRADES))), TRADES)
    if KINDS[kind] == "town":
        return Pools(QUARTERS, words(PLACE_ENDINGS, math.ceil(wanted / len(QUARTERS))))
    if KINDS[kind] == "school":
        return Pools(words(PLACE_ENDINGS, math.ceil(wanted / len(SCHOOLS))), SCHOOLS)
    return Pools(MOODS, words(FIRST_ENDINGS, math.ceil(wanted / len(MOODS))), before="The ")


def word_numbers(kind: int, names: int, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, 2) a number for each of the two words of names of a kind; equal words have equal numbers.

    Args:
        names: how many names of the kind there are; `drawn`: (n,) numbers of some of them.
    """
    lists = _LISTS[KINDS[kind]]
    pair = np.divmod(drawn, len(pools_of(kind, names).second))
    return np.stack(
        [place * len(_SOURCES) + _SOURCES.index(lists[side]) for side, place in enumerate(pair)], axis=1
    )


def draw(kind: int, names: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(names,) numbers of different names of a kind."""
    return rng.permutation(pools_of(kind, names).size)[:names]


_SOURCES: Final = ("first", "last", "place", "quarter", "trade", "school", "mood")
_LISTS: Final = {
    "person": ("first", "last"),
    "company": ("last", "trade"),
    "town": ("quarter", "place"),
    "school": ("place", "school"),
    "book": ("mood", "first"),
}
"""Which word lists the names of a kind combine; all kinds read a list from its beginning."""


@functools.lru_cache(maxsize=64)
def words(endings: tuple[str, ...], number: int) -> tuple[str, ...]:
    """Return so many different words; a longer list begins with a shorter one."""
    return tuple(islice(_words(endings), number))


def _words(endings: tuple[str, ...]) -> Iterator[str]:
    seen: set[str] = set()
    for number in count():
        word = (_syllables(number) + endings[number % len(endings)]).capitalize()
        if word not in seen:
            seen.add(word)
            yield word


def _syllables(number: int) -> str:
    size = len(ONSETS) * len(RIMES)
    rest, here = divmod(number, size)
    # 7 and the size have no common divisor: neighbours in the list differ in onset and rime.
    onset, rime = divmod(here * 7 % size, len(RIMES))
    return (_syllables(rest - 1) if rest else "") + ONSETS[onset] + RIMES[rime]

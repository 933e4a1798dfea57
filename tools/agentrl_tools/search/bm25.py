"""BM25 through bm25s, with an index that is built once for each content."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, cast

import numpy as np

from agentrl.errors import MissingExtraError
from agentrl_tools.search.cache import default_cache, kept
from agentrl_tools.search.results import Hit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from agentrl_tools.search.corpus import Corpus

_WORD: Final = re.compile(r"\w+")
STOPWORDS: Final = frozenset(
    _WORD.findall(
        "a an and are as at be but by for if in into is it no not of on or such that the their then there "
        "these they this to was will with"
    )
)
"""Lucene's list."""
LONGEST_QUERY: Final = 2000
"""Characters of a query that are read."""


class _Scorer(Protocol):
    """What is used of `bm25s.BM25`."""

    vocab_dict: Mapping[str, int]

    def get_scores_from_ids(self, query_tokens_ids: list[int]) -> NDArray[np.float32]: ...


def words(text: str) -> list[str]:
    """Return the words of a text that count.

    >>> words("The birthplace of Mira Tolan")
    ['birthplace', 'mira', 'tolan']
    """
    return [word for word in _WORD.findall(text.lower()) if word not in STOPWORDS]


@dataclass
class Bm25:
    """Finds documents by the words they share with a query; Robertson and Walker's BM25 in Lucene's form.

    Results stand in the order of their scores, equal ones in the order of the corpus: always the same for
        one query.

    Args:
        corpus: what is searched.
        cache: folder that keeps the index, by the hash of the corpus; None keeps nothing on disk.
        k1, b: the two constants of BM25; the values are those that Search-R1's retriever inherits from
            Pyserini.

    Raises:
        MissingExtraError: bm25s is not installed.
    """

    corpus: Corpus
    cache: Path | None = field(default_factory=default_cache)
    k1: float = 0.9
    b: float = 0.4
    _scorer: _Scorer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            import bm25s
        except ImportError as error:
            raise MissingExtraError("BM25 search", "search") from error
        if self.cache is None:
            self._scorer = self._built()
            return
        name = f"bm25-{bm25s.__version__}-{self.k1:g}-{self.b:g}-{self.corpus.digest}"
        folder = kept(self.cache, name, lambda path: self._built().save(path, show_progress=False))
        self._scorer = cast("_Scorer", bm25s.BM25.load(folder, mmap=True, show_progress=False))

    def search(self, query: str, k: int) -> list[Hit]:
        """Return at most `k` documents that share a word with the query, the best first."""
        known = self._scorer.vocab_dict
        ids = [known[word] for word in words(query[:LONGEST_QUERY]) if word in known]
        if not ids or k < 1 or not len(self.corpus):
            return []
        scores = self._scorer.get_scores_from_ids(ids)
        return [Hit(self.corpus[row], float(scores[row])) for row in best(scores, k)]

    def __deepcopy__(self, memo: dict[int, object]) -> Bm25:
        return self  # it never changes, and may be large

    def _built(self) -> _Built:
        import bm25s

        scorer = bm25s.BM25(k1=self.k1, b=self.b, method="lucene")
        ids, vocabulary = _numbered(self.corpus.texts())
        # Rows of an array are as good as lists here, and take a tenth of the memory.
        tokens = bm25s.tokenization.Tokenized(ids=cast("list[list[int]]", ids), vocab=vocabulary)
        scorer.index(tokens, show_progress=False, create_empty_token=False)
        return cast("_Built", scorer)


class _Built(_Scorer, Protocol):
    def save(self, path: Path, *, show_progress: bool) -> None: ...


def _numbered(texts: Iterable[str]) -> tuple[list[NDArray[np.int32]], dict[str, int]]:
    """Return the word numbers of each text, and the numbers by word."""
    vocabulary: dict[str, int] = {}

    def numbers(text: str) -> Iterator[int]:
        for word in words(text):
            yield vocabulary.setdefault(word, len(vocabulary))

    return [np.fromiter(numbers(text), np.int32) for text in texts], vocabulary


def best(scores: NDArray[np.float32], k: int) -> list[int]:
    """Return the rows of the `k` highest scores above 0, equal ones by row.

    >>> best(np.array([1.0, 0.0, 2.0, 1.0], np.float32), 2)
    [2, 0]
    """
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero(scores >= max(least, np.finfo(np.float32).tiny))
    else:
        rows = np.flatnonzero(scores > 0)
    order = np.lexsort((rows, -scores[rows]))
    return [int(row) for row in rows[order][:k]]

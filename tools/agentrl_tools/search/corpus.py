"""A corpus: documents in Arrow columns, so that a million of them take little more than their text."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from agentrl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa

IDS: Final = ("id", "_id", "docid", "doc_id", "pid")
TITLES: Final = ("title", "name")
TEXTS: Final = ("text", "contents", "content", "paragraph_text", "passage", "body")
_AT_ONCE: Final = 8192


@dataclass(frozen=True, slots=True)
class Document:
    r"""One document.

    >>> Document("7", "Tea", "A drink.").contents
    '"Tea"\nA drink.'
    """

    id: str
    title: str
    text: str
    url: str = ""

    @property
    def contents(self) -> str:
        """Search-R1's form: the title in quotes on the first line, then the text."""
        return f'"{self.title}"\n{self.text}' if self.title else self.text


class _Strings(Protocol):
    """What is used of an Arrow array of texts, which pyarrow leaves untyped."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: int | slice, /) -> Any: ...  # noqa: ANN401  # a scalar or an array of pyarrow


class Corpus(Sequence[Document]):
    """Documents in a fixed order.

    >>> corpus = Corpus.of([Document("a", "Tea", "A drink."), Document("b", "Salt", "A mineral.")])
    >>> len(corpus), corpus[1].title, corpus.digest[:8]
    (2, 'Salt', '4e94ed99')
    """

    def __init__(self, ids: _Strings, titles: _Strings, texts: _Strings) -> None:
        self._ids, self._titles, self._texts = ids, titles, texts
        self._opened: dict[int, Document] = {}

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Corpus:
        """Return a corpus of these documents."""
        import pyarrow as pa  # heavy

        held: list[list[str]] = [[], [], []]
        chunks: list[list[pa.Array]] = [[], [], []]

        def flush() -> None:
            for column, found in zip(held, chunks, strict=True):
                found.append(pa.array(column, pa.large_string()))
                column.clear()

        for document in documents:
            for column, value in zip(held, (document.id, document.title, document.text), strict=True):
                column.append(value)
            if len(held[0]) >= _AT_ONCE:
                flush()
        flush()
        return cls(*(pa.concat_arrays(found) for found in chunks))

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Document:  # type: ignore[override]  # no slices: who wants them has lists
        document = self._opened.get(index)
        if document is None:
            document = self._open(index)
            if len(self._opened) < _AT_ONCE:  # some are found again and again, and Arrow takes a while
                self._opened[index] = document
        return document

    def __iter__(self) -> Iterator[Document]:
        return map(self._open, range(len(self)))

    def _open(self, index: int) -> Document:
        return Document(self._ids[index].as_py(), self._titles[index].as_py(), self._texts[index].as_py())

    def texts(self) -> Iterator[str]:
        """Return title and text of every document, for an index."""
        for begin in range(0, len(self), _AT_ONCE):
            titles = self._titles[begin : begin + _AT_ONCE].to_pylist()
            texts = self._texts[begin : begin + _AT_ONCE].to_pylist()
            yield from (f"{title}\n{text}" for title, text in zip(titles, texts, strict=True))

    def titles(self) -> list[str]:
        """Return all titles."""
        return cast("list[str]", self._titles[:].to_pylist())

    @functools.cached_property
    def digest(self) -> str:
        """A hash of every id, title and text: equal contents have one index, whatever file they came from."""
        seen = hashlib.blake2b(digest_size=16)
        for document in self:
            for part in (document.id, document.title, document.text):
                raw = part.encode()
                seen.update(len(raw).to_bytes(8, "little"))
                seen.update(raw)
        return seen.hexdigest()


def read_corpus(path: str | Path) -> Corpus:
    """Read a corpus from a JSONL file (also `.gz` and `.zst`) or a Parquet file.

    A record has a text (`text`, `contents`, `content`, `paragraph_text`, `passage` or `body`), and perhaps
    an id and a title. Where there is no title, a first line in quotes is one, as in Search-R1's corpora.

    Raises:
        ConfigError: there is no such file, a record cannot be read (the message names the line), or there is
            nothing in it that could be found.
    """
    from agentrl_tools.records import records

    corpus = Corpus.of(
        _document(record, number, where) for number, (record, where) in enumerate(records(path))
    )
    if not any(text.strip() for text in corpus.texts()):
        what = f"{len(corpus)} documents without a text" if len(corpus) else "no documents"
        raise ConfigError(f"{path} holds {what}, so there is nothing to search. Give another corpus.")
    return corpus


def _document(record: Mapping[str, object], number: int, where: str) -> Document:
    text = _first(record, TEXTS)
    if text is None:
        raise ConfigError(
            f"{where} has no text: it has {', '.join(record) or 'nothing'}, and a document needs one of "
            f"{', '.join(TEXTS)}."
        )
    title = _first(record, TITLES)
    if title is None:
        title, text = split_title(text)
    return Document(_first(record, IDS) or str(number), title, text)


def split_title(contents: str) -> tuple[str, str]:
    r"""Split Search-R1's `contents` into title and text; without a quoted first line there is no title.

    >>> split_title('"Tea"\nA drink.'), split_title("A drink.")
    (('Tea', 'A drink.'), ('', 'A drink.'))
    """
    first, line, rest = contents.partition("\n")
    first = first.strip()
    if line and len(first) > 1 and first[0] == first[-1] == '"':
        return first[1:-1], rest
    return "", contents


def _first(record: Mapping[str, object], names: Sequence[str]) -> str | None:
    value = next((record[name] for name in names if record.get(name) is not None), None)
    return None if value is None else str(value)

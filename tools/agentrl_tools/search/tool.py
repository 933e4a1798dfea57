"""The tool `search`."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError
from agentrl.world.tool import ToolResult, tool
from agentrl_tools.search.bm25 import Bm25
from agentrl_tools.search.corpus import read_corpus
from agentrl_tools.search.dense import Dense, TransformersEncoder
from agentrl_tools.search.remote import Remote
from agentrl_tools.search.results import listed

if TYPE_CHECKING:
    from agentrl_tools.search.results import Retriever

NOTHING = "No document was found. Try other words."


@dataclass
class Search:
    """Searches a corpus.

    Args:
        corpus: a JSONL or Parquet file, or the address of a `/retrieve` server.
        k: how many documents a search gives.
        encoder: a model folder: vectors instead of BM25.
        retriever: one of your own instead of all that.

    Raises:
        ConfigError: neither a corpus nor a retriever, or both.
    """

    corpus: str = ""
    k: int = 3
    encoder: str = ""
    retriever: Retriever | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if bool(self.corpus) == (self.retriever is not None):
            raise ConfigError(
                "the search tool searches a corpus, which is a file or the address of a server, or a "
                f"retriever: give exactly one of them; {'both were' if self.corpus else 'none was'} given."
            )
        if self.k < 1:
            raise ConfigError(f"k is {self.k}; a search gives at least 1 document.")
        self._found: Retriever = self.retriever or open_retriever(self.corpus, self.encoder)

    @tool
    def search(self, query: str) -> ToolResult:
        """Search the documents.

        Args:
            query: a few words that the document should contain.
        """
        if not query.strip():
            raise ValueError("the query is empty; write a few words")
        hits = self._found.search(query, self.k)
        return ToolResult(listed(hits) or NOTHING, metrics={"documents": float(len(hits))})


@functools.lru_cache(maxsize=4)
def open_retriever(corpus: str, encoder: str = "") -> Retriever:
    """Return a retriever for a file or an address; a process opens each one once.

    Raises:
        ConfigError: there is no such file.
    """
    if corpus.startswith(("http://", "https://")):
        return Remote(corpus)
    found = read_corpus(Path(corpus))
    return Dense(found, TransformersEncoder(encoder)) if encoder else Bm25(found)

"""Search over a corpus: BM25, dense vectors, or a server that speaks Search-R1's `/retrieve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl_tools.search.bm25 import Bm25
from agentrl_tools.search.corpus import Corpus, Document, read_corpus
from agentrl_tools.search.dense import Dense, TransformersEncoder
from agentrl_tools.search.remote import Remote
from agentrl_tools.search.results import Hit, Retriever, listed
from agentrl_tools.search.tool import Search, open_retriever

if TYPE_CHECKING:
    from agentrl_tools.search.server import serve

__all__ = [
    "Bm25",
    "Corpus",
    "Dense",
    "Document",
    "Hit",
    "Remote",
    "Retriever",
    "Search",
    "TransformersEncoder",
    "listed",
    "open_retriever",
    "read_corpus",
    "serve",
]


def __getattr__(name: str) -> object:
    # `python -m agentrl_tools.search.server` runs that module: it must not have been imported before.
    if name == "serve":
        from agentrl_tools.search.server import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

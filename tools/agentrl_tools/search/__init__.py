"""Search over a corpus: BM25, dense vectors, or a server that speaks Search-R1's `/retrieve`."""

from agentrl_tools.search.bm25 import Bm25
from agentrl_tools.search.corpus import Corpus, Document, read_corpus
from agentrl_tools.search.dense import Dense, TransformersEncoder
from agentrl_tools.search.remote import Remote
from agentrl_tools.search.results import Hit, Retriever, listed
from agentrl_tools.search.server import serve
from agentrl_tools.search.tool import Search, open_retriever

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

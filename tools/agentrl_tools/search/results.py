"""What a search gives, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentrl_tools.search.corpus import Document


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found; `score` is None where a server gave none."""

    document: Document
    score: float | None = None


@runtime_checkable
class Retriever(Protocol):
    """Anything that finds documents."""

    def search(self, query: str, k: int) -> Sequence[Hit]:
        """Return at most `k` documents, the best first."""
        ...


def listed(hits: Sequence[Hit]) -> str:
    """Show results as Search-R1 does: `Doc 1(Title: "Tea") A drink.`, one after the other.

    >>> from agentrl_tools.search.corpus import Document
    >>> listed([Hit(Document("7", "Tea", "A drink."))])
    'Doc 1(Title: "Tea") A drink.'
    """
    return "\n".join(
        f'Doc {number}(Title: "{hit.document.title}") {hit.document.text}'
        for number, hit in enumerate(hits, 1)
    )

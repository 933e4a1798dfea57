"""A client of Search-R1's `/retrieve`, tolerant of the ways in which servers speak it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from agentrl.errors import ConfigError, EnvironmentFault
from agentrl_tools.search.corpus import IDS, TEXTS, TITLES, Document, split_title
from agentrl_tools.search.results import Hit
from agentrl_tools.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Remote:
    """Searches on a server: `POST URL {"queries": [...], "topk": k, "return_scores": true}`.

    Understood are results with and without scores, documents as objects with `contents`, with title and
    text, or as bare texts, wrapped in `document` or not, and more or fewer of them than were asked for. A
    server that refuses unknown fields is asked with `queries` alone. `return_scores` is always true: with
    false, Search-R1's own server fails unless it is asked exactly two queries.

    Args:
        url: of the endpoint, for example "http://127.0.0.1:8000/retrieve".
        wire: deadline, cap and retries.

    Raises:
        ConfigError: the url is none.
    """

    url: str
    wire: Wire = field(default_factory=Wire)
    _plain: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{self.url!r} is no address of a search server; write one such as http://127.0.0.1:8000/retrieve."
            )

    def search(self, query: str, k: int) -> Sequence[Hit]:
        """Return at most `k` documents.

        Raises:
            EnvironmentFault: the server failed, or sent what nobody can read.
        """
        answer = self.wire.send("POST", self.url, json=self._request(query, k))
        if answer.status in {400, 422} and not self._plain:
            self._plain = True
            answer = self.wire.send("POST", self.url, json=self._request(query, k))
        if answer.status != 200:
            raise EnvironmentFault(
                f"the search server answers with status {answer.status}: {answer.body[:200]!r}"
            )
        if answer.cut:
            raise EnvironmentFault(f"the search server sends more than {self.wire.most_bytes} bytes")
        try:
            content: object = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise EnvironmentFault(f"the search server sends no JSON: {answer.body[:200]!r}") from error
        return [_hit(item) for item in _results(content)[:k]]

    def _request(self, query: str, k: int) -> dict[str, object]:
        full: dict[str, object] = {"queries": [query], "topk": k, "return_scores": True}
        return {"queries": [query]} if self._plain else full


def _results(content: object) -> list[object]:
    """The results of the first query, whether or not they stand in a list of queries."""
    found = cast("Mapping[str, object]", content).get("result") if isinstance(content, Mapping) else content
    if not isinstance(found, list):
        raise EnvironmentFault(f'the search server sends no "result" list: {str(content)[:200]}')
    results = cast("list[object]", found)
    first = results[0] if results else []
    return cast("list[object]", first) if isinstance(first, list) else results


def _hit(item: object) -> Hit:
    inner: object = item
    score = None
    if isinstance(item, Mapping):
        known = cast("Mapping[str, object]", item)
        inner, given = known.get("document", known), known.get("score")
        score = float(given) if isinstance(given, int | float) else None
    if isinstance(inner, str):
        return Hit(Document("", *split_title(inner)), score)
    if not isinstance(inner, Mapping):
        raise EnvironmentFault(f"the search server sends a document that is none: {str(item)[:200]}")
    return Hit(_document(cast("Mapping[str, object]", inner)), score)


def _document(found: Mapping[str, object]) -> Document:
    def first(names: Sequence[str]) -> str:
        return next((str(found[name]) for name in names if found.get(name) is not None), "")

    text, title = first(TEXTS), first(TITLES)
    if not title:
        title, text = split_title(text)
    return Document(first(IDS), title, text, first(("url",)))

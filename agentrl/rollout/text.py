"""Between characters and tokens: where a piece of text was sampled, and observations cut by tokens."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentrl.policy.render import Renderer
    from agentrl.world.protocol import Protocol

Places: TypeAlias = Callable[[int, int], tuple[int, int]]
"""From characters [start, end) to tokens [start, end)."""

_TORN = "\ufffd"
"""What a decoder writes for a character of which bytes are missing."""


@dataclass
class TokenPlaces:
    """Finds the tokens that wrote a piece of a turn's text.

    Args:
        text: the turn as decoded; `tokens`: its (N,) sampled ids.
    """

    text: str
    tokens: Sequence[int]
    renderer: Renderer
    _ends: list[int] | None = field(default=None, init=False, repr=False)

    def __call__(self, start: int, end: int) -> tuple[int, int]:
        """Return the shortest run of tokens that covers the characters."""
        if self._ends is None:
            self._ends = [self._length(count + 1) for count in range(len(self.tokens))]
        first = max(bisect.bisect_left([0, *self._ends], start), 0)
        if first > len(self._ends) or [0, *self._ends][first] > start:
            first -= 1
        last = min(bisect.bisect_left(self._ends, end) + 1, len(self._ends))
        return first, max(first, last)

    def _length(self, count: int) -> int:
        """Characters that are whole after `count` tokens."""
        written = self.renderer.decode_turn(self.tokens[:count])
        if not self.text.startswith(written):
            written = written.rstrip(_TORN)
        return min(len(written), len(self.text))


def rendered(
    protocol: Protocol,
    observation: str,
    results: Sequence[str] = (),
    *,
    cut: Callable[[str, int], str] | None = None,
) -> str:
    """Return what a turn gave as the protocol writes it: one text, or each call's result on its own.

    Args:
        results: what each call of the turn gave, where there were several.
        cut: shortens a text to one of so many equal shares of what an observation may take.
    """
    texts = results if len(results) > 1 and protocol.separates_results else (observation,)
    if len(texts) == 1:
        return protocol.render(texts[0], cut=cut if cut is None else functools.partial(_cut_to_share, cut, 1))
    if cut is None:
        return "\n".join(protocol.render(text) for text in texts)
    share = functools.partial(_cut_to_share, cut, len(texts))
    return "\n".join(protocol.render(text, cut=share) for text in texts)


def _cut_to_share(cut: Callable[[str, int], str], shares: int, text: str) -> str:
    return cut(text, shares)


def cut_middle(text: str, limit: int, renderer: Renderer) -> str:
    """Return the text in at most `limit` tokens: its beginning, a note of what is missing, and its end.

    Where not even the note fits, the beginning alone.
    """
    tokens = renderer.encode(text).tolist()
    kept = limit
    while len(tokens) > limit and kept > 0:
        head, tail = (kept + 1) // 2, kept // 2
        note = f"\n[... {len(tokens) - kept} tokens were cut ...]\n"
        end = renderer.decode(tokens[len(tokens) - tail :]) if tail else ""
        shown = renderer.decode(tokens[:head]).rstrip(_TORN) + note + end.lstrip(_TORN)
        over = len(renderer.encode(shown)) - limit
        if over <= 0:
            return shown
        kept -= over
    return text if len(tokens) <= limit else _beginning(tokens, limit, renderer)


def _beginning(tokens: list[int], limit: int, renderer: Renderer) -> str:
    """The longest beginning that is at most `limit` tokens when it is written as text again."""
    for count in range(limit, 0, -1):
        shown = renderer.decode(tokens[:count]).rstrip(_TORN)
        if len(renderer.encode(shown)) <= limit:
            return shown
    return ""

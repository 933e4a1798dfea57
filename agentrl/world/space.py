"""The space of all texts."""

from __future__ import annotations

import gymnasium


class TextSpace(gymnasium.Space[str]):
    """Every Python string is a member (gymnasium's own `Text` refuses spaces and Unicode).

    >>> "Take the apple, s'il vous plaît!" in TextSpace()
    True
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)

    def sample(self, mask: object = None, probability: object = None) -> str:
        """Draw a short random word (Gymnasium's checkers call this; agents never do)."""
        letters = self.np_random.integers(97, 123, size=8)
        return "".join(map(chr, letters))

    def contains(self, x: object) -> bool:
        """Return whether `x` is a string."""
        return isinstance(x, str)

    @property
    def is_np_flattenable(self) -> bool:
        """Texts have no fixed-size array form."""
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextSpace)

    def __hash__(self) -> int:
        return hash(TextSpace)

    def __repr__(self) -> str:
        return "TextSpace()"

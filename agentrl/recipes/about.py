"""What a recipe says about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """Where a recipe comes from.

    Attributes:
        title: what it is, in words; `paper`: arXiv id; `equations`: which ones.
        departures: where this recipe differs from the paper or its code.
        checked: how we know that it is what it says.
    """

    title: str
    paper: str
    equations: str
    departures: str
    checked: str


def entry(title: str, paper: str, equations: str, departures: str, checked: str) -> About:
    """Return an About whose departures begin with what all recipes share."""
    return About(title, paper, equations, COMMON + departures, checked)


COMMON = "no KL term, AdamW at 1e-6; over-long answers are ordinary truncations. "
PARITY = "hand-derived example; parity with plain loops"
LOOPS = "parity with plain loops"
READING = "our reading of the abstract; " + LOOPS
HAND = "hand-derived cases; parity with plain loops"
GRADIENT = "hand-derived values; the on-policy gradient is the plain policy gradient; parity with plain loops"
ABSTRACT = "our reading of the abstract; " + HAND

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


COMMON = "no KL term, AdamW at 1e-6; over-long answers are ordinary truncations. "
PARITY = "hand-derived example; parity with plain loops"

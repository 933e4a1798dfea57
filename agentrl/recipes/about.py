"""What a recipe says about itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agentrl.credit.advantage import Relative
from agentrl.credit.part import name_of, parts_inside
from agentrl.learn.penalty import KlToOld, KlToReference

if TYPE_CHECKING:
    from agentrl.learn.algorithm import Algorithm


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
    """Return an About."""
    return About(title, paper, equations, departures, checked)


def complete(about: About, algorithm: Algorithm) -> About:
    """Return the About with departures that begin with what the algorithm itself says of its settings."""
    return replace(about, departures=settings(algorithm) + about.departures)


def settings(algorithm: Algorithm) -> str:
    """What papers set in different ways and an algorithm fixes, read off the algorithm.

    >>> from agentrl.recipes import GRPO, GRPO_LION
    >>> settings(GRPO)
    'no KL term, AdamW at 1e-06; over-long answers are ordinary truncations; a lone member gets 0. '
    >>> settings(GRPO_LION).split(";")[0]
    'no KL term, Lion at 3e-07'
    """
    kl = [penalty for penalty in algorithm.penalties if isinstance(penalty, KlToReference | KlToOld)]
    terms = [f"KL term {penalty!r}" for penalty in kl] or ["no KL term"]
    optimizer = algorithm.optimizer
    rate = getattr(optimizer, "lr", None)
    step = name_of(optimizer) + ("" if rate is None else f" at {rate!r}")
    lone = {part.lone for part in parts_inside(algorithm.advantage) if isinstance(part, Relative)}
    alone = {"zero": "; a lone member gets 0", "raw": "; a lone member keeps its undivided figure"}
    ending = alone[lone.pop()] if len(lone) == 1 else ""
    return f"{', '.join([*terms, step])}; over-long answers are ordinary truncations{ending}. "


PARITY = "hand-derived example; parity with plain loops"
LOOPS = "parity with plain loops"
READING = "our reading of the abstract; " + LOOPS
HAND = "hand-derived cases; parity with plain loops"
GRADIENT = "hand-derived values; the on-policy gradient is the plain policy gradient; parity with plain loops"
ABSTRACT = "our reading of the abstract; " + HAND

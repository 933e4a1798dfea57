"""How advantages combine: `Relative(scale=one) + 0.5 * Relative(Return(0.95), same_state, per="turn")`.

A sum with a term that tells the tokens of a turn apart does so too; its other terms are the same at each of
a turn's tokens.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, SupportsFloat, TypeAlias

import numpy as np

from agentrl.credit.part import Checked, Number, Printed, Schedule, fixed, name_of, per_turn
from agentrl.credit.tokens import of_tokens, token_advantage_inside
from agentrl.errors import AlgorithmError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]


class Advantage(Protocol):
    """An advantage slot: (S,) advantage of each turn."""

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        ...


class Composable(Checked, ABC):
    """Gives an advantage `+`, `-` and `*`; of two plain functions `Sum((f, g))` is the sum.

    One that changes another advantage turn by turn refuses one that tells tokens apart, which it would lose.
    """

    passes_tokens: ClassVar[bool] = False
    """Whether `of_tokens` passes on what the advantages inside say of single tokens."""

    def __post_init__(self) -> None:
        """Raise `AlgorithmError` for what the part cannot work with."""
        super().__post_init__()
        inside = None if self.passes_tokens else token_advantage_inside(tuple(vars(self).values()))
        if inside is not None:
            raise AlgorithmError(
                f"{type(self).__name__} works on turns, and {inside!r} inside it tells the tokens of a turn "
                "apart, which would be lost. Give it an advantage of turns, such as TurnGae; those of tokens "
                "only add and scale."
            )

    @abstractmethod
    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""

    def __add__(self, other: Advantage) -> Sum:
        return Sum((*_terms(self), *_terms(other)))

    def __radd__(self, other: Advantage) -> Sum:
        return Sum((*_terms(other), *_terms(self)))

    def __sub__(self, other: Advantage) -> Sum:
        return Sum((*_terms(self), Weighted(-1.0, other)))

    def __rsub__(self, other: Advantage) -> Sum:
        return Sum((*_terms(other), Weighted(-1.0, self)))

    def __neg__(self) -> Weighted:
        return Weighted(-1.0, self)

    def __mul__(self, weight: Number) -> Weighted:
        return Weighted(weight, self)

    __rmul__ = __mul__


@dataclass(frozen=True, repr=False)
class Sum(Composable, Printed):
    """The sum of several advantages."""

    terms: tuple[Advantage, ...]

    passes_tokens = True

    def __post_init__(self) -> None:
        """Raise `AlgorithmError` where a term is no advantage."""
        super().__post_init__()
        _check_advantages(self.terms)

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        return sum(self.parts(batch, reward, kept).values(), start=np.zeros(batch.num_turns))

    def of_tokens(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (N,)."""
        each = (of_tokens(term, batch, reward, kept) for term in self.terms)
        return sum(each, start=np.zeros(batch.num_sampled))

    def parts(self, batch: Batch, reward: Floats, kept: Kept, /) -> dict[str, Floats]:
        """Return (S,) of each term under its name, "episode" or "step" for the group-relative ones."""
        return {
            name: per_turn(term(batch, reward, kept), term, batch.num_turns)
            for name, term in zip(self.names, self.terms, strict=True)
        }

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """A name for each term, numbered where several would have the same."""
        plain = [_term_name(term) for term in self.terms]
        rank = [plain[:place].count(name) + 1 for place, name in enumerate(plain)]
        return tuple(
            name if number == 1 else f"{name} {number}" for name, number in zip(plain, rank, strict=True)
        )


@dataclass(frozen=True, repr=False)
class Weighted(Composable, Printed):
    """An advantage times a number."""

    weight: Number
    advantage: Advantage

    passes_tokens = True

    def __post_init__(self) -> None:
        """Raise `AlgorithmError` for a weight that is no number, such as another advantage."""
        super().__post_init__()
        _check_advantages((self.advantage,))
        given: object = self.weight
        if not isinstance(given, SupportsFloat | Schedule):
            raise AlgorithmError(
                f"an advantage is scaled by a number or a schedule of numbers; got {given!r}. "
                "Advantages add: write + between two of them."
            )

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        return fixed(self.weight) * self.advantage(batch, reward, kept)

    def of_tokens(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (N,)."""
        return fixed(self.weight) * of_tokens(self.advantage, batch, reward, kept)


def leaves(advantage: Advantage) -> tuple[Advantage, ...]:
    """Return what an advantage adds up, without the weights.

    >>> from agentrl.credit.advantage import Relative
    >>> leaves(Relative() + 0.5 * Relative()) == (Relative(), Relative())
    True
    """
    if isinstance(advantage, Weighted):
        return leaves(advantage.advantage)
    if isinstance(advantage, Sum):
        return tuple(leaf for term in advantage.terms for leaf in leaves(term))
    return (advantage,)


def _term_name(term: Advantage) -> str:
    """What its one part with a `label` calls itself, else its own name."""
    labels = [str(label) for leaf in leaves(term) if (label := getattr(leaf, "label", ""))]
    return labels[0] if len(labels) == 1 else name_of(term)


def _check_advantages(given: tuple[object, ...]) -> None:
    """Raise where one of them is no advantage."""
    for item in given:
        if not callable(item) or isinstance(item, Schedule):
            raise AlgorithmError(
                f"{item!r} is no advantage, which is called with batch, reward and kept; add and scale "
                "advantages only. To scale one, write a number times it."
            )


def _terms(advantage: Advantage) -> tuple[Advantage, ...]:
    return advantage.terms if isinstance(advantage, Sum) else (advantage,)

"""Advantages that tell the tokens of a turn apart, alone or inside of others."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeGuard, runtime_checkable

from agentrl.credit.part import parts_inside

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentrl.credit.compose import Advantage
    from agentrl.credit.keep import Kept
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]


@runtime_checkable
class TokenAdvantage(Protocol):
    """An advantage slot that tells tokens of a turn apart; called plainly it gives each turn's mean.

    With an attribute `passes_tokens` that is true it does so only where an advantage inside it does.
    """

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        ...

    def of_tokens(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (N,)."""
        ...


def tells_tokens_apart(part: object) -> TypeGuard[TokenAdvantage]:
    """Return whether an advantage, or a term of it, tells the tokens of a turn apart.

    >>> from agentrl.credit.advantage import Relative
    >>> from agentrl.credit.critic import TokenGae
    >>> tells_tokens_apart(Relative() + 0.5 * TokenGae()), tells_tokens_apart(0.5 * Relative())
    (True, False)
    """
    return _has_of_tokens(part) and token_advantage_inside(part) is not None


def token_advantage_inside(part: object) -> object | None:
    """Return the first part that tells tokens apart of its own, the given one or one inside, or None."""
    found = (item for item in parts_inside(part) if _has_of_tokens(item))
    return next((item for item in found if not getattr(item, "passes_tokens", False)), None)


def of_tokens(advantage: Advantage, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
    """Return (N,) an advantage on sampled tokens: its own figures of them, or each turn's on its tokens."""
    if tells_tokens_apart(advantage):
        return advantage.of_tokens(batch, reward, kept)
    return advantage(batch, reward, kept)[batch.turn_of_sample]


def _has_of_tokens(part: object) -> bool:
    return _of_tokens_in(type(part))  # type: ignore[arg-type]  # classes are hashable


@functools.cache
def _of_tokens_in(part: type[object]) -> bool:
    # To ask this of an instance costs as much as ten operations on a thousand turns.
    return issubclass(part, TokenAdvantage)

"""The terms on which an agent may use tools: how often in one trajectory, and what a call costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one tool.

    Attributes:
        calls: most calls of a trajectory; None has no bound. A call beyond it is refused with a sentence.
        cost: of each executed call; `credit.reward.ToolCost` reads their sum, the batch's `tool_cost`.

    Raises:
        ConfigError: a number is negative.
    """

    calls: int | None = None
    cost: float = 0.0

    def __post_init__(self) -> None:
        if (self.calls is not None and self.calls < 0) or not self.cost >= 0:
            raise ConfigError(f"the terms of a tool are numbers of at least 0; got {self}.")


_FREE = Terms()


@dataclass
class Meter:
    """Counts the calls of one trajectory against the terms.

    >>> meter = Meter({"search": Terms(calls=1)})
    >>> meter.admit("search"), meter.admit("search")
    (None, 'The budget of search is used up: 1 call in an episode.')
    """

    terms: Mapping[str, Terms]
    used: dict[str, int] = field(default_factory=dict[str, int])

    def admit(self, name: str) -> str | None:
        """Count a call and return None, or a sentence for the agent when its budget is used up."""
        used, most = self.used.get(name, 0), self.of(name).calls
        if most is not None and used >= most:
            calls = "1 call" if most == 1 else f"{most} calls"
            return f"The budget of {name} is used up: {calls} in an episode."
        self.used[name] = used + 1
        return None

    def of(self, name: str) -> Terms:
        """Return the terms of a tool; free and unbounded where nothing was said."""
        return self.terms.get(name, _FREE)


def check_terms(terms: Mapping[str, Terms], tools: Iterable[str]) -> None:
    """Raise `ConfigError` where terms name a tool that the world does not have."""
    known = tuple(tools)
    for name in terms:
        if name not in known:
            listed = f"Its tools are {', '.join(known)}." if known else "It has no tools."
            raise ConfigError(
                f"environment.tools names {name!r}, which this world does not have."
                f"{did_you_mean(name, known)} {listed}"
            )

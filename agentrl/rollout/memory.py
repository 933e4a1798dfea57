"""Memory: what of its own past an agent is shown, the whole of it by default.

A memory that leaves something out rewrites the history. The turn then begins a fresh token stream, so that
what the model saw is still exactly what stands in the trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agentrl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class View:
    """A rewritten history: `opening` in place of all turns before `since`, then those from `since` on."""

    opening: str
    since: int


@dataclass(frozen=True, slots=True)
class Past:
    """What has been said.

    Attributes:
        observations: (t+1,) texts that the agent was to answer, the one of this turn last.
        actions: (t,) what it wrote; `begun`: turn with which the current stream began.
    """

    observations: Sequence[str]
    actions: Sequence[str]
    begun: int = 0


class Memory(Protocol):
    """A memory slot: a view that begins a fresh stream, or None where the stream goes on."""

    def __call__(self, past: Past, /) -> View | None:
        """Return the view of this turn."""
        ...


@dataclass(frozen=True)
class WholeHistory:
    """Every turn stays: one stream, never rewritten."""

    def __call__(self, past: Past, /) -> View | None:
        """Return None."""
        del past
        return None


@dataclass(frozen=True)
class Window:
    """The first observation, which tells the task, and the last `turns` turns; each later turn is a stream.

    As verl-agent trains (its `history_length`), in the conversation's own markup instead of a retold list.
    Until something is left out the stream goes on, for it holds the same tokens.

    >>> Window(1)(Past(["task", "a hall"], ["go"])) is None
    True
    >>> Window(1)(Past(["task", "a hall", "a door"], ["go", "open"]))
    View(opening='task', since=1)
    """

    turns: int = 2

    def __post_init__(self) -> None:
        if self.turns < 0:
            raise ConfigError(f"a Window holds 0 turns or more; got {self.turns}.")

    def __call__(self, past: Past, /) -> View | None:
        """Return the window once it is shorter than the past."""
        since = len(past.actions) - self.turns
        return View(past.observations[0], since) if since > 0 else None


@dataclass(frozen=True)
class Recap:
    r"""After every `turns` turns of a stream the past is retold: the first observation and what was done.

    >>> Recap(2)(Past(["task", "a hall", "a door"], ["go", "open"])).opening
    'task\n\nSo far: go; open.'
    """

    turns: int = 8
    words: str = "So far: {actions}."

    def __post_init__(self) -> None:
        if self.turns < 1:
            raise ConfigError(f"a Recap comes after 1 turn or more; got {self.turns}.")
        if "{actions}" not in self.words:
            raise ConfigError(
                f"the words of a Recap name {{actions}}, which they retell; got {self.words!r}."
            )

    def __call__(self, past: Past, /) -> View | None:
        """Return the retold past when the stream holds enough turns."""
        done = len(past.actions)
        if done - past.begun < self.turns:
            return None
        told = self.words.format(actions="; ".join(past.actions))
        return View(f"{past.observations[0]}\n\n{told}", done)


whole_history = WholeHistory()

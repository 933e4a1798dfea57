"""A trajectory as the conversation that it was, in messages of the common form."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from agentrl.trajectory.turn import digest

if TYPE_CHECKING:
    from agentrl.trajectory.turn import Trajectory


class Message(TypedDict):
    """One message, as chat templates and servers take it."""

    role: str
    content: str


def opening_of(trajectory: Trajectory) -> list[Message]:
    """Return what stood before the agent's first turn: the system text, if there is one, and the task."""
    first = trajectory.turns[0].observation if trajectory.turns else trajectory.final_observation
    head = [Message(role="system", content=trajectory.system)] if trajectory.system else []
    return [*head, Message(role="user", content=first)]


def reply_of(trajectory: Trajectory) -> list[Message]:
    """Return the rest, from the agent's first turn to its last one, thoughts included as it wrote them."""
    rest: list[Message] = []
    for turn in trajectory.turns:
        if rest:
            rest.append(Message(role="user", content=turn.observation))
        rest.append(Message(role="assistant", content=turn.text))
    return rest


def conversation_of(trajectory: Trajectory) -> list[Message]:
    """Return the whole conversation. Where the agent was shown a rewritten history, this is the full one.

    >>> import numpy as np
    >>> from agentrl.trajectory.turn import StopReason, Trajectory, Turn, no_tokens
    >>> turn = Turn(no_tokens(), None, None, "You see a door.", "open door", "open door")
    >>> played = Trajectory("a", "Door", "train/0", "g", (turn,), StopReason.TERMINATED, system="Be brief.")
    >>> [message["role"] for message in conversation_of(played)]
    ['system', 'user', 'assistant']
    """
    return [*opening_of(trajectory), *reply_of(trajectory)]


def digest_of(trajectory: Trajectory) -> int:
    """Return a digest of the conversation: equal conversations have equal ones."""
    return digest(tuple(message["content"] for message in conversation_of(trajectory)))

"""Policies without a model: scripted, random, replayed and human."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agentrl.errors import PolicyError
from agentrl.policy.base import Sample
from agentrl.trajectory import digest

if TYPE_CHECKING:
    from agentrl.policy.base import Finish, Request
    from agentrl.policy.render import Renderer
    from agentrl.trajectory import IntArray, Trajectory, Turn

Actor: TypeAlias = Callable[[str], str]
"""From an observation to what is written; it may remember."""


def _sample(text: str, renderer: Renderer | None, limit: int) -> Sample:
    if renderer is None:
        return Sample(text)
    tokens = closed_turn(text, renderer)
    finish: Finish = "stop" if len(tokens) <= limit else "length"
    if finish == "length":
        tokens = tokens[:limit]
        text = renderer.decode_turn(tokens.tolist())
    return Sample(text, tokens, np.zeros(len(tokens), dtype=np.float32), finish)


def closed_turn(text: str, renderer: Renderer) -> IntArray:
    """(N,) the tokens of a turn that says `text`, stop token included."""
    return renderer.encode_turn(text)


@dataclass(eq=False)
class ScriptedPolicy:
    """Writes what it is told: the texts of a list turn by turn, or what an actor answers.

    Args:
        script: texts, one for each turn; or a factory that makes a fresh actor for each trajectory.
        name: of the policy, in trajectories and reports.
        renderer: with one, samples carry tokens (log-probability 0: a script is certain).

    >>> import asyncio
    >>> from agentrl.policy.base import Request
    >>> policy = ScriptedPolicy(["look", "take apple"])
    >>> asyncio.run(policy.generate(Request("t", "t", 1, "You see an apple.", ()))).text
    'take apple'
    """

    script: Sequence[str] | Callable[[], Actor]
    name: str = "scripted"
    renderer: Renderer | None = None
    _actors: dict[str, Actor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.script, str):
            raise PolicyError(f"a script is a list of texts, one for each turn; write [{self.script!r}].")

    async def generate(self, request: Request) -> Sample:
        """Return the turn of the script. Raises `PolicyError` when a list has come to its end."""
        return _sample(self._write(request), self.renderer, request.sampling.max_tokens)

    def _write(self, request: Request) -> str:
        if callable(self.script):
            if request.trajectory not in self._actors:
                self._actors[request.trajectory] = self.script()
            return self._actors[request.trajectory](request.observation)
        if request.turn >= len(self.script):
            raise PolicyError(
                f"{self.name!r} has a script of {len(self.script)} turns; turn {request.turn} was asked for."
                f" Write a longer script, set a limit of turns, or let the environment end the episode."
            )
        return self.script[request.turn]

    def finish(self, trajectory: str) -> None:
        """Forget the actor of this trajectory."""
        self._actors.pop(trajectory, None)


@dataclass(eq=False)
class RandomPolicy:
    """Chooses uniformly among the admissible commands; the same request key makes the same choice.

    Args:
        name: of the policy, in trajectories and reports.
        renderer: with one, samples carry tokens. Their log-probabilities are 0, not those of the choice.
    """

    name: str = "random"
    renderer: Renderer | None = None

    async def generate(self, request: Request) -> Sample:
        """Draw one command. Raises `PolicyError` where the environment does not list any."""
        commands = request.admissible()
        if not commands:
            raise PolicyError(
                "a random policy needs the environment's admissible() to list commands; it gave "
                f"{'none' if commands is None else 'an empty list'}. Use ScriptedPolicy here."
            )
        noise = np.random.Generator(np.random.Philox(key=digest(("random", *request.key))))
        return _sample(
            commands[int(noise.integers(len(commands)))], self.renderer, request.sampling.max_tokens
        )

    def finish(self, trajectory: str) -> None:
        """Nothing is kept."""


@dataclass(eq=False)
class ReplayPolicy:
    """Writes the turns of a recorded trajectory again, tokens and log-probabilities included.

    Args:
        trajectory: what is replayed.
        strict: refuse to go on when the environment shows something else than it did.
        renderer: of the policy that was recorded, where tokens are wanted.
    """

    trajectory: Trajectory
    strict: bool = True
    name: str = "replay"
    renderer: Renderer | None = None

    async def generate(self, request: Request) -> Sample:
        """Return the recorded turn. Raises `PolicyError` past its end or where the replay diverges."""
        turns = self.trajectory.turns
        if request.turn >= len(turns):
            raise PolicyError(
                f"the trajectory {self.trajectory.id!r} has {len(turns)} turns; "
                f"turn {request.turn} was asked for."
            )
        turn = turns[request.turn]
        if self.strict and turn.observation != request.observation:
            raise PolicyError(
                f"the replay of {self.trajectory.id!r} diverges at turn {request.turn}: recorded was "
                f"{turn.observation[:80]!r}, now it is {request.observation[:80]!r}. Is the environment "
                f"deterministic, with the same task and seed? strict=False goes on regardless."
            )
        return _recorded(turn, with_tokens=self.renderer is not None)

    def finish(self, trajectory: str) -> None:
        """Nothing is kept."""


def _recorded(turn: Turn, *, with_tokens: bool) -> Sample:
    finish: Finish = (
        "length" if turn.finish == "length" else "context" if turn.finish == "context" else "stop"
    )
    tokens, logprobs = (turn.tokens, turn.logprobs) if with_tokens else (None, None)
    return Sample(turn.text, tokens, logprobs, finish, turn.policy_version, turn.token_measures)


@dataclass(eq=False)
class HumanPolicy:
    """Asks at the keyboard, in a thread, so that other trajectories go on.

    Args:
        read: shows a prompt and returns a line, as `input` does.
    """

    name: str = "human"
    renderer: Renderer | None = None
    read: Callable[[str], str] = input

    async def generate(self, request: Request) -> Sample:
        """Show the observation and read one line. Raises `PolicyError` at the end of the input."""
        commands = request.admissible()
        hint = f"\n({' | '.join(commands)})" if commands else ""
        try:
            text = await asyncio.to_thread(self.read, f"\n{request.observation}{hint}\n> ")
        except EOFError as error:
            raise PolicyError("the input ended before the episode; nobody is at the keyboard.") from error
        return _sample(text, self.renderer, request.sampling.max_tokens)

    def finish(self, trajectory: str) -> None:
        """Nothing is kept."""

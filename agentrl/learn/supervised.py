"""Supervised examples: demonstrations as tokens with a weight for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from agentrl.rollout.context import Context
from agentrl.rollout.text import cut_middle

if TYPE_CHECKING:
    from agentrl.policy.render import Renderer
    from agentrl.rollout.demonstrate import Demonstration
    from agentrl.trajectory import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Example:
    """One demonstration as tokens.

    Attributes:
        tokens: (L,) ids; `weight`: (L,) 1 on imitated tokens, a small weight on observations, 0 elsewhere.
    """

    tokens: IntArray
    weight: FloatArray


def examples_of(
    demonstration: Demonstration,
    renderer: Renderer,
    *,
    observation_weight: float,
    observation_tokens: int | None = None,
) -> list[Example]:
    """Render a demonstration exactly as a rollout would have rendered it.

    Turns that somebody else executed stay in the context and carry no loss. One example for each token
    stream: a chat template that rewrites history begins another, whose earlier turns are context.

    Args:
        observation_weight: weight of observation tokens; a little of it teaches the world's language.
        observation_tokens: longer observations are cut, as in a rollout.
    """

    def cut(text: str, shares: int) -> str:
        if observation_tokens is None:
            return text
        return cut_middle(text, max(observation_tokens // shares, 1), renderer)

    found = [_Stream()]
    context = Context(renderer)
    context.tell(demonstration.system, demonstration.schemas)
    for index, turn in enumerate(demonstration.turns):
        prompt = context.ask(demonstration.shown(index, cut))
        if prompt.fresh:
            found.append(_Stream())
        action = renderer.encode_turn(turn.action)
        found[-1].add(prompt.added, observation_weight)
        found[-1].add(action, float(turn.learn))
        context.answer(prompt, turn.action, action)
    return [stream.example() for stream in found]


@dataclass(eq=False)
class _Stream:
    """A token stream that grows."""

    tokens: list[int] = field(default_factory=list[int])
    weight: list[float] = field(default_factory=list[float])

    def add(self, tokens: IntArray, weight: float) -> None:
        self.tokens += tokens.tolist()
        self.weight += [weight] * len(tokens)

    def example(self) -> Example:
        return Example(np.asarray(self.tokens, np.int32), np.asarray(self.weight, np.float32))


class Epochs(Sequence["IntArray"]):
    """The examples of each step: shuffled epochs one after the other, reproducible, made when asked for.

    >>> [len(step) for step in Epochs(5, batch=2, seed=0, steps=3)]
    [2, 2, 2]
    """

    def __init__(self, count: int, *, batch: int, seed: int, steps: int) -> None:
        self._count, self._batch, self._seed, self._steps = count, batch, seed, steps
        self._start_again()

    def _start_again(self) -> None:
        self._rng = np.random.default_rng([self._seed, 1])
        self._order = np.zeros(0, np.int32)
        self._first = 0

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> IntArray:  # type: ignore[override]  # steps are asked for one by one
        """Return the (B,) examples of a step."""
        if not 0 <= step < self._steps:
            raise IndexError(step)
        begin, end = step * self._batch, (step + 1) * self._batch
        if begin < self._first:
            self._start_again()
        while self._first + len(self._order) < end:
            passed = max(min(begin - self._first, len(self._order)), 0)
            self._first += passed
            self._order = np.append(self._order[passed:], self._rng.permutation(self._count).astype(np.int32))
        return self._order[begin - self._first : end - self._first]


def epochs_of(count: int, *, batch: int, seed: int, steps: int) -> Epochs:
    """Return the examples of each step; see `Epochs`."""
    return Epochs(count, batch=batch, seed=seed, steps=steps)


def total_weight(examples: Sequence[Example]) -> float:
    """The denominator of the loss: the weights of all predicted tokens."""
    return float(sum(float(example.weight[1:].sum()) for example in examples)) or 1.0

"""Supervised examples: demonstrations as tokens with a weight for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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


def example_of(
    demonstration: Demonstration,
    renderer: Renderer,
    *,
    observation_weight: float,
    observation_tokens: int | None = None,
) -> Example:
    """Render a demonstration exactly as a rollout would have rendered it.

    Turns that somebody else executed stay in the context and carry no loss.

    Args:
        observation_weight: weight of observation tokens; a little of it teaches the world's language.
        observation_tokens: longer observations are cut, as in a rollout.
    """

    def cut(text: str, shares: int) -> str:
        if observation_tokens is None:
            return text
        return cut_middle(text, max(observation_tokens // shares, 1), renderer)

    tokens: list[int] = []
    weight: list[float] = []
    end = renderer.stop_tokens[0]
    for index, turn in enumerate(demonstration.turns):
        shown = demonstration.shown(index, cut)
        prompt = renderer.extend(shown, closed=True) if index else renderer.begin(demonstration.system, shown)
        action = [*renderer.encode(turn.action).tolist(), end]
        tokens += [*prompt.tolist(), *action]
        weight += [observation_weight] * len(prompt) + [float(turn.learn)] * len(action)
    return Example(np.asarray(tokens, np.int32), np.asarray(weight, np.float32))


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

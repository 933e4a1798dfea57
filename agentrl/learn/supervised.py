"""Supervised examples: demonstrations as tokens with a weight for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def example_of(demonstration: Demonstration, renderer: Renderer, *, observation_weight: float) -> Example:
    """Render a demonstration exactly as a rollout would have rendered it.

    Turns that somebody else executed stay in the context and carry no loss.

    Args:
        observation_weight: weight of observation tokens; a little of it teaches the world's language.
    """
    tokens: list[int] = []
    weight: list[float] = []
    end = renderer.stop_tokens[0]
    for index, turn in enumerate(demonstration.turns):
        prompt = (
            renderer.extend(turn.observation, closed=True)
            if index
            else renderer.begin(demonstration.system, turn.observation)
        )
        action = [*renderer.encode(turn.action).tolist(), end]
        tokens += [*prompt.tolist(), *action]
        weight += [observation_weight] * len(prompt) + [float(turn.learn)] * len(action)
    return Example(np.asarray(tokens, np.int32), np.asarray(weight, np.float32))


def epochs_of(count: int, *, batch: int, seed: int, steps: int) -> list[IntArray]:
    """Return the examples of each step: shuffled epochs one after the other, reproducible from `seed`.

    >>> [len(step) for step in epochs_of(5, batch=2, seed=0, steps=3)]
    [2, 2, 2]
    """
    rng = np.random.default_rng([seed, 1])
    order: list[int] = []
    while len(order) < batch * steps:
        order += rng.permutation(count).tolist()
    return [np.asarray(order[k * batch : (k + 1) * batch], np.int32) for k in range(steps)]


def total_weight(examples: Sequence[Example]) -> float:
    """The denominator of the loss: the weights of all predicted tokens."""
    return float(sum(float(example.weight[1:].sum()) for example in examples)) or 1.0

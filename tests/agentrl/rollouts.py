"""What the tests of rollouts share: a small model, players, groups."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from agentrl.policy.base import Sampling
from agentrl.policy.build import ModelShape, build_model, train_tokenizer
from agentrl.policy.render import Markup
from agentrl.rollout import (
    Assignment,
    Limits,
    Play,
    assign_groups,
)
from agentrl.trajectory import (
    Invalid,
    Trajectory,
)
from agentrl.world import PlainText

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from agentrl.policy.base import Policy
    from agentrl.world import Protocol

TEXTS = [f"Say {word}. It is over. {word}" for word in ("lamp", "apple", "drawer", "mug", "shelf")] * 4


@functools.cache
def small_renderer() -> Markup:
    return Markup(train_tokenizer(TEXTS, vocabulary=330))


def small_model(renderer: Markup) -> PreTrainedModel:
    shape = ModelShape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=48, context=256)
    return build_model(renderer.tokenizer, shape, seed=5)


def play(
    policy: Policy, *, protocol: Protocol | None = None, temperature: float = 1.0, **limits: object
) -> Play:
    bounds = replace(Limits(), **limits)  # type: ignore[arg-type]  # a test's keywords
    sampling = Sampling(temperature=temperature, max_tokens=bounds.turn_tokens)
    return Play(policy, protocol or PlainText(), sampling, bounds, "test")


def groups(count: int = 4, members: int = 3, seed: int = 0) -> list[Assignment]:
    return assign_groups("train", range(count), members=members, seed=seed)


def timeless(item: Trajectory | Invalid) -> Trajectory | Invalid:
    if isinstance(item, Invalid):
        return item
    turns = tuple(replace(turn, generate_seconds=0.0, environment_seconds=0.0) for turn in item.turns)
    return replace(item, turns=turns, id=item.id.partition("~")[0])


def valid(results: Sequence[Trajectory | Invalid]) -> list[Trajectory]:
    wrong = [item for item in results if isinstance(item, Invalid)]
    assert not wrong, wrong[0]
    return [item for item in results if isinstance(item, Trajectory)]

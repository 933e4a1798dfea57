"""Every recipe against a second implementation in loops, on random ragged batches: loss and gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from agentrl import recipes
from agentrl.learn.loss import policy_loss, prepare
from agentrl.trajectory.batch import (
    CURRENT_LOGPROB,
    CURRENT_VOCABULARY_LOGPROB,
    VOCABULARY_LOGPROB,
    Batch,
)
from tests.parity.plain_loss import RECIPES
from tests.parity.plain_world import world_of
from tests.recipe_batches import make_batch

torch.set_num_threads(1)

ENTROPY = 1.0
"""The entropy of the forward pass stands for this multiple of -log p, so that it carries gradient."""

SHAPES = ((4, 2, 3), (3, 3, 11))
"""Members, groups and seed of each batch."""


def with_policy(members: int, groups: int, seed: int) -> tuple[Batch, torch.Tensor]:
    """Return a batch and a policy that has moved away from the one that drew it."""
    batch = with_early_rewards(make_batch(members, groups, seed), seed)
    noise = np.random.default_rng(seed).normal(0, 0.25, batch.num_sampled)
    now = np.minimum(batch.logprob + noise, -1e-3).astype(np.float32)
    current = torch.tensor(now.astype(np.float64), requires_grad=True)
    moved = batch[VOCABULARY_LOGPROB] + np.random.default_rng(seed + 1).normal(0, 0.5, len(now))
    batch = batch.with_column(CURRENT_VOCABULARY_LOGPROB, moved.astype(np.float32))
    return batch.with_column(CURRENT_LOGPROB, now), current


def with_early_rewards(batch: Batch, seed: int) -> Batch:
    """Some first turns that are not the last earn a quarter."""
    early = (batch.turn_index == 0) & (batch.turns_per_trajectory[batch.trajectory_of_turn] > 1)
    earns = early & (np.random.default_rng(seed + 2).random(batch.num_turns) > 0.5)
    return replace(batch, reward=batch.reward + np.where(earns, np.float32(0.25), np.float32(0)))


def ours(name: str, batch: Batch, now: torch.Tensor) -> tuple[float, np.ndarray]:
    algorithm = replace(recipes.get(name).at(0.5), on_empty="skip")
    inputs = prepare(algorithm, batch, algorithm.credit(batch), dtype=torch.float64)
    loss = policy_loss(algorithm, inputs, now, entropy=-ENTROPY * now).total
    return loss.item(), gradient(loss, now)


def gradient(loss: torch.Tensor, now: torch.Tensor) -> np.ndarray:
    if not loss.requires_grad:
        return np.zeros(len(now))
    (found,) = torch.autograd.grad(loss, now)
    return found.numpy()


def test_every_recipe_has_a_second_implementation() -> None:
    assert set(RECIPES) == set(recipes.names())


@pytest.mark.parametrize("name", recipes.names())
def test_gradient_agrees(name: str) -> None:
    for shape in SHAPES:
        batch, now = with_policy(*shape)
        value, found = ours(name, batch, now)
        plain = RECIPES[name].loss(world_of(batch, now), ENTROPY)
        assert_allclose(found, gradient(plain, now), atol=1e-6, rtol=0, err_msg=str(shape))
        if not recipes.get(name).reads_current:  # those are given by their slopes, and have no value
            assert value == pytest.approx(plain.item(), abs=1e-6)


SAME_GRADIENT = {"SCALING_INTER", "GRPO_LION", "ARPO"}
"""GRPO's by design: one bounds rollouts, one steps differently, one differs where branches share tokens."""


def test_every_gradient_differs_from_every_other() -> None:
    batch, now = with_policy(6, 5, 1)
    found = {name: ours(name, batch, now)[1] for name in recipes.names() if name not in SAME_GRADIENT}
    for name, mine in found.items():
        for other, theirs in found.items():
            far = np.abs(mine - theirs).max() / max(np.abs(mine).max(), np.abs(theirs).max())
            assert name == other or far > 1e-3, f"{name} and {other} are one recipe"
    for name in SAME_GRADIENT:
        assert_allclose(ours(name, batch, now)[1], found["GRPO"])

"""Turns that branches share carry loss once, with the mean advantage of the trajectories through them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from agentrl.credit.advantage import Relative, one
from agentrl.credit.keep import NoVoid, no_valid_action
from agentrl.learn.average import trajectory_mean
from agentrl.learn.loss import policy_loss, prepare
from agentrl.recipes import ARPO, GIGPO, GRPO
from agentrl.trajectory import StopReason, Trajectory, Turn
from agentrl.trajectory.batch import Batch
from agentrl.trajectory.builder import TrajectoryBuilder
from agentrl.trajectory.pack import pack

if TYPE_CHECKING:
    from agentrl.learn.algorithm import Algorithm

CENTERED = replace(GRPO, advantage=Relative(scale=one))


def turn(token: int, reward: float = 0.0, count: int = 2, *, ok: bool = True) -> Turn:
    tokens = np.full(count, token, np.int32)
    return Turn(
        np.array([9], np.int32), tokens, np.full(count, -0.5, np.float32), "o", "t", "a", reward,
        valid=ok, state_key=token,
    )  # fmt: skip


def tree(*, ok: bool = True) -> list[Trajectory]:
    """A stem a0 a1 (reward 1) with branches a0 b1 (reward 0) and, off that, a0 b1 c2 (reward 0)."""
    stem = TrajectoryBuilder(id="a", environment="e", task="t", group="g")
    for one_turn in (turn(1), turn(2, 1.0, ok=ok)):
        stem.add_turn(one_turn)
    parent = stem.finish(StopReason.TERMINATED)
    branch = TrajectoryBuilder.branch(parent, 1, id="b", member=1)
    branch.add_turn(turn(3))
    child = branch.finish(StopReason.TERMINATED)
    twig = TrajectoryBuilder.branch(child, 2, id="c", member=2)
    twig.add_turn(turn(4))
    return [parent, child, twig.finish(StopReason.TERMINATED)]


def test_a_shared_turn_counts_once_with_the_mean_advantage() -> None:
    # Totals 1, 0, 0; advantages 2/3, -1/3, -1/3. All pass a0: mean 0. Two pass b1: -1/3.
    credit = CENTERED.credit(pack(tree()))
    assert credit.kept.loss.tolist() == [True, True, False, True, False, False, True]
    assert_allclose(credit.advantage, [0, 2 / 3, 0, -1 / 3, 0, 0, -1 / 3], atol=1e-12)
    assert credit.keep_of_sample.tolist() == [
        *[True] * 4,
        *[False] * 2,
        *[True] * 2,
        *[False] * 4,
        *[True] * 2,
    ]
    assert_allclose(credit.advantage_of_sample[::2], credit.advantage)


def test_the_parts_of_a_sum_are_merged_alike() -> None:
    credit = GIGPO.credit(pack(tree()))
    assert_allclose(sum(credit.parts.values()), credit.advantage, atol=1e-12)


def test_a_branch_stands_in_where_its_parent_is_filtered() -> None:
    # The stem's last turn is void, so all of it is dropped; a0 is learnt on the first branch.
    credit = replace(CENTERED, keep=NoVoid(no_valid_action, "trajectory")).credit(pack(tree(ok=False)))
    assert credit.kept.loss.tolist() == [False, False, True, True, False, False, True]
    assert_allclose(credit.advantage, [0, 0, -1 / 3, -1 / 3, 0, 0, -1 / 3], atol=1e-12)


def test_the_gradient_is_that_of_the_tree_node_by_node() -> None:
    """Loops: every distinct token once, with the mean advantage of the leaves below it."""
    batch = pack(tree())
    inputs = prepare(CENTERED, batch, CENTERED.credit(batch), dtype=torch.float64)
    logprob = inputs.old_logprob.clone().requires_grad_()
    policy_loss(CENTERED, inputs, logprob).total.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    expected: dict[int, float] = {}
    for row, advantage in enumerate((2 / 3, -1 / 3, -1 / 3)):
        for token in np.unique(
            batch.token[batch.sampled & (batch.trajectory_of_turn[batch.turn_of_token] == row)]
        ):
            through = sum(token in item.turns[k].tokens for item in tree() for k in range(len(item.turns)))  # type: ignore[operator]
            expected[int(token)] = (
                expected.get(int(token), 0.0) - advantage / through / 8
            )  # 4 turns of 2 tokens
    assert logprob.grad is not None
    for token, gradient in expected.items():
        assert_allclose(logprob.grad[batch.token[batch.sampled] == token].sum(), 2 * gradient, atol=1e-12)


def gradient(algorithm: Algorithm, batch: Batch) -> tuple[float, dict[int, float]]:
    """The loss, and the sum of its gradients by token id."""
    inputs = prepare(algorithm, batch, algorithm.credit(batch), dtype=torch.float64)
    logprob = (inputs.old_logprob + 0.05).requires_grad_()
    loss = policy_loss(algorithm, inputs, logprob).total
    (found,) = torch.autograd.grad(loss, logprob)
    token = batch.token[batch.sampled]
    return loss.item(), {int(each): float(found[token == each].sum()) for each in np.unique(token)}


def test_soft_assignment_is_that_of_branches_learnt_one_by_one() -> None:
    batch = pack(tree())
    apart = replace(batch, parent=np.full(3, -1, np.int32), branch_turn=np.full(3, -1, np.int32))
    soft, expected = gradient(ARPO, batch), gradient(GRPO, apart)
    assert soft[0] == pytest.approx(expected[0], abs=1e-12)
    assert soft[1] == pytest.approx(expected[1], abs=1e-12)
    hard = gradient(GRPO, batch)
    assert hard[1] != pytest.approx(expected[1], abs=1e-3)


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_the_order_of_trajectories_does_not_matter(order: tuple[int, ...]) -> None:
    algorithm = replace(CENTERED, average=trajectory_mean)
    batch = pack(tree())
    losses = []
    for each in (batch, batch.select(order)):
        inputs = prepare(algorithm, each, algorithm.credit(each), dtype=torch.float64)
        logprob = inputs.old_logprob + 0.05
        losses.append(policy_loss(algorithm, inputs, logprob).total.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


def test_a_turn_that_only_claims_to_be_shared_is_learnt_by_itself() -> None:
    batch = Batch.from_arrays(
        group=[0, 0], turns_per_trajectory=[2, 2], reward=[0, 1, 0, 0], tokens_per_turn=[2, 1, 3, 1],
        parent=[-1, 0], branch_turn=[-1, 1],
    )  # fmt: skip
    credit = CENTERED.credit(batch)
    assert credit.keep_of_sample.all()
    assert_allclose(credit.advantage_of_sample, [0.5, 0.5, 0.5, -0.5, -0.5, -0.5, -0.5])


def test_without_branches_nothing_changes() -> None:
    alone = pack([tree()[0], replace(tree()[1], parent=None, branch_turn=None)])
    credit = CENTERED.credit(alone)
    assert credit.kept.loss.all()
    assert_allclose(credit.advantage, [0.5, 0.5, -0.5, -0.5])

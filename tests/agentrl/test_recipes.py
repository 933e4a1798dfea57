"""One grid over all recipes: they are values, they are documented, and each gives a sane gradient."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from agentrl import recipes
from agentrl.errors import AlgorithmError, ConfigError
from agentrl.learn.algorithm import Algorithm, describe, from_description
from agentrl.learn.loss import policy_loss, prepare
from agentrl.trajectory.batch import (
    ENTROPY,
    GOLD_LOGPROB,
    GOLD_LOGPROB_FINAL,
    REFERENCE_LOGPROB,
    SPAN,
    VALUE,
    Batch,
)
from agentrl.trajectory.pack import pack
from agentrl.trajectory.turn import StopReason, Trajectory, Turn

torch.set_num_threads(1)

COMPARE_BEYOND_THE_GROUP = {
    "REINFORCE", "GIGPO_VERL_AGENT", "GIGPO", "GIGPO_OBSERVATION", "GIGPO_SIMILAR", "GIGPO_SAPO", "HGPO",
    "IGPO", "IGPO_JOINT", "TURN_PPO", "BI_LEVEL_GAE", "POAD", "MARS", "REINFORCE_PP", "CENTERED",
}  # fmt: skip

ALL = pytest.mark.parametrize("name", recipes.names())


def turn(random: np.random.Generator, key: int, reward: float) -> Turn:
    count = int(random.integers(1, 5))
    return Turn(
        prompt_tokens=np.arange(3, dtype=np.int32),
        tokens=random.integers(0, 9, count).astype(np.int32),
        logprobs=random.normal(-1, 0.3, count).astype(np.float32),
        observation=f"room {key}", text="\\boxed{1}" if random.random() > 0.1 else "hm", action="go",
        reward=reward, valid=bool(random.random() > 0.2), observation_key=key, state_key=key,
    )  # fmt: skip


def make_batch(members: int = 4, groups: int = 2, seed: int = 3) -> Batch:
    random = np.random.default_rng(seed)
    trajectories = []
    for number in range(members * groups):
        won = number % members == 0 or random.random() > 0.7
        turns = [turn(random, int(random.integers(0, 3)), 0.0) for _ in range(int(random.integers(0, 4)))]
        turns.append(turn(random, 0, float(won)))
        group = str(number // members)
        episode = Trajectory(
            id=str(number), environment="test", task=f"task {group}", group=group, turns=tuple(turns),
            stop=StopReason.TERMINATED, member=number % members, success=won,
        )  # fmt: skip
        trajectories.append(episode)
    batch = measured(pack(trajectories), random)
    reference = random.normal(-1, 0.3, batch.num_sampled).astype(np.float32)
    return batch.with_column(REFERENCE_LOGPROB, reference)


def measured(batch: Batch, random: np.random.Generator) -> Batch:
    """Fill the columns that recipes read, two roles, and one branch in each group."""
    sizes = {"N": batch.num_sampled, "S": batch.num_turns, "E": batch.num_trajectories}
    for column in (ENTROPY, VALUE, GOLD_LOGPROB, GOLD_LOGPROB_FINAL):
        batch = batch.with_column(column, random.uniform(-1, 0, sizes[column.axis]).astype(np.float32))
    batch = batch.with_column(SPAN, random.integers(-1, 1, sizes["N"]).astype(np.int32))
    parent, branch = batch.parent.copy(), batch.branch_turn.copy()
    for group in range(int(batch.group.max()) + 1):
        rows = np.flatnonzero(batch.group == group)
        if len(rows) > 1:
            parent[rows[1]], branch[rows[1]] = rows[0], 1
    return replace(
        batch, span_roles=("think",), parent=parent, branch_turn=branch,
        role=np.where(random.random(sizes["S"]) > 0.4, "main", "helper"),
    )  # fmt: skip


@ALL
def test_recipe_is_a_value(name: str) -> None:
    algorithm = recipes.get(name)
    assert pickle.loads(pickle.dumps(algorithm)) == algorithm
    assert hash(algorithm) == hash(recipes.get(name.lower().replace("_", "-")))
    assert "0x" not in repr(algorithm)
    assert algorithm.at(0.5) == algorithm


@ALL
def test_run_card_round_trip(name: str) -> None:
    algorithm = recipes.get(name)
    card = json.dumps(describe(algorithm), sort_keys=True)
    assert from_description(json.loads(card)) == algorithm
    assert json.dumps(describe(from_description(json.loads(card))), sort_keys=True) == card
    assert "0x" not in card


@ALL
def test_recipe_is_documented(name: str) -> None:
    about = recipes.ABOUT[name]
    assert all((about.title, about.paper, about.equations, about.departures, about.checked))


def test_every_algorithm_is_in_the_table() -> None:
    named = {name for name, value in vars(recipes).items() if isinstance(value, Algorithm)}
    assert named == set(recipes.names())
    assert len({recipes.get(name) for name in named}) == len(named)


@ALL
def test_gradient_is_finite_and_not_zero(name: str) -> None:
    algorithm, batch = recipes.get(name), make_batch()
    inputs = prepare(algorithm, batch, algorithm.credit(batch))
    noise = 0.1 * torch.randn(inputs.old_logprob.shape, generator=torch.manual_seed(0))
    logprob = (inputs.old_logprob + noise).requires_grad_()
    loss = policy_loss(algorithm, inputs, logprob, entropy=torch.ones_like(logprob))
    loss.total.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    assert loss.total.isfinite()
    assert logprob.grad is not None
    assert logprob.grad.isfinite().all()
    assert logprob.grad.abs().sum() > 0
    assert all(np.isfinite(value) for value in loss.health.figures().values())


@ALL
def test_order_of_trajectories_does_not_matter(name: str) -> None:
    algorithm, batch = recipes.get(name), make_batch()
    order = np.random.default_rng(0).permutation(batch.num_trajectories)
    losses = []
    for each in (batch, batch.select(order)):
        inputs = prepare(algorithm, each, algorithm.credit(each), dtype=torch.float64)
        logprob = inputs.old_logprob + 0.1 * torch.sin(37 * inputs.old_logprob)
        losses.append(policy_loss(algorithm, inputs, logprob, torch.ones_like(logprob)).total.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


@ALL
def test_groups_of_one_are_finite(name: str) -> None:
    algorithm, batch = replace(recipes.get(name), on_empty="skip"), make_batch(members=1, groups=3)
    advantage = algorithm.credit(batch).advantage
    assert np.isfinite(advantage).all()
    if name not in COMPARE_BEYOND_THE_GROUP:
        assert_allclose(advantage, 0.0)


def test_get_corrects_spelling_and_takes_dotted_paths() -> None:
    assert recipes.get("dr-grpo") is recipes.DR_GRPO
    assert recipes.get("agentrl.recipes:GSPO") is recipes.GSPO
    with pytest.raises(ConfigError, match=r"Did you mean 'GIGPO'"):
        recipes.get("gigpoo")
    with pytest.raises(ConfigError, match="not an agentrl Algorithm"):
        recipes.get("agentrl.recipes:ABOUT")
    with pytest.raises(AlgorithmError, match="Did you mean 'DAPO'"):
        recipes.get("agentrl.recipes:DAPOO")
    for path in ("no_such_module:GRPO", "no.such.module:GRPO", ":GRPO"):
        with pytest.raises(AlgorithmError, match="there is no module"):
            recipes.get(path)


def test_a_run_card_of_something_else_is_refused() -> None:
    with pytest.raises(AlgorithmError, match="not an Algorithm"):
        from_description({"function": "agentrl.credit.peers:everyone"})


def test_recipes_print_compare_and_pickle_without_torch() -> None:
    code = (
        "import sys, pickle, agentrl.recipes as r\n"
        "from agentrl.learn.algorithm import describe, from_description\n"
        "import agentrl.learn.loss, agentrl.learn.penalty\n"
        "for n in r.names():\n"
        "    a = r.get(n)\n"
        "    assert pickle.loads(pickle.dumps(a)) == a == from_description(describe(a)) and repr(a)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""Runs whose algorithm reads what a model measures: gold answers, entropies, a critic's values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from agentrl.credit.critic import SiblingValue, TokenGae, TurnGae, returns_of
from agentrl.credit.ledger import Ledger
from agentrl.errors import AlgorithmError, MissingColumnError
from agentrl.learn.critic import Critic
from agentrl.learn.forward import Streams
from agentrl.learn.gradient import flat_weights
from agentrl.learn.value import ValueInputs, ValueModel, measure_values, merged_values, value_gradient
from agentrl.policy.build import ModelShape, build_model, train_tokenizer
from agentrl.recipes import GRPO, IGPO, TURN_PPO, get, names
from agentrl.run.check import columns_read
from agentrl.run.train import train
from agentrl.testing.make import make_trajectories
from agentrl.trajectory.batch import VALUE, Batch
from agentrl.trajectory.pack import pack
from agentrl.trajectory.store import read_journal
from tests.agentrl.training import WORLD, Fails, rl, rows, tiny, weights

if TYPE_CHECKING:
    from pathlib import Path

    from agentrl.run.settings import TrainSettings

torch.set_num_threads(1)
EPISODES = make_trajectories(3, measures=False)
KNOWING = {"id": WORLD, "kwargs": {"answer": "apple drawer"}}


def settings(recipe: str = "GRPO", *, processes: int = 1, **changes: object) -> TrainSettings:
    return tiny(
        environment=KNOWING, processes=processes,
        rl=rl(
            algorithm=recipe, optimizer={"warmup": 0.0},
            critic_optimizer={"warmup": 0.0, "weight_decay": 0.0}, **changes,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_no_recipe_is_refused_where_the_world_knows_the_answer(name: str) -> None:
    episode = replace(EPISODES[0], gold="a lamp")
    assert len(columns_read(get(name), episode, Ledger())) < 5


def test_a_declared_component_may_be_absent_from_the_first_episode() -> None:
    (episode,) = make_trajectories(groups=1, members=1)
    assert columns_read(get("FAPO"), episode, Ledger(), ["flawed"]) == ()
    with pytest.raises(MissingColumnError, match=r"neither gave in the preflight episode nor declares"):
        columns_read(get("FAPO"), episode, Ledger(), ["goal"])


@pytest.mark.parametrize("name", ["IGPO", "POAD", "TOP_ENTROPY"])
def test_a_recipe_that_reads_measured_columns_trains_and_processes_change_nothing(
    name: str, tmp_path: Path
) -> None:
    for processes in (1, 2):
        train(settings(name, processes=processes), out=tmp_path / str(processes))
    assert weights(tmp_path / "1") == weights(tmp_path / "2") != weights(tmp_path / "1", "warm-start")
    assert all(np.isfinite(row["grad_norm"]) and row["grad_norm"] > 0 for row in rows(tmp_path / "1"))
    played = read_journal(tmp_path / "1" / "trajectories/rl.jsonl.zst").trajectories
    assert {item.gold for item in played} == {"apple drawer"}
    assert ("value_loss" in rows(tmp_path / "1")[0]) == (name == "POAD")


MEASURED = ("IGPO_JOINT", "TURN_PPO", "BI_LEVEL_GAE", "STEER", "POISE", "ROVER", "PIPO")


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_the_other_recipes_with_measured_columns_train(name: str, tmp_path: Path) -> None:
    train(settings(name), out=tmp_path)
    assert weights(tmp_path) != weights(tmp_path, "warm-start")


def test_a_run_with_a_critic_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    wanted = settings("TURN_PPO", steps=4)
    train(wanted, out=whole)
    with pytest.raises(KeyboardInterrupt):
        train(wanted, out=cut, progress=Fails("rl", 3))
    train(wanted, out=cut, resume=True)
    assert weights(whole) == weights(cut)
    critics = [torch.load(each / "checkpoints/trained/critic.pt", weights_only=True) for each in (whole, cut)]
    assert torch.equal(critics[0]["weights"], critics[1]["weights"])
    assert critics[0]["version"] == 4
    losses = [row["value_loss"] for row in rows(whole)]
    assert losses == [row["value_loss"] for row in rows(cut)]


def test_a_world_without_an_answer_is_refused_with_the_repair(tmp_path: Path) -> None:
    with pytest.raises(MissingColumnError, match=r"Define gold\(\) in the environment"):
        train(tiny(), algorithm=IGPO, out=tmp_path)


def test_a_critic_must_know_what_to_learn(tmp_path: Path) -> None:
    with pytest.raises(AlgorithmError, match=r"Relative does not say what the critic should learn"):
        train(tiny(), algorithm=replace(GRPO, critic=Critic()), out=tmp_path / "a")
    with pytest.raises(MissingColumnError, match=r"Algorithm\(critic=Critic\(\)\)"):
        train(tiny(), algorithm=replace(TURN_PPO, critic=None), out=tmp_path / "b")
    assert returns_of(0.5 * TurnGae() + GRPO.advantage) == TurnGae()


def scene() -> tuple[ValueModel, Batch]:
    tokenizer = train_tokenizer(["Say lamp."] * 9, vocabulary=300)
    shape = ModelShape(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=48, context=256)
    model = ValueModel(build_model(tokenizer, shape, seed=1))
    batch = pack(EPISODES)
    return model, replace(batch, token=batch.token % 250)


def test_a_critic_begins_at_zero_and_learns_the_returns() -> None:
    model, batch = scene()
    streams = np.arange(len(batch.stream_turn_start) - 1)
    first = measure_values(batch, model, streams).value
    assert (first == 0).all()
    batch = batch.with_column(VALUE, first)
    part = TokenGae(1.0, 0.95, 1.0)
    reward = np.random.default_rng(1).normal(size=batch.num_turns)
    kept = GRPO.credit(batch).kept
    target = part.returns(batch, reward, kept).astype(np.float32)
    inputs = ValueInputs(target, first, 10.0, len(target))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses: list[float] = []
    for _ in range(60):
        found = value_gradient(model, batch, inputs, streams)
        losses.append(found.loss)
        start = 0
        for parameter in model.parameters():
            size = parameter.numel()
            parameter.grad = found.gradient[start : start + size].view_as(parameter).clone()
            start += size
        optimizer.step()
    assert losses[0] == pytest.approx(0.5 * float((target**2).mean()), rel=1e-5)
    assert losses[-1] < 0.1 * losses[0]


def test_gradients_of_a_critics_shares_add_up_and_far_steps_earn_nothing() -> None:
    model, batch = scene()
    every = Streams.of(batch)
    streams = np.arange(len(every))
    torch.nn.init.normal_(model.head.weight, std=0.1, generator=torch.manual_seed(0))
    target = np.random.default_rng(1).normal(size=batch.num_sampled).astype(np.float32)
    target[::3] = np.nan
    shares = [measure_values(batch, model, streams[k::2]) for k in (1, 0)]
    before = merged_values(batch, shares)
    whole_values = merged_values(batch, [measure_values(batch, model, streams)])
    np.testing.assert_allclose(before, whole_values, atol=1e-6)
    inputs = ValueInputs(target, before, 0.5, int(np.isfinite(target).sum()))
    whole = value_gradient(model, batch, inputs, streams)
    parts = [value_gradient(model, batch, inputs, streams[k::2], micro_tokens=60) for k in range(2)]
    torch.testing.assert_close(sum(part.gradient for part in parts), whole.gradient, rtol=0, atol=1e-6)
    assert sum(part.loss for part in parts) == pytest.approx(whole.loss, rel=1e-5)
    # The value stands 1 above what it was, beyond the clip of 0.5, on its way to the target: no gradient.
    far = ValueInputs(before + 9, before - 1, 0.5, inputs.count)
    assert float(value_gradient(model, batch, far, streams).gradient.abs().max()) == 0
    assert len(flat_weights(model)) == len(whole.gradient)


def test_a_trunk_that_stays_gets_no_gradient() -> None:
    model, batch = scene()
    torch.nn.init.normal_(model.head.weight, std=0.1, generator=torch.manual_seed(0))
    streams = np.arange(len(batch.stream_turn_start) - 1)
    batch = batch.with_column(VALUE, measure_values(batch, model, streams).value)
    target = SiblingValue().returns(batch, np.ones(batch.num_turns), GRPO.credit(batch).kept)
    inputs = ValueInputs(target.astype(np.float32), batch[VALUE], 9.0, len(target), trunk_learns=False)
    found = value_gradient(model, batch, inputs, streams).gradient
    head = model.head.weight.numel() + 1
    assert (found[:-head] == 0).all()
    learns = value_gradient(model, batch, replace(inputs, trunk_learns=True), streams).gradient
    torch.testing.assert_close(found[-head:], learns[-head:], rtol=0, atol=1e-6)
    with pytest.raises(AlgorithmError, match="without weight decay"):
        Critic(trunk="stays")


def test_what_a_critic_learns_stands_at_first_tokens_for_turns() -> None:
    # Two turns of two tokens, rewards 0 and 1, values 0.5 and 0.2 at their first tokens; gamma 1, lambda 1:
    # both returns are 1, whatever the values.
    batch = Batch.from_arrays(
        group=[0], turns_per_trajectory=[2], reward=[0, 1], tokens_per_turn=[2, 2],
        columns={VALUE: np.array([0.5, 9, 0.2, 9], np.float32)},
    )  # fmt: skip
    kept = GRPO.credit(batch).kept
    target = TurnGae(1.0, 1.0).returns(batch, np.array([0.0, 1.0]), kept)
    np.testing.assert_allclose(target, [1, np.nan, 1, np.nan], atol=1e-6)

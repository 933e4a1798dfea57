"""Gradients: shares add up, unsampled tokens receive none, and what is not finite is skipped."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from agentrl.credit.ledger import Ledger
from agentrl.errors import AlgorithmError
from agentrl.learn import layout
from agentrl.learn.forward import Streams
from agentrl.learn.gradient import (
    flat_gradient,
    flat_weights,
    load_flat,
    policy_gradient,
    put_gradient,
    streams_with_loss,
    supervised_gradient,
)
from agentrl.learn.layout import reads_trees
from agentrl.learn.learner import Learner
from agentrl.learn.loss import prepare
from agentrl.learn.optimizer import AdamW, Muon
from agentrl.learn.probes import measure
from agentrl.learn.supervised import Epochs, Example, examples_of, total_weight
from agentrl.learn.tree import cut, tree_of
from agentrl.policy.base import Sampling
from agentrl.policy.build import ModelShape, build_model, train_tokenizer
from agentrl.policy.hf import HfPolicy
from agentrl.policy.render import Markup
from agentrl.recipes import get, names
from agentrl.rollout import Limits, Play, Stock, assign_groups, collect
from agentrl.rollout.demonstrate import demonstrate
from agentrl.testing import WordWorld
from agentrl.trajectory import Trajectory
from agentrl.trajectory.batch import (
    ENTROPY,
    GOLD_LOGPROB,
    GOLD_LOGPROB_FINAL,
    REFERENCE_LOGPROB,
    SENTENCE,
    SPAN,
    VALUE,
    VOCABULARY_LOGPROB,
    Batch,
    reward_component,
)
from agentrl.trajectory.pack import pack
from agentrl.world import PlainText

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from agentrl.learn.algorithm import Algorithm
    from agentrl.learn.optimizer import Optimizer

torch.set_num_threads(1)
HOT = 1.4


@dataclass(frozen=True, eq=False)
class Scene:
    """A model, what it sampled at two temperatures, and demonstrations."""

    model: PreTrainedModel
    batch: Batch
    hot: Batch
    examples: list[Example]


def _measured(batch: Batch) -> Batch:
    """Fill the columns that recipes read and no run here measures."""
    random = np.random.default_rng(1)
    sizes = {"N": batch.num_sampled, "S": batch.num_turns, "E": batch.num_trajectories}
    for column in (ENTROPY, VALUE, GOLD_LOGPROB, GOLD_LOGPROB_FINAL, SPAN, VOCABULARY_LOGPROB):
        batch = batch.with_column(column, random.uniform(-1, 0, sizes[column.axis]).astype(np.float32))
    place = np.arange(batch.num_sampled) - batch.sample_start[batch.turn_of_sample]
    batch = batch.with_column(SENTENCE, (place // 2).astype(np.float32))
    batch = batch.with_column(reward_component("flawed"), np.zeros(batch.num_turns, np.float32))
    # An untrained model never succeeds, and some recipes compare successes with failures.
    some = (np.arange(batch.num_trajectories) % 3 == 0).astype(np.int8)
    return Ledger().annotate(
        replace(batch, success=some, reward=batch.reward + some[batch.trajectory_of_turn])
    )


def _collected(policy: HfPolicy, temperature: float) -> Batch:
    limits = Limits(turn_tokens=6)
    play = Play(policy, PlainText(), Sampling(temperature, max_tokens=6), limits)
    items = collect(Stock(WordWorld), play, assign_groups("train", range(3), members=4, seed=0))
    batch = pack([item for item in items if isinstance(item, Trajectory)])
    noise = np.random.default_rng(0).normal(0, 0.2, len(batch.logprob))
    batch = batch.with_column(REFERENCE_LOGPROB, (batch.logprob + noise).astype(np.float32))
    return _measured(batch)


@pytest.fixture(scope="module")
def scene() -> Scene:
    renderer = Markup(train_tokenizer(["Say lamp. It is over. apple drawer"] * 9, vocabulary=300))
    shape = ModelShape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=48, context=128)
    model = build_model(renderer.tokenizer, shape, seed=1)
    policy = HfPolicy(model, renderer, slots=6, context=128)
    shown = demonstrate(WordWorld(), "train", range(7), noise=0.0, seed=0)
    examples = [one for item in shown for one in examples_of(item, renderer, observation_weight=0.15)]
    return Scene(model, _collected(policy, 1.0), _collected(policy, HOT), examples)


def gradient_of(
    scene: Scene,
    algorithm: Algorithm,
    *,
    shares: int = 1,
    micro_tokens: int = 8192,
    batch: Batch | None = None,
) -> torch.Tensor:
    batch = batch or scene.batch
    inputs = prepare(algorithm, batch, algorithm.credit(batch))
    streams = streams_with_loss(algorithm, batch, inputs)
    parts = [
        policy_gradient(scene.model, algorithm, batch, inputs, streams[k::shares], micro_tokens=micro_tokens)
        for k in range(shares)
    ]
    return torch.stack([part.gradient for part in parts]).sum(0)


def close(first: torch.Tensor, second: torch.Tensor) -> None:
    scale = float(first.abs().max())
    assert scale > 1e-6
    torch.testing.assert_close(first / scale, second / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", names())
def test_shares_and_micro_batches_add_up_to_the_batch(scene: Scene, name: str) -> None:
    algorithm = replace(get(name).at(0.0), on_empty="skip")
    if algorithm.credit(scene.batch).empty:
        pytest.skip("this recipe's filter keeps nothing of a batch without code")
    whole = gradient_of(scene, algorithm)
    close(whole, gradient_of(scene, algorithm, shares=2))
    close(whole, gradient_of(scene, algorithm, shares=5))
    close(whole, gradient_of(scene, algorithm, micro_tokens=1))
    close(whole, gradient_of(scene, algorithm, shares=2, micro_tokens=150))


@pytest.mark.parametrize(("name", "tree"), [*((name, False) for name in names()), ("GRPO", True)])
def test_positions_that_predict_nothing_sampled_get_exactly_zero(
    scene: Scene, name: str, tree: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hidden state of every position is watched; the head is the only reader of the last one.
    algorithm = replace(get(name).at(0.0), on_empty="skip")
    if algorithm.credit(scene.batch).empty:
        pytest.skip("this recipe's filter keeps nothing of a batch without code")
    watched: list[torch.Tensor] = []
    base = scene.model.base_model
    forward = base.forward

    def watching(**kwargs: object) -> object:
        output = forward(**kwargs)
        output.last_hidden_state.retain_grad()
        watched.append(output.last_hidden_state)
        return output

    assert reads_trees(scene.model)
    monkeypatch.setattr(base, "forward", watching)
    monkeypatch.setattr(layout, "LEAST_SAVING", 1.0 if tree else 1e9)
    inputs = prepare(algorithm, scene.batch, algorithm.credit(scene.batch))
    every = np.arange(len(scene.batch.stream_turn_start) - 1)
    policy_gradient(scene.model, algorithm, scene.batch, inputs, every)
    packed = Streams.of(scene.batch)
    order = np.argsort(np.diff(packed.token_start), kind="stable")
    sequences, targets = packed.sequences(every)
    (hidden,) = watched
    assert hidden.grad is not None
    live = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    if tree:
        (piece,) = cut(sequences, tokens=10_000)
        paths = tree_of([sequences[row] for row in piece.rows]).path
        for row, path in zip(piece.rows, paths, strict=True):
            live[0, path[targets[row] - 1]] = True
        assert hidden.shape[1] < packed.token_start[-1]
    else:
        for row, stream in enumerate(order):
            live[row, torch.from_numpy(targets[stream] - 1)] = True
        # Every sampled token was read, and none but those.
        assert int(live.sum()) == len(scene.batch.logprob)
    assert (hidden.grad[~live] == 0).all()
    assert (hidden.grad[live] != 0).any()


def test_the_last_observation_of_a_stream_is_no_target_and_a_target_of_another_matters(scene: Scene) -> None:
    # Flip a token that the policy did not sample, after the last one it sampled: nothing may change. (One
    # before it is context, and changes what the model says; as a target it must never appear.)
    example = scene.examples[0]
    weight = example.weight.copy()
    weight[-6:] = 0.0
    tokens = example.tokens.copy()
    first = supervised_gradient(scene.model, [Example(tokens, weight)], total_weight=1.0)
    tokens = tokens.copy()
    tokens[-3] = (tokens[-3] + 1) % 300
    second = supervised_gradient(scene.model, [Example(tokens, weight)], total_weight=1.0)
    assert torch.equal(first.gradient, second.gradient)
    assert first.loss == second.loss
    tokens[-8] = (tokens[-8] + 1) % 300
    third = supervised_gradient(scene.model, [Example(tokens, weight)], total_weight=1.0)
    assert first.loss != third.loss


def test_the_supervised_gradient_is_autograds_own(scene: Scene) -> None:
    weight = total_weight(scene.examples)
    scene.model.zero_grad(set_to_none=True)
    loss = torch.zeros(())
    for example in scene.examples:
        tokens = torch.from_numpy(example.tokens.astype(np.int64))[None]
        every = torch.log_softmax(scene.model(input_ids=tokens).logits[0, :-1], -1)
        chosen = every.gather(1, tokens[0, 1:, None])[:, 0]
        loss = loss - (torch.from_numpy(example.weight[1:]) * chosen).sum() / weight
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    expected = flat_gradient(scene.model)
    for shares, micro in ((1, 8192), (2, 60), (3, 1)):
        parts = [
            supervised_gradient(
                scene.model, scene.examples[k::shares], total_weight=weight, micro_tokens=micro
            )
            for k in range(shares)
        ]
        close(expected, torch.stack([part.gradient for part in parts]).sum(0))
        assert sum(part.loss for part in parts) == pytest.approx(float(loss.detach()), abs=1e-5)
    none = supervised_gradient(scene.model, [], total_weight=weight)
    assert (none.loss, none.action_tokens, float(none.gradient.abs().max())) == (0.0, 0, 0.0)


def test_disturbed_turns_are_context_and_no_target() -> None:
    renderer = Markup(train_tokenizer(["Say lamp. It is over."] * 9, vocabulary=300))
    shown = demonstrate(WordWorld(9), "train", [0], noise=0.0, seed=0)[0]
    turns = tuple(replace(turn, learn=number % 2 == 0) for number, turn in enumerate(shown.turns))
    (example,) = examples_of(replace(shown, turns=turns), renderer, observation_weight=0.25)
    place = 0
    for number, turn in enumerate(turns):
        shown_tokens = (
            renderer.extend(turn.observation, closed=True) if number else renderer.begin("", turn.observation)
        )
        prompt = len(shown_tokens)
        action = len(renderer.encode(turn.action)) + 1
        assert set(example.weight[place : place + prompt].tolist()) == {0.25}
        assert set(example.weight[place + prompt : place + prompt + action].tolist()) == {
            float(number % 2 == 0)
        }
        place += prompt + action
    assert place == len(example.tokens)


@pytest.mark.parametrize("temperature", [1.0, HOT])
def test_the_ratio_is_one_on_policy_at_the_temperature_of_the_rollout(
    scene: Scene, temperature: float
) -> None:
    batch = scene.batch if temperature == 1.0 else scene.hot
    streams = np.arange(len(batch.stream_turn_start) - 1)
    now = measure(batch, scene.model, streams, micro_tokens=200, temperature=temperature)
    assert sorted(now.place.tolist()) == list(range(len(batch.logprob)))
    np.testing.assert_allclose(now.logprob, batch.logprob[now.place], atol=1e-5)
    algorithm = get("GRPO").at(0.0)
    inputs = prepare(algorithm, batch, algorithm.credit(batch))
    part = policy_gradient(scene.model, algorithm, batch, inputs, streams, temperature=temperature)
    assert part.health is not None
    figures = part.health.figures()
    assert figures["logprob_gap_max"] < 1e-5
    assert figures["clip_share"] == 0.0
    if temperature != 1.0:
        wrong = policy_gradient(scene.model, algorithm, batch, inputs, streams)
        assert wrong.health is not None
        assert wrong.health.figures()["logprob_gap_max"] > 0.05


def test_streams_without_advantage_are_left_out_and_change_nothing(scene: Scene) -> None:
    algorithm = get("GRPO").at(0.0)
    credit = algorithm.credit(scene.batch)
    quiet = np.where(scene.batch.turn_of_sample % 5 == 0, credit.advantage_of_sample, 0.0)
    one = scene.batch.turn_of_sample < scene.batch.num_turns // 3
    credit = replace(credit, advantage_of_sample=np.where(one, quiet, 0.0))
    inputs = prepare(algorithm, scene.batch, credit)
    some = streams_with_loss(algorithm, scene.batch, inputs)
    every = np.arange(len(scene.batch.stream_turn_start) - 1)
    assert 0 < len(some) < len(every)
    close(
        policy_gradient(scene.model, algorithm, scene.batch, inputs, every).gradient,
        policy_gradient(scene.model, algorithm, scene.batch, inputs, some).gradient,
    )


def test_flat_vectors_are_the_parameters_in_order(scene: Scene) -> None:
    before = flat_weights(scene.model)
    vector = torch.arange(len(before), dtype=torch.float32)
    put_gradient(scene.model, vector)
    assert torch.equal(flat_gradient(scene.model), vector)
    load_flat(scene.model, before + 1)
    assert torch.equal(flat_weights(scene.model), before + 1)
    load_flat(scene.model, before)
    scene.model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("optimizer", [AdamW(lr=1e-2), Muon(lr=0.02, adamw=AdamW(lr=1e-2))])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 3e38])
def test_a_step_that_is_not_finite_touches_nothing(scene: Scene, optimizer: Optimizer, poison: float) -> None:
    before = flat_weights(scene.model)
    try:
        learner = Learner(scene.model, optimizer, most_skipped=2)
        good = gradient_of(scene, get("GRPO").at(0.0))
        learner.step(good, 0.0)
        weights, state = flat_weights(scene.model), str(learner.state()["optimizers"])
        bad = good.clone()
        bad[:9] = poison  # 3e38 is finite, its norm is not
        figures = [learner.step(bad, 0.1) for _ in range(2)]
        assert [row["skipped_steps"] for row in figures] == [1.0, 2.0]
        assert torch.equal(flat_weights(scene.model), weights)
        assert str(learner.state()["optimizers"]) == state
        assert learner.version == 1
        learner.step(good, 0.2)
        learner.step(bad, 0.3)
        learner.step(bad, 0.3)
        assert learner.skipped == 4  # counted in all; a good step between begins the row anew
        with pytest.raises(AlgorithmError, match=r"3 gradients in a row.*learning rate"):
            learner.step(bad, 0.3)
    finally:
        load_flat(scene.model, before)


def test_a_poisoned_advantage_gives_a_gradient_that_the_learner_skips(scene: Scene) -> None:
    algorithm = get("GRPO").at(0.0)
    credit = algorithm.credit(scene.batch)
    advantage = credit.advantage_of_sample.copy()
    advantage[np.flatnonzero(advantage)[0]] = np.nan
    inputs = prepare(algorithm, scene.batch, replace(credit, advantage_of_sample=advantage))
    every = np.arange(len(scene.batch.stream_turn_start) - 1)
    gradient = policy_gradient(scene.model, algorithm, scene.batch, inputs, every).gradient
    learner = Learner(scene.model, AdamW(lr=1e-2))
    before = flat_weights(scene.model)
    assert np.isnan(learner.step(gradient, 0.0)["grad_norm"])
    assert torch.equal(flat_weights(scene.model), before)
    reward = scene.batch.reward.copy()
    reward[0] = np.inf
    with pytest.raises(AlgorithmError, match="finite"):
        algorithm.credit(replace(scene.batch, reward=reward))


def test_a_sample_without_a_log_probability_moves_no_weight(scene: Scene) -> None:
    # Clamping the log-ratio stops the gradient of what is not a number; the figures show it.
    algorithm = get("GRPO").at(0.0)
    credit = algorithm.credit(scene.batch)
    place = int(np.flatnonzero(credit.advantage_of_sample)[0])
    logprob, advantage = scene.batch.logprob.copy(), credit.advantage_of_sample.copy()
    logprob[place], advantage[place] = np.nan, 0.0
    every = np.arange(len(scene.batch.stream_turn_start) - 1)
    poisoned = prepare(algorithm, replace(scene.batch, logprob=logprob), credit)
    silent = prepare(algorithm, scene.batch, replace(credit, advantage_of_sample=advantage))
    first = policy_gradient(scene.model, algorithm, scene.batch, poisoned, every)
    second = policy_gradient(scene.model, algorithm, scene.batch, silent, every)
    close(first.gradient, second.gradient)
    assert np.isnan(first.parts["policy"])


def test_gradients_are_cut_to_the_norm(scene: Scene) -> None:
    before = flat_weights(scene.model)
    try:
        steps: list[torch.Tensor] = []
        for scale in (1.0, 1e4):
            load_flat(scene.model, before)
            learner = Learner(scene.model, AdamW(lr=1e-2, eps=1.0, max_grad_norm=1e-3, weight_decay=0.0))
            learner.step(gradient_of(scene, get("GRPO").at(0.0)) * scale, 0.0)
            steps.append(flat_weights(scene.model) - before)
        torch.testing.assert_close(steps[0], steps[1], rtol=1e-3, atol=1e-7)
        assert steps[0].abs().max() > 0
    finally:
        load_flat(scene.model, before)


@pytest.mark.parametrize("optimizer", [AdamW(lr=1e-2), Muon(lr=0.02, adamw=AdamW(lr=1e-2))])
def test_a_restored_learner_goes_on_bit_for_bit(scene: Scene, optimizer: Optimizer) -> None:
    before, gradient = flat_weights(scene.model), gradient_of(scene, get("GRPO").at(0.0))
    try:
        learner = Learner(scene.model, optimizer)
        for step in range(3):
            learner.step(gradient, step / 5)
        middle, disk = flat_weights(scene.model), io.BytesIO()
        torch.save(learner.state(), disk)
        learner.step(gradient * 2, 0.8)
        expected = flat_weights(scene.model)
        load_flat(scene.model, middle)
        again = Learner(scene.model, optimizer)
        disk.seek(0)
        again.restore(torch.load(disk, weights_only=True))
        again.step(gradient * 2, 0.8)
        assert torch.equal(flat_weights(scene.model), expected)
        assert (again.version, again.skipped) == (4, 0)
    finally:
        load_flat(scene.model, before)


def test_the_state_of_another_optimizer_is_a_sentence(scene: Scene) -> None:
    muon = Learner(scene.model, Muon(adamw=AdamW()))
    with pytest.raises(AlgorithmError, match="another optimizer"):
        Learner(scene.model, AdamW()).restore(muon.state())


def test_the_examples_of_a_step_do_not_depend_on_what_was_asked_before() -> None:
    epochs = Epochs(7, batch=3, seed=4, steps=1_000_000)
    forward = [epochs[step].tolist() for step in range(50)]
    assert [Epochs(7, batch=3, seed=4, steps=99)[step].tolist() for step in range(50)] == forward
    assert [epochs[step].tolist() for step in reversed(range(50))] == forward[::-1]
    rounds = [number for step in forward for number in step]
    assert all(sorted(rounds[k : k + 7]) == list(range(7)) for k in range(0, 147, 7))
    # The order that earlier versions drew: one permutation after the other from one generator.
    rng = np.random.default_rng([4, 1])
    assert rounds[:14] == [*rng.permutation(7).tolist(), *rng.permutation(7).tolist()]
    with pytest.raises(IndexError):
        _ = Epochs(7, batch=3, seed=4, steps=3)[3]

"""Probes: what a model says of the tokens of a batch, as columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from agentrl.errors import MissingColumnError
from agentrl.learn.algorithm import Algorithm
from agentrl.learn.forward import Streams
from agentrl.learn.gradient import flat_weights, load_flat, policy_gradient
from agentrl.learn.loss import prepare
from agentrl.learn.penalty import Entropy, KlToReference
from agentrl.learn.probes import (
    current_logprob,
    entropy,
    measure,
    merged,
    reference_logprob,
    streams_of,
    vocabulary_logprob,
)
from agentrl.learn.weight import TruncatedImportance
from agentrl.policy.base import Sampling
from agentrl.policy.build import ModelShape, build_model, train_tokenizer
from agentrl.policy.hf import HfPolicy
from agentrl.policy.render import Markup
from agentrl.recipes import GIGPO_VERL_AGENT, GRPO
from agentrl.rollout import Limits, Play, Stock, assign_groups, collect
from agentrl.testing import WordWorld
from agentrl.trajectory import Trajectory
from agentrl.trajectory.batch import (
    ENTROPY,
    GOLD_LOGPROB,
    LOGPROB_BEFORE_UPDATE,
    REFERENCE_LOGPROB,
    VALUE,
    VOCABULARY_LOGPROB,
    Batch,
    Column,
)
from agentrl.trajectory.pack import pack
from agentrl.world import PlainText

torch.set_num_threads(1)
RENDERER = Markup(train_tokenizer(["Say lamp. It is over. apple drawer"] * 9, vocabulary=300))
SHAPE = ModelShape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=48, context=128)
MODEL = build_model(RENDERER.tokenizer, SHAPE, seed=1)


def sampled(temperature: float = 1.0, top_p: float = 1.0) -> Batch:
    policy = HfPolicy(MODEL, RENDERER, slots=6, context=128)
    play = Play(policy, PlainText(), Sampling(temperature, top_p, 6), Limits(turn_tokens=6))
    items = collect(Stock(WordWorld), play, assign_groups("train", range(2), members=4, seed=0))
    return pack([item for item in items if isinstance(item, Trajectory)])


BATCH = sampled()


def test_the_probes_give_what_was_drawn() -> None:
    assert_allclose(reference_logprob(BATCH, MODEL)[REFERENCE_LOGPROB], BATCH.logprob, atol=1e-5)
    assert_allclose(current_logprob(BATCH, MODEL)[LOGPROB_BEFORE_UPDATE], BATCH.logprob, atol=1e-5)
    hot = sampled(temperature=1.4)
    assert_allclose(
        current_logprob(hot, MODEL, temperature=1.4)[LOGPROB_BEFORE_UPDATE], hot.logprob, atol=1e-5
    )
    assert np.abs(current_logprob(hot, MODEL)[LOGPROB_BEFORE_UPDATE] - hot.logprob).max() > 0.05


def test_the_entropy_is_the_mean_surprise() -> None:
    # Over many draws -log p averages to the entropy of the distributions drawn from.
    measured = entropy(BATCH, MODEL)[ENTROPY]
    assert ((measured >= 0) & (measured <= np.log(MODEL.config.vocab_size))).all()
    surprise = -BATCH.logprob
    error = (surprise - measured).std() / np.sqrt(len(surprise))
    assert abs((surprise - measured).mean()) < 4 * error


def test_the_mean_over_the_vocabulary_is_that_of_every_logit() -> None:
    measured = vocabulary_logprob(BATCH, MODEL)[VOCABULARY_LOGPROB]
    every = Streams.of(BATCH)
    sequences, targets = every.sequences(np.arange(len(every)))
    with torch.no_grad():
        expected = [
            MODEL(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0].log_softmax(-1).mean(-1)
            for ids in sequences
        ]
    found = [each[positions - 1] for each, positions in zip(expected, targets, strict=True)]
    assert_allclose(measured, torch.cat(found), atol=1e-5)


def test_shares_in_any_order_are_the_whole() -> None:
    streams = streams_of(BATCH)
    whole = merged(BATCH, [measure(BATCH, MODEL, streams)])
    shares = [measure(BATCH, MODEL, streams[k::3], micro_tokens=60) for k in (2, 0, 1)]
    assert_allclose(merged(BATCH, shares).logprob, whole.logprob, atol=1e-5)
    assert_allclose(merged(BATCH, shares).entropy, whole.entropy, atol=1e-5)


def test_an_equal_reference_costs_nothing_and_moves_nothing() -> None:
    # d = 0 at every token, so that k3 = exp(d) - 1 - d and its slope exp(d) - 1 are 0.
    algorithm = Algorithm(
        advantage=GIGPO_VERL_AGENT.advantage, penalties=(KlToReference(1.0, "k3"),), surrogate=no_objective
    )
    for spread, largest in ((0.0, 1e-9), (0.05, 1.0)):
        kept = flat_weights(MODEL)
        noise = torch.randn(kept.shape, generator=torch.manual_seed(0))
        load_flat(MODEL, kept + spread * noise)
        batch = reference_logprob(BATCH, MODEL)
        load_flat(MODEL, kept)
        inputs = prepare(algorithm, batch, algorithm.credit(batch))
        part = policy_gradient(MODEL, algorithm, batch, inputs, streams_of(batch))
        term, norm = part.parts["KlToReference"], float(part.gradient.norm())
        assert 0 <= term <= largest
        assert (norm < 1e-5) == (spread == 0)


def no_objective(
    log_ratio: torch.Tensor,
    advantage: torch.Tensor,
    logprob: torch.Tensor,
    /,
) -> torch.Tensor:
    """Nothing to maximise, so that only penalties are left."""
    return 0.0 * log_ratio


def test_a_truncated_draw_needs_the_learners_own_log_probability() -> None:
    batch = sampled(top_p=0.5)
    streams = streams_of(batch)

    def gap(given: Batch) -> float:
        inputs = prepare(GRPO, given, GRPO.credit(given))
        health = policy_gradient(MODEL, GRPO, given, inputs, streams).health
        assert health is not None
        return health.figures()["logprob_gap_max"]

    # What was drawn was renormalised over half of the mass: too likely by up to log 2.
    assert 0.3 < gap(batch) < np.log(2) + 1e-3
    assert gap(current_logprob(batch, MODEL)) < 1e-5


def test_entropy_is_always_measured_and_costs_no_gradient() -> None:
    plain = replace(GRPO, token_weight=TruncatedImportance(2.0))
    rewarded = replace(plain, penalties=(Entropy(0.0),))
    batch = current_logprob(BATCH, MODEL)
    parts = [
        policy_gradient(MODEL, each, batch, prepare(each, batch, each.credit(batch)), streams_of(batch))
        for each in (plain, rewarded)
    ]
    for part in parts:
        assert part.health is not None
        assert part.health.figures()["entropy"] > 0
    assert_allclose(parts[0].gradient, parts[1].gradient, atol=1e-7)


@pytest.mark.parametrize(("column", "repair"), [(VALUE, r"critic=Critic\(\)"), (GOLD_LOGPROB, "gold_belief")])
def test_a_column_that_is_missing_names_its_repair(column: Column, repair: str) -> None:
    with pytest.raises(MissingColumnError, match=repair) as caught:
        BATCH[column]
    assert caught.value.column == column

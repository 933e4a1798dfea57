"""The belief in a gold answer, in one pass over the tree: the turn-by-turn computation says the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.testing import assert_allclose

from agentrl.learn import probes
from agentrl.learn.belief import Answer, answers_of, gold_belief, with_beliefs
from agentrl.learn.forward import Layout, predict, rows_of
from agentrl.learn.probes import measure, merged, streams_of
from agentrl.policy.base import Sampling
from agentrl.policy.build import ModelShape, build_model, train_tokenizer
from agentrl.policy.hf import HfPolicy
from agentrl.policy.render import Markup
from agentrl.rollout import Limits, Play, Stock, assign_groups, collect
from agentrl.testing import WordWorld
from agentrl.trajectory import Trajectory
from agentrl.trajectory.batch import GOLD_LOGPROB, GOLD_LOGPROB_FINAL, Batch
from agentrl.trajectory.pack import pack, unpack
from agentrl.world import PlainText, Tags

if TYPE_CHECKING:
    import pytest
    from transformers import PreTrainedModel

torch.set_num_threads(1)
RENDERER = Markup(train_tokenizer(["Say lamp. It is over. apple drawer the last word"] * 9, vocabulary=300))
SHAPE = ModelShape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=48, context=160)
MODEL = build_model(RENDERER.tokenizer, SHAPE, seed=1)


class LastWord(WordWorld):
    """A world that knows what it will ask for in the end."""

    def gold(self) -> str | None:
        """Two words, or nothing for every third task."""
        return None if self.task.index % 3 == 2 else f"apple drawer {self.task.index}"


def played() -> list[Trajectory]:
    policy = HfPolicy(MODEL, RENDERER, slots=6, context=160)
    play = Play(policy, PlainText(), Sampling(max_tokens=6), Limits(turn_tokens=6))
    items = collect(
        Stock(lambda: LastWord(length=4)), play, assign_groups("train", range(3), members=3, seed=0)
    )
    return [item for item in items if isinstance(item, Trajectory)]


TRAJECTORIES = played()


def windowed(trajectory: Trajectory) -> Trajectory:
    """The same with a new stream at its third turn."""
    first, second, third, *rest = trajectory.turns
    prompt = np.concatenate([first.prompt_tokens[:2], third.prompt_tokens])
    return replace(trajectory, turns=(first, second, replace(third, fresh=True, prompt_tokens=prompt), *rest))


def turn_by_turn(batch: Batch, answers: tuple[Answer | None, ...], model: PreTrainedModel) -> list[float]:
    """Re-read the stream for every turn; then once more with the final observation."""
    found: list[float] = []
    for e, answer in enumerate(answers):
        stream: list[int] = []
        for s in range(batch.turn_start[e], batch.turn_start[e + 1]):
            tokens = batch.token[batch.token_start[s] : batch.token_start[s + 1]]
            sampled = batch.sampled[batch.token_start[s] : batch.token_start[s + 1]]
            stream = [*([] if batch.fresh[s] else stream), *tokens[~sampled].tolist()]
            found.append(said(model, stream, answer))
            stream += tokens[sampled].tolist()
        ending = [] if answer is None else answer.ending.tolist()
        found.append(said(model, [*stream, *ending], answer))
    return found


def said(model: PreTrainedModel, history: list[int], answer: Answer | None) -> float:
    if answer is None:
        return float("nan")
    sequence = np.array([*history, *answer.lead, *answer.tokens])
    targets = np.arange(len(sequence) - len(answer.tokens), len(sequence))
    with torch.no_grad():
        return float(predict(model, rows_of([sequence], [targets])).logprob.mean())


def test_one_pass_says_what_turn_by_turn_reading_says() -> None:
    batch = pack([*TRAJECTORIES, *(windowed(item) for item in TRAJECTORIES[:2])])
    answers = answers_of(batch, RENDERER, Tags(), lead="so ")
    assert [answer is None for answer in answers] == [False] * 6 + [True] * 3 + [False] * 2
    told = gold_belief(batch, MODEL, answers)
    expected = turn_by_turn(batch, answers, MODEL)
    found: list[float] = []
    for e in range(batch.num_trajectories):
        found += told[GOLD_LOGPROB][batch.turn_start[e] : batch.turn_start[e + 1]].tolist()
        found.append(float(told[GOLD_LOGPROB_FINAL][e]))
    assert_allclose(found, expected, atol=1e-5)
    assert np.isfinite(found).sum() == 8 * 5
    assert np.nanstd(found) > 1e-3


def test_a_blank_before_the_answer_belongs_to_its_first_word() -> None:
    (answer, *_) = answers_of(pack(TRAJECTORIES[:1]), RENDERER, Tags())
    assert answer is not None
    gold = str(TRAJECTORIES[0].gold)
    assert RENDERER.decode(answer.lead.tolist()) == "<answer>"
    assert RENDERER.decode(answer.tokens.tolist()) == f" {gold}"
    written = RENDERER.encode(Tags().write_answer(gold)).tolist()
    assert written[: len(answer.lead) + len(answer.tokens)] == [
        *answer.lead.tolist(),
        *answer.tokens.tolist(),
    ]


def test_everything_is_measured_in_one_pass_and_in_any_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pack(TRAJECTORIES)
    answers = answers_of(batch, RENDERER, PlainText())
    calls: list[int] = []

    def counted(model: PreTrainedModel, layout: Layout, **how: object) -> object:
        calls.append(layout.tokens)
        return predict(model, layout, **how)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(probes, "predict", counted)
    whole = measure(batch, MODEL, streams_of(batch), answers=answers)
    assert len(calls) == 1
    # Every stream once, and for each turn the answer with its lead; no history is read again.
    leaves = sum(5 * (len(a.lead) + len(a.tokens)) + len(a.ending) for a in answers if a is not None)
    assert calls[0] <= batch.num_tokens + leaves
    plain = measure(batch, MODEL, streams_of(batch))
    assert_allclose(whole.logprob, plain.logprob, atol=1e-5)
    assert_allclose(whole.entropy, plain.entropy, atol=1e-5)
    shares = [
        measure(batch, MODEL, streams_of(batch)[k::2], answers=answers, micro_tokens=90) for k in (1, 0)
    ]
    one, two = (with_beliefs(batch, [merged(batch, each).beliefs]) for each in ([whole], shares))
    assert_allclose(one[GOLD_LOGPROB], two[GOLD_LOGPROB], atol=1e-5)
    assert_allclose(one[GOLD_LOGPROB_FINAL], two[GOLD_LOGPROB_FINAL], atol=1e-5)


def test_a_question_too_long_for_the_model_is_left_out() -> None:
    batch = pack(TRAJECTORIES[:1])
    ids = np.zeros(0, np.int32)
    answers = (Answer(ids, np.full(150, 5, np.int32), ids),)
    told = gold_belief(batch, MODEL, answers)
    assert np.isnan(told[GOLD_LOGPROB]).any()
    assert np.isnan(told[GOLD_LOGPROB_FINAL]).all()


def test_gold_travels_with_the_trajectory() -> None:
    assert [item.gold for item in TRAJECTORIES] == ["apple drawer 0"] * 3 + ["apple drawer 1"] * 3 + [
        None
    ] * 3
    batch = pack(TRAJECTORIES)
    assert [item.gold for item in unpack(batch)] == [item.gold for item in TRAJECTORIES]

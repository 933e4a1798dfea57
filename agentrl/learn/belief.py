"""Belief in the gold answer: its log-probability at the start of each turn, measured in one pass.

Each question is a leaf on a turn boundary: the stream up to there, a lead such as `<answer>`, and the answer.
All leaves of a trajectory share its one stream, so a pass costs the stream and the leaves, not the stream
once for each turn. Source: IGPO (GuoqingWang1/IGPO); it re-reads the whole history at every turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agentrl.trajectory.batch import GOLD_LOGPROB, GOLD_LOGPROB_FINAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from agentrl.learn.forward import Index, Streams, Tokens
    from agentrl.policy.render import Renderer
    from agentrl.trajectory import IntArray
    from agentrl.trajectory.batch import Batch
    from agentrl.world.parsing import Protocol

Answers = tuple["Answer | None", ...]
"""One for each trajectory of a batch, None where there is no gold answer."""


@dataclass(frozen=True, eq=False)
class Answer:
    """A gold answer as tokens.

    Attributes:
        lead: what the agent would write before it; `tokens`: the answer itself, whose belief is measured.
        ending: the prompt that shows the final observation, before which the last belief is measured.
    """

    lead: IntArray
    tokens: IntArray
    ending: IntArray


def answers_of(batch: Batch, renderer: Renderer, protocol: Protocol, lead: str = "") -> Answers:
    """Return the gold answers that the environment gave, as the protocol writes an answer.

    Args:
        batch: from `pack`; `lead`: text that comes before what the protocol writes, such as the end of a
            thought.
    """
    start = batch.sample_start[batch.turn_start]
    drawn = batch.token[batch.sampled]
    found: list[Answer | None] = []
    for row, detail in enumerate(batch.trajectory_details):
        if detail.gold is None or start[row] == start[row + 1]:
            found.append(None)
            continue
        closed = int(drawn[start[row + 1] - 1]) in renderer.stop_tokens
        ending = renderer.extend(detail.final_observation, closed=closed)
        # A blank before the answer belongs to its first word, as in what a model writes.
        before = lead + _before_answer(protocol, detail.gold)
        shown = before.rstrip(" ")
        answer = before[len(shown) :] + detail.gold
        found.append(Answer(renderer.encode(shown), renderer.encode(answer), ending))
    return tuple(found)


def _before_answer(protocol: Protocol, gold: str) -> str:
    try:
        return protocol.write_answer(gold).partition(gold)[0]
    except NotImplementedError:
        return ""


@dataclass(frozen=True, eq=False)
class Leaves:
    """The questions of some streams. Axes: Q questions.

    Attributes:
        sequences: the tokens of each up to the answer's end; `targets`: positions of the answer's tokens.
        turn: (Q,) turn at whose start each stands, -1 for one after a trajectory's end; `trajectory`: (Q,).
    """

    sequences: list[Tokens]
    targets: list[Index]
    turn: Index
    trajectory: Index


def leaves_of(every: Streams, streams: Index, answers: Answers, most: int) -> Leaves:
    """Put a question at the start of each turn of the streams, and one after the end of each trajectory.

    Args:
        most: tokens that the model can read; a question that would be longer is left out.
    """
    batch, turns = every.batch, every.batch.stream_turn_start
    sequences: list[Tokens] = []
    targets: list[Index] = []
    where: list[tuple[int, int]] = []

    def ask(history: list[IntArray], answer: Answer, turn: int, row: int) -> None:
        sequence = np.concatenate([*history, answer.lead, answer.tokens])
        if len(answer.tokens) and len(sequence) <= most:
            sequences.append(sequence)
            targets.append(np.arange(len(sequence) - len(answer.tokens), len(sequence)))
            where.append((turn, row))

    for stream in streams.tolist():
        begin, end = every.token_start[stream], every.token_start[stream + 1]
        row = int(batch.trajectory_of_turn[turns[stream]]) if turns[stream] < turns[stream + 1] else 0
        answer = answers[row] if len(answers) else None
        if answer is None:
            continue
        for turn in range(int(turns[stream]), int(turns[stream + 1])):
            drawn = int(batch.sample_start[turn + 1] - batch.sample_start[turn])
            ask([batch.token[begin : batch.token_start[turn + 1] - drawn]], answer, turn, row)
        if turns[stream + 1] == batch.turn_start[row + 1]:
            ask([batch.token[begin:end], answer.ending], answer, -1, row)
    place = np.array(where, np.int64).reshape(-1, 2)
    return Leaves(sequences, targets, place[:, 0], place[:, 1])


@dataclass(frozen=True, eq=False)
class Beliefs:
    """(Q,) mean log-probability of the answers' tokens, in nats, at the places of `Leaves`."""

    turn: Index
    trajectory: Index
    logprob: NDArray[np.float32]


def no_beliefs() -> Beliefs:
    """Return the beliefs of no question."""
    return Beliefs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def with_beliefs(batch: Batch, shares: Sequence[Beliefs]) -> Batch:
    """Return the batch with `GOLD_LOGPROB` and `GOLD_LOGPROB_FINAL`; NaN where there was no question."""
    starts = np.full(batch.num_turns, np.nan, np.float32)
    ends = np.full(batch.num_trajectories, np.nan, np.float32)
    for share in shares:
        final = share.turn < 0
        starts[share.turn[~final]] = share.logprob[~final]
        ends[share.trajectory[final]] = share.logprob[final]
    return batch.with_column(GOLD_LOGPROB, starts).with_column(GOLD_LOGPROB_FINAL, ends)


def gold_belief(
    batch: Batch,
    model: PreTrainedModel,
    answers: Answers,
    *,
    temperature: float = 1.0,
    micro_tokens: int = 8192,
) -> Batch:
    """Return the batch with `GOLD_LOGPROB` and `GOLD_LOGPROB_FINAL`.

    The value at a turn is the mean log-probability of the answer's tokens there, under `model` at
    `temperature`, were the agent to write its answer now; the final one stands after the last observation.

    Args:
        answers: (E,) of `answers_of`, or tokens of your own.
    """
    from agentrl.learn.probes import measure, streams_of

    found = measure(
        batch, model, streams_of(batch), answers=answers, temperature=temperature, micro_tokens=micro_tokens
    )
    return with_beliefs(batch, [found.beliefs])

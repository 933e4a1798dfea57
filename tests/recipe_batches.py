"""Random ragged batches that hold everything any recipe reads: the common ground of grid and parity."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from agentrl.credit.ledger import IMPROVEMENT, Ledger
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
)
from agentrl.trajectory.pack import pack
from agentrl.trajectory.turn import StopReason, ToolCall, Trajectory, Turn

ROOMS = ("You stand in the long hall, at door 0.", "You stand in the long hall, at door 1.", "A cellar.")
"""Two places look alike, which only similarity of texts can tell."""


def turn(random: np.random.Generator, key: int, reward: float, *, first: bool) -> Turn:
    """One turn: a place, an action of two, sometimes refused, with calls of which some fail."""
    count = int(random.integers(1, 5))
    calls = tuple(
        ToolCall("look", "{}", error="no" if random.random() > 0.6 else None)
        for _ in range(int(random.integers(0, 3)))
    )
    action = str(random.choice(["go", "take"]))
    return Turn(
        prompt_tokens=np.arange(3, dtype=np.int32),
        tokens=random.integers(0, 9, count).astype(np.int32),
        logprobs=-np.abs(random.normal(-0.6, 0.7, count)).astype(np.float32),
        observation=ROOMS[key], text="\\boxed{1}" if random.random() > 0.1 else "hm", action=action,
        reward=reward, valid=bool(random.random() > 0.2), observation_key=key, state_key=key + key % 2,
        rewards={"flawed": 0.5 * float(reward > 0 and random.random() > 0.5)}, tool_calls=calls,
        fresh=bool(not first and random.random() > 0.8),
    )  # fmt: skip


@functools.cache
def make_batch(members: int = 4, groups: int = 2, seed: int = 3, *, won: bool | None = None) -> Batch:
    """Return a batch; with `won` every trajectory earned the same, 1 or 0."""
    random = np.random.default_rng(seed)
    trajectories = []
    for number in range(members * groups):
        good = number % members == 0 or random.random() > 0.7
        good = good if won is None else won
        turns = [
            turn(random, int(random.integers(0, 3)), 0.0, first=place == 0)
            for place in range(int(random.integers(0, 4)))
        ]
        turns.append(turn(random, 0, float(good), first=not turns))
        group = str(number // members)
        episode = Trajectory(
            id=str(number), environment="test", task=f"task {group}", group=group, turns=tuple(turns),
            stop=StopReason.MAX_TURNS if random.random() > 0.7 else StopReason.TERMINATED,
            member=number % members, success=good, final_observation_key=0, domain="test",
        )  # fmt: skip
        trajectories.append(episode)
    return _measured(pack(trajectories), random)


def _measured(batch: Batch, random: np.random.Generator) -> Batch:
    """Fill the columns that recipes read, two roles, a branch in each group, and a past.

    The first and the third group are replayed.
    """
    sizes = {"N": batch.num_sampled, "S": batch.num_turns, "E": batch.num_trajectories}
    for column in (ENTROPY, VALUE, GOLD_LOGPROB, GOLD_LOGPROB_FINAL):
        batch = batch.with_column(column, random.uniform(-1, 0, sizes[column.axis]).astype(np.float32))
    reference = random.normal(-1, 0.3, batch.num_sampled).astype(np.float32)
    batch = batch.with_column(REFERENCE_LOGPROB, reference)
    vocabulary = np.random.default_rng(sizes["N"]).normal(-3, 0.3, sizes["N"]).astype(np.float32)
    batch = batch.with_column(VOCABULARY_LOGPROB, vocabulary)
    batch = batch.with_column(SPAN, random.integers(-1, 1, sizes["N"]).astype(np.int32))
    place = np.arange(batch.num_sampled) - batch.sample_start[batch.turn_of_sample]
    batch = batch.with_column(SENTENCE, (place // 2).astype(np.float32))
    parent, branch = batch.parent.copy(), batch.branch_turn.copy()
    for group in range(int(batch.group.max()) + 1):
        rows = np.flatnonzero(batch.group == group)
        if len(rows) > 2:
            parent[rows[1:3]], branch[rows[1:3]] = rows[0], 1
    batch = replace(
        batch, span_roles=("think",), parent=parent, branch_turn=branch,
        role=np.where(random.random(sizes["S"]) > 0.4, "main", "helper"),
    )  # fmt: skip
    past = Ledger().record(replace(batch, reward=batch.reward * 0.5))
    rise = np.where(batch.group == 0, -0.7, np.where(batch.group == 2, 1.4, np.nan)).astype(np.float32)
    return past.annotate(batch).with_column(IMPROVEMENT, rise)

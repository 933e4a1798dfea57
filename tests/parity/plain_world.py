"""A batch as plain objects, for a second implementation of every recipe: no arrays, loops only."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from agentrl.credit.ledger import IMPROVEMENT, LEAST_CALLS, PAST_MEAN, ROLE_BASELINE
from agentrl.trajectory.batch import (
    CURRENT_VOCABULARY_LOGPROB,
    ENTROPY,
    GOLD_LOGPROB,
    GOLD_LOGPROB_FINAL,
    REFERENCE_LOGPROB,
    SENTENCE,
    SPAN,
    VALUE,
    VOCABULARY_LOGPROB,
    reward_component,
)

if TYPE_CHECKING:
    import torch

    from agentrl.trajectory.batch import Batch

Item = TypeVar("Item")
Group = TypeVar("Group", bound=Hashable)


@dataclass(eq=False)
class Token:
    """One sampled token."""

    now: torch.Tensor
    old: float
    reference: float
    entropy: float
    value: float
    plan: bool
    turn: Turn
    id: int
    sentence: float
    vocabulary: float
    vocabulary_now: float
    advantage: float = 0.0
    weight: float = 0.0

    @property
    def traj(self) -> Traj:
        return self.turn.traj

    @property
    def gap(self) -> torch.Tensor:
        return self.now - self.old


@dataclass(eq=False)
class Turn:
    """One turn."""

    traj: Traj
    index: int
    environment_reward: float
    flawed: float
    valid: bool
    key: int
    state: int
    role: str
    role_baseline: float
    calls: int
    errors: int
    belief: float
    text: str
    action: str
    observation: str
    fresh: bool
    reward: float = 0.0
    tokens: list[Token] = field(default_factory=list)


@dataclass(eq=False)
class Traj:
    """One trajectory; `number` is its row."""

    number: int
    group: int
    won: bool
    cut: bool
    task: str
    member: int
    past_mean: float
    least_calls: float
    belief_after: float
    last_key: int
    improvement: float
    parent: Traj | None = None
    branch: int = -1
    turns: list[Turn] = field(default_factory=list)

    @property
    def total(self) -> float:
        return sum(turn.reward for turn in self.turns)

    @property
    def tokens(self) -> list[Token]:
        return [token for turn in self.turns for token in turn.tokens]


@dataclass(eq=False)
class World:
    """All trajectories of a batch."""

    trajs: list[Traj]

    @property
    def turns(self) -> list[Turn]:
        return [turn for traj in self.trajs for turn in traj.turns]

    @property
    def tokens(self) -> list[Token]:
        return [token for turn in self.turns for token in turn.tokens]

    def groups(self) -> list[list[Traj]]:
        return list(grouped(self.trajs, lambda traj: traj.group).values())


def grouped(items: Iterable[Item], key: Callable[[Item], Group]) -> dict[Group, list[Item]]:
    found: dict[Group, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def deviation(values: Iterable[float], ddof: int = 1) -> float:
    listed = list(values)
    middle = mean(listed)
    return math.sqrt(sum((value - middle) ** 2 for value in listed) / max(len(listed) - ddof, 1))


def median(values: Iterable[float]) -> float:
    ranked = sorted(values)
    return (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2


def world_of(batch: Batch, now: torch.Tensor) -> World:
    """Read a batch row by row; `now` (N,) is the current log-probability, with gradient."""
    column = {
        name: batch[name].tolist()
        for name in (
            PAST_MEAN, LEAST_CALLS, ROLE_BASELINE, IMPROVEMENT, ENTROPY, VALUE, REFERENCE_LOGPROB,
            GOLD_LOGPROB, GOLD_LOGPROB_FINAL, SENTENCE, VOCABULARY_LOGPROB, CURRENT_VOCABULARY_LOGPROB,
            reward_component("flawed"),
        )
    }  # fmt: skip
    span, drawn = batch[SPAN].tolist(), batch.token[batch.sampled].tolist()
    trajs = []
    for e in range(batch.num_trajectories):
        traj = Traj(
            e, int(batch.group[e]), bool(batch.success[e] == 1), bool(batch.stop[e] != 0),
            str(batch.task[e]), int(batch.member[e]), column[PAST_MEAN][e], column[LEAST_CALLS][e],
            column[GOLD_LOGPROB_FINAL][e], int(batch.final_observation_key[e]),
            column[IMPROVEMENT][e],
        )  # fmt: skip
        for s in range(int(batch.turn_start[e]), int(batch.turn_start[e + 1])):
            detail = batch.turn_details[s]
            turn = Turn(
                traj, s - int(batch.turn_start[e]), float(batch.reward[s]),
                column[reward_component("flawed")][s], bool(batch.valid[s]), int(batch.observation_key[s]),
                int(batch.state_key[s]), str(batch.role[s]), column[ROLE_BASELINE][s],
                int(batch.tool_calls[s]), int(batch.tool_errors[s]), column[GOLD_LOGPROB][s], detail.text,
                detail.action, detail.observation, bool(batch.fresh[s]), float(batch.reward[s]),
            )  # fmt: skip
            traj.turns.append(turn)
            for n in range(int(batch.sample_start[s]), int(batch.sample_start[s + 1])):
                turn.tokens.append(
                    Token(
                        now[n],
                        float(batch.logprob[n]),
                        column[REFERENCE_LOGPROB][n],
                        column[ENTROPY][n],
                        column[VALUE][n],
                        span[n] == 0,
                        turn,
                        drawn[n],
                        column[SENTENCE][n],
                        column[VOCABULARY_LOGPROB][n],
                        column[CURRENT_VOCABULARY_LOGPROB][n],
                    )
                )
        trajs.append(traj)
    for e, traj in enumerate(trajs):
        if batch.parent[e] >= 0:
            traj.parent, traj.branch = trajs[int(batch.parent[e])], int(batch.branch_turn[e])
    return World(trajs)

"""Made-up trajectories with every field filled, for tests and benchmarks."""

from __future__ import annotations

import numpy as np

from agentrl.trajectory.turn import Span, StopReason, ToolCall, Trajectory, Turn, TurnKind, digest


def make_trajectories(
    groups: int = 2,
    members: int = 2,
    *,
    turns: int = 3,
    tokens: int = 8,
    seed: int = 0,
    measures: bool = True,
) -> list[Trajectory]:
    """Return groups * members trajectories of up to `turns` turns with up to `tokens` sampled tokens each.

    Equal arguments give equal trajectories. Keys repeat across the members of a group, so that anchors exist.

    Args:
        groups, members: how many groups, and how many members each.
        turns, tokens: upper bounds, at least 1.
        seed: of the generator.
        measures: whether turns carry `entropy`, `gold_logprob` and trajectories `gold_logprob_final`.

    >>> [len(trajectory.turns) for trajectory in make_trajectories(turns=3)]
    [3, 3, 2, 3]
    """
    rng = np.random.default_rng(seed)
    return [
        _trajectory(rng, f"task-{group}", member, turns, tokens, measures)
        for group in range(groups)
        for member in range(members)
    ]


def _trajectory(
    rng: np.random.Generator,
    task: str,
    member: int,
    turns: int,
    tokens: int,
    measures: bool,
) -> Trajectory:
    count = int(rng.integers(1, turns + 1))
    made = tuple(_turn(rng, task, index, tokens, measures) for index in range(count))
    success = bool(rng.random() < 0.5)
    return Trajectory(
        id=f"{task}/{member}",
        environment="agentrl/Made-v0",
        task=task,
        group=task,
        turns=made,
        stop=StopReason.TERMINATED if success else StopReason.MAX_TURNS,
        member=member,
        seed=int(rng.integers(1 << 31)),
        success=success,
        final_observation="the end",
        final_observation_key=digest((task, "the end")),
        domain="made",
        system="Go places.",
        metrics={"gold_logprob_final": float(-rng.random())} if measures else {},
    )


def _turn(rng: np.random.Generator, task: str, index: int, tokens: int, measures: bool) -> Turn:
    size = int(rng.integers(1, tokens + 1))
    place = int(rng.integers(3))
    reward = float(rng.integers(2))
    return Turn(
        prompt_tokens=rng.integers(0, 1000, int(rng.integers(1, tokens + 1)), dtype=np.int32),
        tokens=rng.integers(0, 1000, size, dtype=np.int32),
        logprobs=-rng.random(size, dtype=np.float32),
        observation=f"you are at place {place}",
        text=f"<think>go</think> go {index}",
        action=f"go {index}",
        reward=reward,
        rewards={"goal": reward},
        kind=TurnKind.OK,
        observation_key=digest((task, place)),
        state_key=digest((task, place, index)),
        tool_calls=(
            ToolCall("go", f'{{"to": {index}}}', result="gone", start=size // 2, end=size, cost=0.5),
        ),
        spans=(Span("think", 0, size // 2), Span("tool_call", size // 2, size)),
        measures={"gold_logprob": float(-rng.random())} if measures else {},
        token_measures={"entropy": rng.random(size, dtype=np.float32)} if measures else {},
    )

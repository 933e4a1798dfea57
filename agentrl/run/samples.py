"""Whole trajectories chosen for the report, with the credit that each turn received."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agentrl.credit.advantage import step_peers
from agentrl.credit.anchors import anchor_groups
from agentrl.credit.peers import same_state
from agentrl.trajectory.batch import KINDS, NO_KEY, STOPS

if TYPE_CHECKING:
    from agentrl.learn.algorithm import Credit
    from agentrl.run.bench import Bench
    from agentrl.trajectory.batch import Batch

GROUPS = 2
"""Groups shown for each step that is sampled."""


def write_samples(bench: Bench, step: int, batch: Batch, credit: Credit) -> None:
    """Append some whole groups, mixed ones first, to `samples.jsonl`.

    Anchors are those in which the algorithm's own step part compares turns; true states without such a part.
    """
    anchors = anchor_groups(batch, step_peers(bench.algorithm.advantage) or same_state)
    sizes = np.bincount(anchors[anchors != NO_KEY], minlength=1)
    for group in _telling_groups(batch):
        for row in np.flatnonzero(batch.group == group)[:8]:
            bench.directory.append("samples.jsonl", _sample(batch, credit, int(row), step, anchors, sizes))


def _telling_groups(batch: Batch) -> list[int]:
    """The groups where successes and failures are most evenly mixed."""
    success = np.bincount(batch.group, batch.success == 1)
    members = np.bincount(batch.group)
    balance = -np.abs(success / np.maximum(members, 1) - 0.5)
    return [int(group) for group in np.argsort(-balance, kind="stable")[:GROUPS]]


def _sample(
    batch: Batch, credit: Credit, row: int, step: int, anchors: np.ndarray, sizes: np.ndarray
) -> dict[str, object]:
    about = batch.trajectory_details[row]
    return {
        "id": about.id,
        "group": about.group,
        "task": str(batch.task[row]),
        "task_type": about.task_type,
        "step": step,
        "member": int(batch.member[row]),
        "parent": int(batch.member[batch.parent[row]]) if batch.parent[row] >= 0 else None,
        "branch_turn": int(batch.branch_turn[row]) if batch.parent[row] >= 0 else None,
        "hint_level": int(batch.hint_level[row]),
        "success": None if batch.success[row] < 0 else bool(batch.success[row]),
        "stop": STOPS[batch.stop[row]].value,
        "reward": float(batch.episode_reward[row]),
        "sandbox_tier": about.sandbox_tier,
        "final_observation": about.final_observation,
        "turns": [
            _turn(batch, credit, turn, anchors, sizes)
            for turn in range(batch.turn_start[row], batch.turn_start[row + 1])
        ],
    }


def _turn(
    batch: Batch, credit: Credit, turn: int, anchors: np.ndarray, sizes: np.ndarray
) -> dict[str, object]:
    detail = batch.turn_details[turn]
    anchor = int(anchors[turn])
    samples = slice(int(batch.sample_start[turn]), int(batch.sample_start[turn + 1]))
    return {
        "observation": detail.observation,
        "text": detail.text,
        "action": detail.action,
        "kind": KINDS[batch.kind[turn]].value,
        "valid": bool(batch.valid[turn]),
        "reward": float(batch.reward[turn]),
        "advantage": float(credit.advantage[turn]),
        "advantage_parts": {name: float(part[turn]) for name, part in credit.parts.items()},
        "anchor": anchor if anchor != NO_KEY else None,
        "anchor_size": int(sizes[anchor]) if anchor != NO_KEY else 0,
        "tokens": samples.stop - samples.start,
        "logprob": float(batch.logprob[samples].sum()),
    }

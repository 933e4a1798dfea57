"""A run directory that was made up, for the tests of reports."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

TYPES = ("pick_and_place", "look_at_obj_in_light", "pick_clean_then_place", "pick_heat_then_place")


def metrics(seed: int = 0) -> list[dict[str, object]]:
    """Rows of a run that learns: warm start, reinforcement learning, control, and evaluations of each."""
    rng = np.random.default_rng(seed)
    rows = [evaluation("warm_start", step, 3.0 * step, 0.05 + 0.26 * step / 60) for step in range(0, 61, 20)]
    for phase, gain in (("rl", 0.42), ("control", 0.08)):
        for step in range(1, 241):
            level = 0.31 + gain * (1 - math.exp(-step / 80))
            cpu = 180 + step * 3.1
            rows.append(
                {
                    "phase": phase,
                    "step": step,
                    "seconds": cpu / 2,
                    "cpu_seconds": cpu,
                    "success": float(np.clip(level + rng.normal(0, 0.07), 0, 1)),
                    "reward": 10 * level,
                    "turns": 18 - 8 * level + rng.normal(0, 0.4),
                    "tokens_per_second": 2100 + rng.normal(0, 60),
                    "loss": rng.normal(0, 0.02),
                    "entropy": 0.9 * math.exp(-step / 200) + rng.normal(0, 0.02),
                    "kl": 0.02 * step / 240 + abs(rng.normal(0, 0.001)),
                    "clip_share": 0.04 + rng.normal(0, 0.006),
                    "logprob_gap": abs(rng.normal(0, 2e-6)),
                    "anchored_share": 0.55 + 0.2 * level + rng.normal(0, 0.02),
                    "anchor_group_size": 3.2 + rng.normal(0, 0.2),
                    "invalid_share": 0.2 * math.exp(-step / 60),
                    "grad_norm": 0.6 + abs(rng.normal(0, 0.2)),
                }
            )
            if step % 30 == 0:
                rows.append(evaluation(phase, step, cpu, level + rng.normal(0, 0.01)))
                rows.append(evaluation(phase, step, cpu, level + 0.04, mode="greedy"))
    return rows


def evaluation(stage: str, step: int, cpu: float, mean: float, mode: str = "sampled") -> dict[str, object]:
    """One evaluation row with an interval."""
    success = {"mean": mean, "low": max(0.0, mean - 0.06), "high": min(1.0, mean + 0.06), "tasks": 134}
    place = {"split": "valid_seen", "policy": "trained", "mode": mode, "stage": stage, "step": step}
    return {"phase": "evaluation", **place, "cpu_seconds": cpu, "success": success}


def summary() -> dict[str, object]:
    """The summary that goes with `metrics`."""
    before = {name: {"success": 0.2 + 0.06 * i, "ci": [0.1, 0.4], "n": 32} for i, name in enumerate(TYPES)}
    after = {name: {"success": 0.6 + 0.09 * i, "ci": [0.5, 0.98], "n": 32} for i, name in enumerate(TYPES)}
    return {
        "warm_start": {"success": 0.312, "ci": [0.25, 0.378], "tasks": 134},
        "final": {"success": 0.709, "ci": [0.64, 0.77], "tasks": 134},
        "control": {"success": 0.39, "ci": [0.32, 0.46], "tasks": 134},
        "lift": {"difference": 0.397, "low": 0.33, "high": 0.46, "p_value": 1e-4, "test": "permutation"},
        "seconds": 462.0,
        "cpu_seconds": 924.0,
        "by_task_type": {"warm_start": before, "final": after},
        "stop_reasons": {
            "warm_start": {"terminated": 41, "max_turns": 80, "max_tokens": 13},
            "final": {"terminated": 102, "max_turns": 30, "max_tokens": 2},
        },
        "environment": "agentrl/Household-v0",
        "algorithm": {"name": "GiGPO", "advantage": "episode + 1.0 * step", "group_size": 8},
        "versions": {"agentrl": "0.1.0", "python": "3.11.7", "numpy": "2.4.6"},
    }


def turn(
    anchor: int | None, action: str, advantage: float, observation: str, **more: object
) -> dict[str, object]:
    """One turn of a sample."""
    return {
        "observation": observation,
        "text": f"<think>I should {action}.</think>\n<action>{action}</action>",
        "action": action,
        "kind": "ok",
        "valid": True,
        "reward": 0.0,
        "advantage": advantage,
        "advantage_parts": {"episode": 0.4, "step": advantage - 0.4},
        "anchor": anchor,
        "anchor_size": 5 if anchor is not None else 1,
        "tokens": 21,
        "logprob": -4.2,
        **more,
    }


def samples() -> list[dict[str, object]]:
    """Two groups of trajectories that meet in some states; anchors are 63-bit digests."""
    kitchen = "You are in the middle of a room. You see a cabinet 1, a countertop 1 and a fridge 1."
    counter = "On the countertop 1, you see a mug 2, a knife 1 and a tomato 1."
    found: list[dict[str, object]] = []
    for group in range(2):
        for member in range(3):
            won = member != 1
            turns = [
                turn(
                    2**62 + 1,
                    "go to countertop 1" if won else "go to fridge 1",
                    0.9 if won else -1.1,
                    kitchen,
                ),
                turn(
                    2**62 + 2 if won else None, "take mug 2 from countertop 1", 0.5 if won else -0.4, counter
                ),
                turn(5, "open fridge 1", -0.2, "Nothing happens.", valid=False, kind="parse_error"),
                turn(
                    None,
                    "put mug 2 in cabinet 1",
                    1.3 if won else -0.8,
                    "You open the cabinet 1. It is empty.",
                ),
            ]
            found.append(
                {
                    "id": f"{group}-{member}",
                    "group": f"group-{group}",
                    "task": "put a mug in cabinet",
                    "task_type": TYPES[group],
                    "step": 240,
                    "member": member,
                    "success": won,
                    "stop": "terminated" if won else "max_turns",
                    "reward": 10.0 if won else 0.0,
                    "sandbox_tier": "landlock" if group else "",
                    "turns": turns,
                }
            )
    return found


def write_run(folder: Path, seed: int = 0) -> Path:
    """Write a whole run directory."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.toml").write_text(
        '[environment]\nid = "agentrl/Household-v0"\n\n[training]\nsteps = 240\n'
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics(seed)))
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples()))
    (folder / "summary.json").write_text(json.dumps(summary()))
    return folder

"""The script that compares recipes runs from end to end, and again without running anything twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scenarios" / "compare.py"
TINY = (
    "model.hidden=32",
    "model.layers=1",
    "rl.tasks=2",
    "rl.members=3",
    "limits.turns=8",
    "evaluation.curve_tasks=4",
)
WARM = (
    "processes=1",
    "rl.steps=0",
    "control.enabled=false",
    "warm_start.demonstrations=20",
    "warm_start.steps=4",
    "evaluation.final_tasks=4",
)


def run(*arguments: str, folder: Path, status: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


@pytest.mark.slow
def test_arms_are_compared_from_one_warm_start(tmp_path: Path) -> None:
    start = "from agentrl.run.cli import main; main()"
    run("-c", start, "train", "household/train", "--out", "warm", *WARM, *TINY, folder=tmp_path)
    asked = [
        str(SCRIPT),
        "household/train",
        "evaluation.final_tasks=4",
        *TINY,
        "--warm-start=warm",
        "--out=credit",
        "--recipes",
        "GRPO",
        "ARPO_HARD rl.members=4",
        "--sampled-tokens=120",
        "--every=1",
        "--rates",
        "1e-4",
        "2e-4",
        "--seeds=1",
        "--tuning-tasks=4",
    ]
    printed = run(*asked, folder=tmp_path)
    table = (tmp_path / "credit" / "compare.md").read_text().strip()
    assert table in printed
    assert "| `GRPO` | 0.000" in table
    assert "| `ARPO_HARD rl.members=4` | 0.000" in table
    arms = json.loads((tmp_path / "credit" / "compare.json").read_text())["arms"]
    drawn = [one["sampled_tokens"] for outcomes in arms.values() for one in outcomes]
    assert all(count >= 120 for count in drawn)
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("credit/*/summary.json")}
    assert len(finished) == 6  # two arms, two rates with the tuning seed and one more run
    assert run(*asked, folder=tmp_path).endswith(table + "\n")
    assert finished == {path: path.stat().st_mtime_ns for path in finished}
    refused = run(*asked[:-1], "--tuning-tasks=3", folder=tmp_path, status=1)
    assert "holds a run with other settings:\n  evaluation.final_tasks: was 4, now 3" in refused


def test_a_recipe_that_does_not_exist_is_refused_before_anything_runs(tmp_path: Path) -> None:
    asked = (str(SCRIPT), "household/train", "--warm-start=warm", "--recipes", "GRPO", "GIGPOO")
    refused = run(*asked, folder=tmp_path, status=1)
    assert "there is no recipe 'GIGPOO'. Did you mean 'GIGPO'?" in refused
    assert not (tmp_path / "runs").exists()

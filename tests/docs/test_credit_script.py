"""The script that compares estimators runs from end to end, and again without running anything twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scenarios" / "household" / "credit.py"
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


def run(*arguments: str, folder: Path) -> str:
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
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_three_estimators_are_compared_from_one_warm_start(tmp_path: Path) -> None:
    start = "from agentrl.run.cli import main; main()"
    run("-c", start, "train", "household/train", "--out", "warm", *WARM, *TINY, folder=tmp_path)
    asked = (
        str(SCRIPT),
        "--warm-start",
        "warm",
        "--out",
        "credit",
        "--steps",
        "2",
        "--every",
        "1",
        "--rates",
        "1e-4",
        "--seeds",
        "1",
        "--tuning-tasks",
        "4",
        "evaluation.final_tasks=4",
        *TINY,
    )
    table = run(*asked, folder=tmp_path)
    for estimator in ("GRPO", "GIGPO", "GIGPO_OBSERVATION"):
        assert f"| {estimator} | 0.0001 |" in table
    assert "valid_seen, 2 updates" in table
    assert (tmp_path / "credit" / "credit.md").read_text().strip() in table
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("credit/*/summary.json")}
    assert len(finished) == 6  # three estimators, the tuning seed and one more
    assert run(*asked, folder=tmp_path) == table
    assert finished == {path: path.stat().st_mtime_ns for path in finished}

"""The comparison with TRL runs and its equalities hold; nothing is asserted about time."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("trl") is None,
    reason="TRL is not installed; `pip install trl==1.16.0` into an environment of its own",
)
def test_both_sides_do_the_same_work(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.bench_trl", "--quick"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "CPU-seconds per trained trajectory" in done.stdout

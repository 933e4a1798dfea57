"""Many sessions side by side leave memory, descriptors and processes as they were."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from agentrl.sandbox.probe import JAILS, missing, probe


@pytest.mark.slow
def test_sessions_side_by_side_are_flat() -> None:
    found = probe()
    if all(missing(found, tier) for tier in JAILS):
        pytest.skip(" ".join(missing(found, JAILS[-1])))
    path = Path(__file__).parents[1] / "benchmarks" / "bench_sandbox.py"
    spec = importlib.util.spec_from_file_location("bench_sandbox", path)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)

    seen: list[tuple[int, int, int]] = bench.soak(16, 1600)

    assert len({descriptors for _, descriptors, _ in seen}) == 1
    assert max(processes for *_, processes in seen) - min(processes for *_, processes in seen) <= 4
    assert seen[-1][0] < 1.05 * seen[0][0]

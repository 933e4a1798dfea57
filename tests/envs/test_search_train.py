"""The search scenario, end to end on a few questions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agentrl.run.cli import run

if TYPE_CHECKING:
    from pathlib import Path

TINY = [
    "processes=1", "model.hidden=32", "model.layers=1", "model.heads=2", "model.kv_heads=1",
    "model.intermediate=48", "warm_start.demonstrations=8", "warm_start.steps=4", "rl.steps=2", "rl.tasks=2",
    "rl.members=2", "limits.turns=3", "evaluation.curve_tasks=2", "evaluation.final_tasks=2",
    "control.steps=2",
]  # fmt: skip


@pytest.mark.parametrize(
    "protocol",
    ["tags", pytest.param("fenced", marks=pytest.mark.slow), pytest.param("json", marks=pytest.mark.slow)],
)
def test_the_scenario_trains_in_every_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    pytest.importorskip("torch", reason="the extra 'train' is not installed")
    out = tmp_path / "run"
    arguments = ["train", "search/train", *TINY, f"environment.protocol={protocol}", "--out", str(out)]
    assert run([*arguments, "--json"]) == 0, capsys.readouterr().err
    summary = json.loads(capsys.readouterr().out)
    assert {"warm_start", "final", "lift", "control"} <= summary.keys()
    assert summary["final"]["infrastructure_failures"] == 0
    assert (out / "report.html").is_file()

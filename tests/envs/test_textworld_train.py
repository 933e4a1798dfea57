"""The TextWorld scenario, end to end on a few games."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import pytest

from agentrl.config import load
from agentrl.run.cli import run
from agentrl.run.scenarios import find
from agentrl.run.settings import TrainSettings
from agentrl_envs.textworld import Custom, TextWorldEnv

if TYPE_CHECKING:
    from pathlib import Path

TINY = [
    "processes=1", "model.hidden=32", "model.layers=1", "model.heads=2", "model.kv_heads=1",
    "model.intermediate=48", "warm_start.demonstrations=4", "warm_start.steps=4", "rl.steps=2", "rl.tasks=2",
    "rl.members=2", "limits.turns=4", "evaluation.curve_tasks=2", "evaluation.final_tasks=2",
    "environment.kwargs.train_games=4", "environment.kwargs.valid_games=2",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("textworld") is None, reason="the extra `textworld` is not installed"
)
def test_the_scenario_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="the extra 'train' is not installed")
    games = tmp_path / "games"
    world = load(TrainSettings, find("textworld/train")).environment
    env = TextWorldEnv(**world.kwargs, folder=games)  # type: ignore[arg-type]  # as the settings file gives them
    assert env.game == Custom(rooms=2, objects=4, quest_length=2)
    for split, count in (("train", 4), ("valid_seen", 2), ("valid_unseen", 2)):
        env.prepare(split, range(count), workers=2)  # one import of the generator for several games

    out = tmp_path / "run"
    arguments = ["train", "textworld/train", *TINY, f"environment.kwargs.folder={games}", "--out", str(out)]
    assert run([*arguments, "--json"]) == 0, capsys.readouterr().err
    summary = json.loads(capsys.readouterr().out)
    assert {"warm_start", "final", "lift"} <= summary.keys()
    assert (out / "report.html").is_file()
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps if row["phase"] == "rl"][-1] == 2
    assert len(list(games.glob("*.z8"))) == 8

"""Plans in a run: every slot takes part, a resumed run ends alike, and processes do not matter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import ConfigError
from agentrl.plan import Recap
from agentrl.run.players import player_of
from agentrl.run.train import train
from agentrl.trajectory.store import read_journal
from tests.agentrl.training import Fails, rl, rows, tiny, weights

if TYPE_CHECKING:
    from pathlib import Path

    from agentrl.run.settings import TrainSettings

PLAN: dict[str, object] = {
    "sampler": {"part": "Weighted", "pool": 12},
    "allocator": {"part": "Proportional", "weight": {"part": "NearRate", "width": 0.1}},
    "brancher": {"part": "Segments", "turns": 1},
    "hint": {"part": "WhenFailing", "share": 0.4, "attempts": 4, "rate": 0.5},
    "turns": {"part": "Staircase", "steps": [2, 3]},
    "memory": {"part": "Recap", "turns": 2},
    "refill": {"part": "Refill", "rounds": 2, "tolerance": 0.3},
    "replay": {"part": "Replay", "age": 3},
}
TIMES = {"seconds", "cpu_seconds", "step_seconds", "tokens_per_second"}


def planned(**changes: object) -> TrainSettings:
    return tiny(rl=rl(steps=6, members=4, plan=PLAN), **changes)


def timeless_rows(folder: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "run"
    train(planned(), out=folder)
    return folder


def test_every_slot_does_something(whole: Path) -> None:
    seen = rows(whole)
    for name in ("branched_share", "hinted_share", "fresh_stream_share", "rounds", "replayed_groups"):
        assert any(row.get(name) for row in seen), name
    assert all(row["turns"] <= 2 for row in seen[:3])
    assert any(row["turns"] > 2 for row in seen[3:])
    played = read_journal(whole / "trajectories" / "rl.jsonl.zst").trajectories
    tasks = {int(item.task.split("/")[1]) - 1_000_000 - 3 * 100_003 for item in played}
    assert tasks <= set(range(12))
    sizes = [
        sum(item.group == first.group and item.step == first.step for item in played) for first in played
    ]
    assert len(set(sizes)) > 1
    assert all(len(item.turns) > item.hint_level for item in played)


def test_a_broken_run_ends_the_same(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(planned(), out=folder, progress=Fails("rl", 5))
    train(planned(), out=folder, resume=True)
    assert timeless_rows(folder) == timeless_rows(whole)
    assert weights(folder) == weights(whole)
    ledgers = [
        json.loads((path / "checkpoints" / "trained" / "state.json").read_text())["ledger"]
        for path in (folder, whole)
    ]
    assert ledgers[0] == ledgers[1]


def test_two_processes_are_one(whole: Path, tmp_path: Path) -> None:
    train(planned(processes=2), out=tmp_path / "run")
    assert timeless_rows(tmp_path / "run") == timeless_rows(whole)
    assert weights(tmp_path / "run") == weights(whole)


def test_a_runs_policy_is_evaluated_with_its_memory(whole: Path) -> None:
    assert player_of(str(whole)).memory == Recap(2)


def test_a_wrong_plan_stops_before_anything_is_spent(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'Segments'"):
        train(tiny(rl=rl(plan={"brancher": {"part": "Segment"}})), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""Every recipe trains the household agent from one warm start, none as a special case."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from agentrl import recipes
from agentrl.errors import MissingColumnError
from agentrl.run.settings import TrainSettings
from agentrl.run.train import train
from tests.agentrl.training import rows, weights

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

NOT_GIVEN = {"gold_logprob", "gold_logprob_final", "span", "reward:flawed"}
"""What this world does not give, so recipes that read it refuse: a gold answer, spans, flaws."""


def household(**changes: object) -> TrainSettings:
    return TrainSettings.model_validate(
        {
            "seed": 5, "processes": 1, "shards": 1, "samples": 0, "reproducible": True,
            "environment": {"id": "agentrl/Household-v0", "kwargs": {"settings": "two_rooms"}},
            "model": {"slots": 32, "context": 512},
            "warm_start": {"demonstrations": 400, "steps": 180, "evaluate_every": 0},
            "rl": {"steps": 0},
            "limits": {"turns": 12},
            "evaluation": {"curve_tasks": 0, "final_tasks": 1},
            **changes,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def warm_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that solves about a third of the tasks."""
    folder = tmp_path_factory.mktemp("household") / "run"
    train(household(), out=folder)
    return folder


def refused(settings: TrainSettings, out: Path) -> str:
    """Train; return the sentence about a column that is missing, or nothing."""
    try:
        train(settings, out=out)
    except MissingColumnError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", recipes.names())
def test_recipe_trains_the_household_agent(name: str, warm_start: Path, tmp_path: Path) -> None:
    settings = household(
        warm_start={"path": str(warm_start), "demonstrations": 0},
        rl={"algorithm": name, "steps": 2, "tasks": 4, "members": 6, "evaluate_every": 0, "optimizer": {}},
    )
    missing = refused(settings, tmp_path / "run")
    if missing:
        assert any(f"'{column}'" in missing for column in NOT_GIVEN), missing
        pytest.skip(f"refused with a sentence: {missing}")
    seen = rows(tmp_path / "run")
    assert len(seen) == 2
    assert all(math.isfinite(row[name]) for row in seen for name in row.keys() - {"phase"})
    learned = any(row.get("optimizer_steps") for row in seen)
    assert (weights(tmp_path / "run") != weights(warm_start, "warm-start")) is learned
    # SimpleTIR's filter wants code or an answer, which no command is: it keeps nothing, and says so.
    assert learned or all(row["kept_turns"] == 0 and row["empty_steps"] for row in seen)
    branched = recipes.get(name).plan.brancher is not None
    assert any(row.get("branched_share") for row in seen) is branched

"""What the tests of runs share: a run of a second, and what it leaves."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.run.progress import SilentProgress
from agentrl.run.settings import TrainSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


WORLD = "agentrl.testing.worlds:WordWorld"


def tiny(**changes: object) -> TrainSettings:
    """A run of about a second."""
    return TrainSettings.model_validate(
        {
            "name": "tiny", "seed": 3, "reproducible": True, "processes": 1, "shards": 2,
            "checkpoint_every": 2,
            "environment": {"id": WORLD},
            "model": {
                "hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate": 48, "slots": 8,
                "context": 96, "vocabulary": 300,
            },
            "warm_start": {"demonstrations": 6, "noise": 0.0, "steps": 4, "batch": 3, "evaluate_every": 0},
            "rl": {"steps": 2, "tasks": 2, "members": 3, "evaluate_every": 0, "optimizer": {}},
            "limits": {"turn_tokens": 6},
            "evaluation": {"curve_tasks": 0, "final_tasks": 3},
            **changes,
        }
    )  # fmt: skip


def rl(**changes: object) -> dict[str, object]:
    return {"steps": 2, "tasks": 2, "members": 3, "evaluate_every": 0, "optimizer": {}, **changes}


def rows(folder: Path, phase: str = "rl") -> list[dict[str, float]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["phase"] == phase]


def weights(folder: Path, name: str = "trained") -> str:
    path = folder / "checkpoints" / name / "model" / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Fails(SilentProgress):
    """Ends a run at its first sign of life."""

    phase: str = "warm_start"
    step: int = 1

    def update(self, phase: str, step: int, total: int | None, metrics: Mapping[str, object]) -> None:
        del total, metrics
        if (phase, step) == (self.phase, self.step):
            raise KeyboardInterrupt

"""Run the authors' own functions on our random batches and write down what they say.

    python -m tests.parity.record_official FOLDER

FOLDER holds, fetched by you, `core_gigpo.py` (verl-agent, `gigpo/`), `core_hgpo.py` (verl-agent,
`recipe/hgpo/`) and `simpletir.py` (ltzheng/SimpleTIR, `verl/trainer/ppo/core_algos.py`).
Only figures are kept.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.recipe_batches import make_batch

TABLE = Path(__file__).with_name("official.json")
SHAPES = ((4, 2, 3), (6, 3, 1), (1, 3, 5), (5, 4, 8))
"""Members, groups and seed of each batch."""
PENALTY = 0.1


def loaded(folder: Path) -> dict[str, Any]:
    """Import the authors' files; what they import of verl and do not use here is a blank."""
    blanks = {"verl": ["DataProto"], "verl.utils": [], "verl.utils.torch_functional": []}
    for name, members in blanks.items():
        sys.modules[name] = types.ModuleType(name)
        for member in members:
            setattr(sys.modules[name], member, object)
    sys.path.insert(0, str(folder))
    return {name: importlib.import_module(name) for name in ("core_gigpo", "core_hgpo", "simpletir")}


def rows_of(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return a batch as the rows that verl-agent holds: one per turn, penalty on refused rows."""
    batch = make_batch(*shape)
    refused = np.where(batch.valid, 0.0, PENALTY)
    after, returns = 0.0, np.zeros(batch.num_turns)
    for row in range(batch.num_turns - 1, -1, -1):
        last = row + 1 == batch.num_turns or batch.turn_index[row + 1] == 0
        after = batch.reward[row] + 0.95 * (0.0 if last else after)
        returns[row] = after
    totals = np.bincount(batch.trajectory_of_turn, batch.reward, batch.num_trajectories)
    score = totals[batch.trajectory_of_turn] - refused
    return {
        "score": torch.tensor(score, dtype=torch.float32)[:, None],
        "returns": torch.tensor(returns - refused, dtype=torch.float32),
        "mask": torch.ones(batch.num_turns, 1),
        "keys": batch.observation_key,
        "texts": np.array([detail.observation for detail in batch.turn_details], dtype=object),
        "group": batch.group_of_turn,
        "trajectory": batch.trajectory_of_turn,
    }


def gigpo(module: Any, rows: dict[str, Any], mode: str, *, similar: bool) -> list[float]:
    found, _ = module.compute_gigpo_outcome_advantage(
        rows["score"].clone(), rows["returns"], rows["mask"], rows["texts" if similar else "keys"],
        rows["group"], rows["trajectory"], mode=mode, enable_similarity=similar, similarity_thresh=0.9,
    )  # fmt: skip
    return [float(figure) for figure in found[:, 0]]


def hgpo(module: Any, rows: dict[str, Any], mode: str, *, base: bool) -> list[float]:
    found, _ = module.compute_hgpo_outcome_advantage(
        rows["score"].clone(), rows["returns"], rows["mask"], rows["keys"], rows["group"],
        rows["trajectory"], history_length=2, mode=mode, base_group=base,
    )  # fmt: skip
    return [float(figure) for figure in found[:, 0]]


def simple_tir(module: Any, shape: tuple[int, int, int]) -> list[float]:
    """GRPO over trajectories, of which the third of each group is excluded by an empty mask."""
    batch = make_batch(*shape)
    mask = torch.tensor(batch.member != 2, dtype=torch.float32)[:, None]
    found, _ = module.compute_grpo_outcome_advantage(
        torch.tensor(batch.episode_reward)[:, None].clone(), mask, batch.group
    )
    return [float(figure) for figure in found[:, 0]]


def record(folder: Path) -> None:
    modules, table = loaded(folder), {}
    for shape in SHAPES:
        rows, name = rows_of(shape), "-".join(map(str, shape))
        for mode in ("mean_norm", "mean_std_norm"):
            table[f"gigpo {mode} {name}"] = gigpo(modules["core_gigpo"], rows, mode, similar=False)
            table[f"gigpo similar {mode} {name}"] = gigpo(modules["core_gigpo"], rows, mode, similar=True)
            table[f"hgpo {mode} {name}"] = hgpo(modules["core_hgpo"], rows, mode, base=False)
            table[f"hgpo base {mode} {name}"] = hgpo(modules["core_hgpo"], rows, mode, base=True)
        table[f"simpletir {name}"] = simple_tir(modules["simpletir"], shape)
    TABLE.write_text(json.dumps(table, indent=0) + "\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]))

"""What GiGPO credit costs, next to hashing the keys alone and to plain loops.

Run `python tests/benchmarks/bench_credit.py` with the repository on PYTHONPATH. Equality with the loops is
checked before anything is timed. Times are the best of several, in milliseconds of CPU,
so that what else runs on the machine is not counted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from agentrl import recipes
from agentrl.trajectory.batch import Batch
from tests.parity.credit_loops import Row, Rule, gigpo

if TYPE_CHECKING:
    from collections.abc import Callable

MEMBERS = 8
SIZES = (1_000, 10_000, 100_000)


def make_rows(turns: int, seed: int = 0) -> list[Row]:
    """Ragged trajectories of 1 to 30 turns in groups of eight; about forty states per task."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    trajectory = 0
    while len(rows) < turns:
        length = int(random.integers(1, 31))
        keys, valid = random.integers(0, 40, length), random.random(length) > 0.1
        won = float(random.random() > 0.5)
        rows += [
            Row(trajectory // MEMBERS, trajectory, int(keys[t]), won * (t == length - 1), bool(valid[t]))
            for t in range(length)
        ]
        trajectory += 1
    return rows


def to_batch(rows: list[Row]) -> Batch:
    """The same rows as columns, with 63-bit keys as environments give them."""
    counts = np.bincount([row.trajectory for row in rows])
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    digests = np.random.default_rng(1).integers(0, 2**63 - 1, 40)
    return Batch.from_arrays(
        group=[rows[i].group for i in first], turns_per_trajectory=counts,
        reward=[row.reward for row in rows],
        valid=[row.valid for row in rows], observation_key=[int(digests[row.key]) for row in rows],
    )  # fmt: skip


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """CPU-seconds of the fastest run."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def loops(rows: list[Row]) -> list[float]:
    return gigpo(
        rows, gamma=0.95, weight=1.0, penalty=0.1,
        episode=Rule(per_turn=True, lone_raw=True), step=Rule(per_turn=True),
    )  # fmt: skip


def measure(turns: int) -> None:
    rows = make_rows(turns)
    batch = to_batch(rows)
    algorithm = recipes.GIGPO_VERL_AGENT
    np.testing.assert_allclose(algorithm.credit(batch).advantage, loops(rows), atol=1e-6)
    keys = list(zip(batch.group_of_turn.tolist(), batch.observation_key.tolist(), strict=True))
    repeats = 20 if turns <= 10_000 else 5
    hashing = best_of(repeats, lambda: len(dict.fromkeys(keys)))
    credit = best_of(repeats, lambda: algorithm.credit(batch))
    plain = best_of(1 if turns > 10_000 else 3, lambda: loops(rows))
    print(
        f"{len(rows):>7} turns: credit {credit * 1e3:8.2f} ms, hashing keys alone {hashing * 1e3:7.2f} ms "
        f"(x{credit / hashing:4.1f}), loops {plain * 1e3:9.1f} ms (x{plain / credit:6.1f})"
    )


if __name__ == "__main__":
    for size in SIZES:
        measure(size)

"""What a turn costs behind `agentrl serve`, beside the same turn in process.

Run `python -m tests.benchmarks.bench_serve`.

Both sides play the same episodes of the household world with the same policy in one run; the trajectories
must be equal first. Server and client share one process and the loopback interface, so the CPU-seconds are
those of both.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import agentrl
from agentrl.world.remote import RemoteEnv
from tests.servers.test_serve import HOUSEHOLD, offered

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentrl.trajectory import Invalid, Trajectory

TASKS = 64
REPEATS = 3


def played(make: Callable[[], agentrl.TextEnv]) -> tuple[list[Trajectory | Invalid], float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    results = agentrl.collect(
        make, "random", split="valid_seen", tasks=TASKS, limits=agentrl.Limits(turns=15), seed=1
    )
    return results, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    here = [played(lambda: agentrl.make(HOUSEHOLD)) for _ in range(REPEATS)]
    with offered(lambda: agentrl.make(HOUSEHOLD), privileged=True) as (url, _):
        there = [played(lambda: RemoteEnv(url)) for _ in range(REPEATS)]
    turns = 0
    for mine, theirs in zip(here[0][0], there[0][0], strict=True):
        assert isinstance(mine, agentrl.Trajectory)
        assert isinstance(theirs, agentrl.Trajectory)
        assert [turn.observation for turn in mine.turns] == [turn.observation for turn in theirs.turns]
        turns += len(mine.turns)
    for name, place in (("wall", 0), ("CPU", 1)):
        inside, outside = (
            1e3 * min((run[1], run[2])[place] for run in runs) / turns for runs in (here, there)
        )
        print(
            f"{name}: {inside:.3f} ms a turn in process, {outside:.3f} ms behind the server, "
            f"{outside - inside:.3f} ms more ({turns} turns, {TASKS} at once)"
        )


if __name__ == "__main__":
    main()

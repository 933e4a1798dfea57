"""Steps per second, without a model, of the worlds whose work is done by other processes or engines.

    python -m tests.benchmarks.bench_worlds [sql] [postgresql] [code] [textworld] [alfworld]

Each world is played by its expert, which sees texts only, and every task must be solved before anything is
timed. CPU-seconds are those of this process and all that it started (jails, guards, servers), the cheapest of
several repeats; wall-clock seconds stand beside them. ALFWorld's logic is read from AGENTRL_TEST_DATA.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentrl.world import TextEnv

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Play:
    """What a repeat took: `steps` and `resets` of the same tasks."""

    steps: int
    resets: int
    step_cpu: float
    step_wall: float
    reset_cpu: float


def tree_seconds() -> float:
    """CPU-seconds of this process and its living descendants, those that they have buried included."""
    times: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            times[int(entry.name)] = (int(fields[1]), sum(map(int, fields[11:15])) / TICKS)
    family, grown = {os.getpid()}, True
    while grown:
        more = {pid for pid, (parent, _) in times.items() if parent in family} - family
        family, grown = family | more, bool(more)
    return sum(times[pid][1] for pid in family if pid in times)


def played(env: TextEnv, split: str, tasks: int) -> Play:
    """Play the tasks once; raise where the expert does not solve one."""
    steps, step_cpu, step_wall, reset_cpu = 0, 0.0, 0.0, 0.0
    for index in range(tasks):
        before = tree_seconds()
        observation, _ = env.reset(seed=0, options={"split": split, "index": index})
        cpu, wall = tree_seconds(), time.perf_counter()
        reset_cpu += cpu - before
        expert, over, info = env.expert(observation), False, dict[str, object]()
        assert expert is not None
        while not over:
            action = expert.act()
            observation, _, terminated, truncated, info = env.step(action)
            expert.observe(action, observation)
            steps, over = steps + 1, terminated or truncated
        step_cpu, step_wall = step_cpu + tree_seconds() - cpu, step_wall + time.perf_counter() - wall
        assert info["success"], f"{env.task.id} is not solved"
    return Play(steps, tasks, step_cpu, step_wall, reset_cpu)


def sql(folder: Path, engine: str) -> tuple[TextEnv, str, int]:
    from agentrl_envs.sql import SqlEnv

    return SqlEnv(engine=engine, folder=str(folder)), "valid_seen", 64


def code(_: Path, kind: str) -> tuple[TextEnv, str, int]:
    from agentrl_envs.code import CodeEnv

    return CodeEnv(kind), "valid", 16  # type: ignore[arg-type]  # one of its kinds


def textworld(_: Path) -> tuple[TextEnv, str, int]:
    from agentrl_envs.textworld import Custom, TextWorldEnv

    return TextWorldEnv(Custom(rooms=4, objects=8, quest_length=4), expert="texts"), "valid_seen", 8


def alfworld(folder: Path) -> tuple[TextEnv, str, int]:
    from agentrl_envs.alfworld import ALFWorldEnv, Logic, write_games
    from agentrl_envs.household import SMALL, make_task

    logic = Logic.read(Path(os.environ["AGENTRL_TEST_DATA"]) / "alfworld")
    write_games(folder, logic, [make_task(SMALL, "valid_seen", index) for index in range(4)])
    return ALFWorldEnv(folder), "valid_seen", 4


WORLDS: dict[str, Callable[[Path], tuple[TextEnv, str, int]]] = {
    "sql": partial(sql, engine="sqlite"),
    "postgresql": partial(sql, engine="postgresql"),
    "code": partial(code, kind="problems"),
    "functions": partial(code, kind="functions"),
    "textworld": textworld,
    "alfworld": alfworld,
}


def main(repeats: int = 3) -> None:
    """Print a line for each world."""
    for name in sys.argv[1:] or WORLDS:
        with tempfile.TemporaryDirectory() as folder:
            env, split, tasks = WORLDS[name](Path(folder))
            played(env, split, tasks)  # makes databases and games, starts processes
            plays = [played(env, split, tasks) for _ in range(repeats)]
            env.close()
            best, quick = min(plays, key=lambda one: one.step_cpu), min(plays, key=lambda one: one.step_wall)
            print(
                f"{name:<11} {best.steps / best.step_cpu:8,.0f} steps per CPU-second "
                f"({1000 * best.step_cpu / best.steps:.2f} ms), {quick.steps / quick.step_wall:8,.0f} by the "
                f"clock; reset {1000 * min(one.reset_cpu for one in plays) / tasks:.2f} CPU-ms; "
                f"{tasks} tasks, {best.steps} steps, all solved",
                flush=True,
            )


if __name__ == "__main__":
    main()

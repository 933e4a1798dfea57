"""What an execution in the jail costs, against starting an interpreter, in one run.

python tests/benchmarks/bench_sandbox.py             # milliseconds and ratios
python tests/benchmarks/bench_sandbox.py --sessions  # 64 sessions side by side, 10,000 cells
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.sandbox.jail import Sandbox
from agentrl.sandbox.result import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

NUMPY = ("numpy", "numpy.random")


def milliseconds(calls: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the least time of each call, taken in turn so that a busy machine slows all of them."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            best[name] = min(best[name], (time.perf_counter() - began) * 1000)
    return best


def _started(source: str) -> Callable[[], None]:
    def call() -> None:
        subprocess.run([sys.executable, "-c", source], check=True)

    return call


def _jailed(sandbox: Sandbox, source: str) -> Callable[[], None]:
    def call() -> None:
        result = sandbox.run(source)
        assert result.stdout == "4\n", result

    return call


def costs(repeats: int) -> None:
    """Print milliseconds of each way to run a program, and the two ratios that count."""
    with Sandbox() as bare, Sandbox(preload=NUMPY) as ready, ready.open_session() as session:

        def cell() -> None:
            session.run("numpy = __import__('numpy')")

        best = milliseconds(
            {
                "python -c pass": _started("pass"),
                "python -c 'import numpy'": _started("import numpy"),
                "jailed": _jailed(bare, "print(4)"),
                "jailed, numpy ready": _jailed(ready, "import numpy; print(numpy.arange(5)[4])"),
                "a cell of a session": cell,
            },
            repeats,
        )
        print(f"tier {bare.tier}, the least of {repeats}:")
    for name, value in best.items():
        print(f"{name:<28}{value:8.1f} ms")
    print(f"jailed / python -c pass               {best['jailed'] / best['python -c pass']:.2f}x")
    ratio = best["jailed, numpy ready"] / best["python -c 'import numpy'"]
    print(f"jailed, numpy ready / import numpy    {ratio:.2f}x")


def soak(sessions: int, cells: int) -> list[tuple[int, int, int]]:
    """Run cells on many sessions side by side; return (memory, descriptors, processes) after each tenth.

    Memory is the resident bytes of this process and of all below it, shared pages counted once for each.
    """
    seen: list[tuple[int, int, int]] = []
    limits = Limits(wall_seconds=60, memory=256 << 20)
    with Sandbox(limits=limits) as sandbox, ThreadPoolExecutor(sessions) as threads:
        opened = [sandbox.open_session() for _ in range(sessions)]
        tenth = -(-cells // (10 * sessions))

        def play(number: int) -> None:
            for _ in range(tenth):
                result = opened[number].run("x = globals().get('x', 0) + 1; x")
                assert result.ok, result

        for _ in range(10):
            list(threads.map(play, range(sessions)))
            seen.append(_used())
        for session in opened:
            assert session.run("x").stdout == f"{10 * tenth}\n"
            session.close()
    return seen


def _used() -> tuple[int, int, int]:
    from agentrl.sandbox import tree

    pids = tree.below(os.getpid())[0]
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return tree.memory([os.getpid(), *pids], 1 << 60), descriptors, len(pids)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", action="store_true")
    parser.add_argument("--repeats", type=int, default=25)
    asked = parser.parse_args()
    if not asked.sessions:
        costs(asked.repeats)
        return
    began = time.perf_counter()
    for memory, descriptors, processes in soak(64, 10_000):
        print(f"{memory / 2**20:8.0f} MiB  {descriptors:4} descriptors  {processes:4} processes")
    print(f"{time.perf_counter() - began:.0f} s for 64 sessions and 10,000 cells")


if __name__ == "__main__":
    main()

"""Search at a million documents, and steps of the search world without a model.

    python -m tests.benchmarks.bench_search [documents]

Equality first: a search for a name must find the document about it. CPU-seconds of this process, one thread;
the cheapest of several repeats. `resident` is the process's memory, `peak` its high-water mark.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

os.environ["OMP_NUM_THREADS"] = "1"

if TYPE_CHECKING:
    from collections.abc import Callable

MEBIBYTE = 1 << 20


def resident() -> float:
    """MiB of memory that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cheapest(call: Callable[[], object], repeats: int = 5) -> float:
    """CPU-seconds of the cheapest of some calls."""
    times: list[float] = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return min(times)


def say(what: str, begin: float) -> float:
    now = time.process_time()
    print(
        f"{what:<44} {now - begin:8.1f} CPU-s   resident {resident():6.0f} MiB   peak {peak():6.0f} MiB",
        flush=True,
    )
    return time.process_time()


def million(documents: int) -> None:
    from agentrl_envs.search.settings import SearchSettings
    from agentrl_envs.search.world import make_world
    from agentrl_tools.search import Bm25

    folder = Path(tempfile.mkdtemp())
    try:
        clock = say("start", time.process_time())
        world = make_world(SearchSettings(documents=documents), "train", 0)
        clock = say(f"{documents:,} entities and their relations", clock)
        corpus = world.corpus()
        clock = say("documents as an Arrow corpus", clock)
        print(f"hash of the corpus {corpus.digest}")
        clock = say("hashing it", clock)
        Bm25(corpus, cache=folder)
        clock = say("tokenizing, indexing, writing the index", clock)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / MEBIBYTE
        found = Bm25(corpus, cache=folder)
        say(f"opening the index of {size:.0f} MiB", clock)
        rng = np.random.default_rng(0)
        names = [world.name(int(entity)) for entity in rng.integers(documents, size=200)]
        missed = [name for name in names if name not in [hit.document.title for hit in found.search(name, 3)]]
        print(f"found among three results: {len(names) - len(missed)} of {len(names)}")
        each = cheapest(lambda: [found.search(name, 3) for name in names]) / len(names)
        print(f"one search of two words: {1000 * each:.2f} CPU-ms")
        questions = [world.ask(2, rng).text for _ in range(50)]
        each = cheapest(lambda: [found.search(text, 3) for text in questions]) / len(questions)
        print(f"one search with a whole question: {1000 * each:.2f} CPU-ms")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def steps() -> None:
    """Steps of the default world per CPU-second, and what the environment adds to search and listing."""
    from agentrl_envs.search import SearchQAEnv
    from agentrl_tools.search.results import listed

    env = SearchQAEnv("small")
    env.reset(seed=0, options={"split": "train", "index": 0})
    names = list(env._source.names("train", 0) or [])
    actions = [f"<search>{name}</search>" for name in names]
    env.protocol = env.protocol.for_tools(env.toolbox.tools)
    assert [env.step(action)[0] for action in actions] == [listed(env._find(name)) for name in names]
    whole = cheapest(lambda: [env.step(action) for action in actions], 20) / len(actions)
    bare = cheapest(lambda: [listed(env._find(name)) for name in names], 20) / len(names)
    print(f"steps of the small world: {1 / whole:,.0f} per CPU-second ({1e6 * whole:.0f} us)")
    print(f"of that search and listing {1e6 * bare:.0f} us; all else {1e6 * (whole - bare):.0f} us")
    resets = cheapest(
        lambda: [env.reset(seed=0, options={"split": "train", "index": index}) for index in range(64)], 3
    )
    print(f"reset within a world: {1e6 * resets / 64:.0f} us")

    def fresh(first: int) -> Callable[[], object]:
        worlds = iter(range(first, first + 640, 64))
        return lambda: env.reset(seed=0, options={"split": "train", "index": next(worlds)})

    print(f"reset with a new world of 100 documents: {1e3 * cheapest(fresh(64_000)):.1f} ms")


if __name__ == "__main__":
    steps()
    million(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)

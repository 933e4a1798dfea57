"""What a turn of a rollout costs beside the world's own step, and how fast each world is without a model.

    python tests/benchmarks/bench_overhead.py

One thread, both sides in one run, the same actions in the same worlds, equality first, the least of several
repeats. The raw side resets, steps and asks for both keys: that is the world's own work. The other side is a
rollout of the same scripted actions, without tokens: tokenizing is not in it.
"""

from __future__ import annotations

import argparse
import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.policy.base import Sampling
from agentrl.policy.scripted import ScriptedPolicy
from agentrl.rollout import Limits, Play, Stock, assign_groups, collect
from agentrl.testing import WordWorld
from agentrl.trajectory import Trajectory
from agentrl_envs.household import HouseholdEnv
from agentrl_envs.search import SearchQAEnv

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentrl.rollout import Assignment
    from agentrl.world import TextEnv

GOAL = 50.0
"""Microseconds of a turn that may be ours."""


@dataclass(frozen=True)
class Side:
    """Seconds and what was seen."""

    seconds: float
    seen: list[list[str]]

    @property
    def turns(self) -> int:
        """Turns of all trajectories."""
        return sum(len(texts) - 1 for texts in self.seen)


def raw(env: TextEnv, script: Sequence[str], assignments: Sequence[Assignment]) -> Side:
    """Reset, step and ask for keys, in a plain loop."""
    seen: list[list[str]] = []
    env.protocol = env.default_protocol().for_tools(env.toolbox.tools)
    begin = time.process_time()
    for item in assignments:
        observation, _ = env.reset(seed=item.seed, options={"split": item.split, "index": item.index})
        texts, over, turn = [observation], False, 0
        while not over and turn < len(script):
            keys(env)
            observation, _, terminated, truncated, _ = env.step(script[turn])
            texts.append(observation)
            over, turn = terminated or truncated, turn + 1
        keys(env)
        seen.append(texts)
    seconds = time.process_time() - begin
    return Side(seconds, [[texts[0], *map(env.protocol.render, texts[1:])] for texts in seen])


def keys(env: TextEnv) -> tuple[object, object]:
    """Ask for what credit asks for."""
    return env.observation_key(), env.state_key()


def rolled(env: TextEnv, script: Sequence[str], assignments: Sequence[Assignment]) -> Side:
    """Collect trajectories of the same actions."""
    stock = Stock(lambda: env)
    play = Play(
        ScriptedPolicy(script), env.default_protocol(), Sampling(), Limits(turns=len(script)), "bench"
    )
    begin = time.process_time()
    results = collect(stock, play, assignments, concurrency=1)
    seconds = time.process_time() - begin
    return Side(seconds, [texts_of(item) for item in results if isinstance(item, Trajectory)])


def texts_of(item: Trajectory) -> list[str]:
    """Every observation of a trajectory."""
    return [*(turn.observation for turn in item.turns), item.final_observation]


WORLDS: dict[str, tuple[Callable[[], TextEnv], Sequence[str]]] = {
    "WordWorld": (lambda: WordWorld(length=20), ["lamp", "mug"] * 10),
    "SearchQA": (SearchQAEnv, ["<search> Kera Kesky </search>", "<search> Old Baport </search>"] * 10),
    "Household": (HouseholdEnv, ["look", "inventory", "fly", "go to shelf 1", "go to countertop 1"] * 4),
}


def main() -> None:
    """Print, for each world, its own time of a turn and ours beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    settings = parser.parse_args()
    for name, (make, script) in WORLDS.items():
        env, assignments = make(), assign_groups("train", range(settings.tasks), members=1, seed=0)
        sides: list[tuple[Side, Side]] = []
        for _ in range(settings.repeats):
            gc.collect()
            sides.append((raw(env, script, assignments), rolled(env, script, assignments)))
        assert all(one.seen == other.seen for one, other in sides), "both sides saw the same"
        turns = sides[0][0].turns
        own = min(one.seconds for one, _ in sides) / turns * 1e6
        whole = min(other.seconds for _, other in sides) / turns * 1e6
        verdict = "within" if whole - own <= GOAL else "above"
        print(
            f"{name}: {own:.1f} us a turn by itself ({1e6 / own:,.0f} steps/s), {whole:.1f} us in a rollout: "
            f"{whole - own:.1f} us are ours, {verdict} {GOAL:g}; ratio {whole / own:.1f}; {turns} turns"
        )


if __name__ == "__main__":
    main()

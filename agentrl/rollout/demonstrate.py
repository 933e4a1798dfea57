"""Expert episodes with disturbances, for supervised warm starts.

Now and then a random command is executed instead of the expert's, so that errors and recovery are seen; only the
expert's own turns are imitated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentrl.world.env import TextEnv


@dataclass(frozen=True, slots=True)
class DemonstratedTurn:
    """One turn: what was read, what was executed, and whether it is to be imitated."""

    observation: str
    action: str
    learn: bool


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One solved episode."""

    task: str
    system: str
    turns: tuple[DemonstratedTurn, ...]


def demonstrate(
    env: TextEnv, split: str, indices: Sequence[int], *, noise: float, seed: int, max_turns: int = 200
) -> list[Demonstration]:
    """Let the environment's own expert solve each task while random commands are executed in between.

    Args:
        noise: probability that a turn is disturbed; half of the disturbances are admissible commands, half are
            commands that were admissible earlier or elsewhere and are refused now.
        seed: with a task's index it fixes that task's disturbances.

    Raises:
        RolloutError: the environment has no expert, or its expert did not solve a task.
    """
    memory = _Commands()
    return [_solve(env, split, index, noise, random.Random(f"{seed}:{split}/{index}"), max_turns, memory) for index in indices]


def _solve(
    env: TextEnv, split: str, index: int, noise: float, rng: random.Random, max_turns: int, memory: _Commands
) -> Demonstration:
    observation, _ = env.reset(seed=index, options={"split": split, "index": index})
    expert = env.expert(observation)
    if expert is None:
        raise RolloutError(
            f"{type(env).__name__} has no expert, so there is nothing to imitate. Define expert() on it, "
            "or set warm_start.demonstrations = 0 and start from a trained model."
        )
    turns: list[DemonstratedTurn] = []
    for _ in range(max_turns):
        learn = rng.random() >= noise
        action = expert.act() if learn else memory.draw(env, rng)
        turns.append(DemonstratedTurn(observation, action, learn))
        observation, _, terminated, truncated, info = env.step(action)
        expert.observe(action, observation)
        if terminated and info.get("success", True):
            return Demonstration(f"{split}/{index}", env.system_text(), tuple(turns))
        if terminated or truncated:
            break
    raise RolloutError(f"the expert of {type(env).__name__} did not solve {split}/{index} in {max_turns} turns.")


class _Commands:
    """Commands seen so far, to draw refused ones from."""

    def __init__(self) -> None:
        self.seen: dict[str, None] = {}
        self.drawn: list[str] = []

    def draw(self, env: TextEnv, rng: random.Random) -> str:
        now = env.admissible() or ("look",)
        for command in now:
            if command not in self.seen:
                self.seen[command] = None
                self.drawn.append(command)
        if rng.random() < 0.5:  # noqa: PLR2004  # half and half
            return rng.choice(now)
        return rng.choice(self.drawn)

"""Expert episodes with disturbances, for supervised warm starts.

Now and then a random command is executed instead of the expert's, so that errors and recovery are seen; only
the expert's own turns are imitated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from agentrl.errors import RolloutError
from agentrl.rollout.easy import default_protocol
from agentrl.rollout.text import rendered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentrl.world.env import TextEnv
    from agentrl.world.protocol import Protocol

DRAWS = 6
"""How often the disturbances of a task are drawn before it counts as unsolvable."""


@dataclass(frozen=True, slots=True)
class DemonstratedTurn:
    """One turn: what was read, what was executed, and whether it is to be imitated.

    Attributes:
        observation: as the environment gave it.
        results: of each call of the turn before, where it had several.
    """

    observation: str
    action: str
    learn: bool
    results: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One solved episode.

    Attributes:
        system: what is told before it; `schemas`: of the tools that a chat template lists itself.
    """

    task: str
    system: str
    turns: tuple[DemonstratedTurn, ...]
    protocol: Protocol
    schemas: tuple[Mapping[str, object], ...] = ()

    def shown(self, index: int, cut: Callable[[str, int], str] | None = None) -> str:
        """Return the observation of a turn as a rollout writes it; the first one has no markup.

        Args:
            cut: see `agentrl.rollout.text.rendered`.
        """
        turn = self.turns[index]
        if index:
            return rendered(self.protocol, turn.observation, turn.results, cut=cut)
        return turn.observation if cut is None else cut(turn.observation, 1)


def demonstrate(  # what is played, by whom, and how it is written
    env: TextEnv,
    split: str,
    indices: Sequence[int],
    *,
    noise: float,
    seed: int,
    max_turns: int = 200,
    protocol: Protocol | None = None,
) -> list[Demonstration]:
    """Let the environment's own expert solve each task while random commands are executed in between.

    Args:
        noise: probability that a turn is disturbed: the world's own `disturbance` is executed, an admissible
            command where it has none.
        seed: with a task's index it fixes that task's disturbances. Where they keep the expert from the goal,
            they are drawn again, up to `DRAWS` times in all.
        protocol: how the expert writes its turns; the environment's default (`default_protocol`) otherwise.

    Raises:
        RolloutError: the environment has no expert, or its expert did not solve a task.
    """
    env.protocol = (protocol or default_protocol(env)).for_tools(env.toolbox.tools)
    return [_demonstration(env, split, index, noise, seed, max_turns) for index in indices]


def _demonstration(
    env: TextEnv, split: str, index: int, noise: float, seed: int, max_turns: int
) -> Demonstration:
    draws = DRAWS if noise else 1
    for draw in range(draws):
        again = f"#{draw}" if draw else ""
        rng = random.Random(f"{seed}:{split}/{index}{again}")
        found = _solve(env, split, index, noise, rng, max_turns)
        if found is not None:
            return found
    tried = f", in {draws} draws of its disturbances. Lower warm_start.noise, now {noise}" if noise else ""
    raise RolloutError(
        f"the expert of {type(env).__name__} did not solve {split}/{index} in {max_turns} turns{tried}"
        f"{', or mend' if noise else '. Mend'} the expert."
    )


def _solve(
    env: TextEnv, split: str, index: int, noise: float, rng: random.Random, max_turns: int
) -> Demonstration | None:
    observation, _ = env.reset(seed=index, options={"split": split, "index": index})
    expert = env.expert(observation)
    if expert is None:
        raise RolloutError(
            f"{type(env).__name__} has no expert, so there is nothing to imitate. Define expert() on it, "
            "or set warm_start.demonstrations = 0 and start from a trained model."
        )
    turns: list[DemonstratedTurn] = []
    results: tuple[str, ...] = ()
    for _ in range(max_turns):
        learn = rng.random() >= noise
        action = expert.act() if learn else _disturb(env, rng)
        turns.append(DemonstratedTurn(observation, action, learn, results))
        observation, _, terminated, truncated, info = env.step(action)
        results = cast("tuple[str, ...]", info.get("results", ()))
        expert.observe(action, observation)
        if terminated and info.get("success", True):
            schemas = env.protocol.schemas(env.toolbox.tools)
            return Demonstration(f"{split}/{index}", env.system_text(), tuple(turns), env.protocol, schemas)
        if terminated or truncated:
            break
    return None


def _disturb(env: TextEnv, rng: random.Random) -> str:
    command = env.disturbance(rng)
    return command if command is not None else rng.choice(env.admissible() or ("look",))

"""Expert episodes with disturbances, for supervised warm starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from agentrl.errors import CheckError
from agentrl_envs.household.expert import Expert
from agentrl_envs.household.sim import World

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from agentrl_envs.household.tasks import Task

_PATTERNS: Final = (
    "go to {receptacle}",
    "open {receptacle}",
    "close {receptacle}",
    "take {object} from {receptacle}",
    "take {object} from {receptacle}",
    "move {object} to {receptacle}",
    "move {object} to {receptacle}",
    "heat {object} with {receptacle}",
    "clean {object} with {receptacle}",
    "cool {object} with {receptacle}",
    "use {object}",
    "examine {object}",
    "examine {receptacle}",
    "slice {object} with {object}",
    "put {object} in {receptacle}",
    "take {object}",
    "go {receptacle}",
    "open {object}",
)
"""Commands as an untrained agent might word them; about a quarter can never be admissible."""


class Turn(NamedTuple):
    """One turn: what the agent read, what was executed, and whether that was the expert's choice."""

    observation: str
    command: str
    is_expert: bool


def noisy_demonstration(
    task: Task, rng: random.Random, noise: float = 0.25, max_turns: int = 1000, *, shuffle: bool = False
) -> list[Turn]:
    """Let the expert solve a task while random commands are executed in between.

    A disturbed turn executes a random admissible command or, as often, an inadmissible one; the expert sees
    the feedback and plans again. Learn from turns with ``is_expert``; the others stay in the context only.

    Args:
        task: see ``generate.make_task``.
        rng: draws the disturbances, and the search order if ``shuffle``.
        noise: probability, 0 <= noise < 1, that a turn is disturbed.
        max_turns: give up here.
        shuffle: whether the expert searches in a random order instead of the listing order.

    Returns:
        The turns of an episode that ends solved.

    Raises:
        CheckError: the task was not solved in ``max_turns``; with little noise, a defect of the expert.
    """
    world = World(task)
    observation = world.intro()
    expert = Expert(observation, rng if shuffle else None)
    turns: list[Turn] = []
    while not world.won():
        if len(turns) == max_turns:
            raise CheckError(
                f"{task.split}/{task.index} was not solved in {max_turns} turns; lower the noise."
            )
        is_expert = rng.random() >= noise
        command = expert.act() if is_expert else random_command(world, rng)
        turns.append(Turn(observation, command, is_expert))
        observation = world.do(command)
        expert.observe(command, observation)
    return turns


def random_command(world: World, rng: random.Random) -> str:
    """Draw a command: half of them admissible, half not."""
    choose: Callable[[World, random.Random], str] = rng.choice((_admissible_command, inadmissible_command))
    return choose(world, rng)


def inadmissible_command(world: World, rng: random.Random) -> str:
    """Draw a plausible command that gives "Nothing happens." now."""
    admissible = frozenset(world.admissible())
    house = world.task.house
    while True:
        command = _fill_pattern(rng.choice(_PATTERNS), house.receptacles, house.objects, rng)
        if command not in admissible:
            return command


def _admissible_command(world: World, rng: random.Random) -> str:
    return rng.choice(world.admissible())


def _fill_pattern(
    pattern: str, receptacles: Sequence[str], objects: Sequence[str], rng: random.Random
) -> str:
    return pattern.format(receptacle=rng.choice(receptacles), object=rng.choice(objects))

"""The expert: solves everything from texts alone, whatever happens in between."""

from __future__ import annotations

import itertools
import random

import pytest

from agentrl.errors import CheckError, EnvironmentUsageError
from agentrl_envs.household import (
    ALFWORLD,
    MEDIUM,
    SMALL,
    SPLITS,
    TWO_ROOMS,
    Expert,
    Goal,
    House,
    HouseholdSettings,
    Task,
    World,
    make_task,
    noisy_demonstration,
)
from agentrl_envs.household.demonstrations import inadmissible_command, random_command
from agentrl_envs.household.examples import example_task
from agentrl_envs.household.generate import expert_steps
from agentrl_envs.household.language import NOTHING
from agentrl_envs.household.tasks import PICK_AND_PLACE, TASK_TYPES

SIZES = [(SMALL, 300, 60), (TWO_ROOMS, 300, 60), (MEDIUM, 100, 80), (ALFWORLD, 60, 100)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("settings", "count", "limit"), SIZES)
def test_it_solves_every_task(settings: HouseholdSettings, count: int, limit: int, split: str) -> None:
    steps = [expert_steps(make_task(settings, split, index)) for index in range(count)]
    assert max(steps) < limit


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_it_gives_no_useless_command_when_undisturbed(task_type: str) -> None:
    world = World(example_task(task_type))
    expert = Expert(world.intro())
    while not world.won():
        command = expert.act()
        assert command in world.admissible()
        before = world.state_key()
        expert.observe(command, world.do(command))
        assert world.state_key() != before


@pytest.mark.parametrize("noise", [0.25, 0.5, 0.75])
@pytest.mark.parametrize(("settings", "count"), [(SMALL, 150), (TWO_ROOMS, 150), (ALFWORLD, 30)])
def test_it_solves_every_task_under_noise(settings: HouseholdSettings, count: int, noise: float) -> None:
    for index in range(count):
        task = make_task(settings, "train", index)
        assert noisy_demonstration(task, random.Random(index), noise, shuffle=index % 2 == 1)


def test_it_recovers_from_long_random_play() -> None:
    for index in range(60):
        rng = random.Random(index)
        world = World(make_task(SMALL, "train", index))
        expert = Expert(world.intro())
        for _ in range(100):
            command = random_command(world, rng)
            expert.observe(command, world.do(command))
        for _ in range(60):
            if world.won():
                break
            command = expert.act()
            expert.observe(command, world.do(command))
        assert world.won()


def test_it_can_be_rebuilt_from_the_history_at_any_turn() -> None:
    for index in range(30):
        turns = noisy_demonstration(make_task(SMALL, "train", index), random.Random(index))
        for number, turn in enumerate(turns):
            history = [(now.command, later.observation) for now, later in itertools.pairwise(turns)]
            expert = Expert.from_history(turns[0].observation, history[:number])
            if turn.is_expert:
                assert expert.act() == turn.command


def test_acting_without_observing_changes_nothing() -> None:
    world = World(example_task())
    expert = Expert(world.intro())
    assert len({expert.act() for _ in range(3)}) == 1


def test_a_generator_varies_the_order_of_search() -> None:
    world = World(make_task(ALFWORLD, "train", 0))
    first = {Expert(world.intro(), random.Random(seed)).act() for seed in range(10)}
    assert len(first) > 1
    assert Expert(world.intro(), random.Random(3)).act() == Expert(world.intro(), random.Random(3)).act()


def test_a_text_that_is_no_first_observation_is_refused() -> None:
    with pytest.raises(EnvironmentUsageError, match=r"No household goal"):
        Expert("You are in the middle of a room.")
    with pytest.raises(EnvironmentUsageError, match=r"must list the room"):
        Expert("Your task is to: put a mug in desk.")


# -- demonstrations --------------------------------------------------------------------------------


def test_a_demonstration_replays_to_success() -> None:
    task = make_task(SMALL, "train", 3)
    turns = noisy_demonstration(task, random.Random(0))
    world = World(task)
    observation = world.intro()
    for turn in turns:
        assert not world.won()
        assert turn.observation == observation
        observation = world.do(turn.command)
    assert world.won()


def test_without_noise_it_is_the_expert() -> None:
    task = make_task(SMALL, "train", 3)
    turns = noisy_demonstration(task, random.Random(0), noise=0.0)
    assert all(turn.is_expert for turn in turns)
    assert len(turns) == expert_steps(task)


def test_the_share_and_the_kinds_of_noise() -> None:
    turns = [
        (turn, later.observation)
        for index in range(200)
        for demonstration in [noisy_demonstration(make_task(SMALL, "train", index), random.Random(index))]
        for turn, later in itertools.pairwise(demonstration)
    ]
    noisy = [feedback for turn, feedback in turns if not turn.is_expert]
    # About 2,000 turns: one standard error is .01 for the share of noise and .02 for that of errors in it.
    assert 0.21 < len(noisy) / len(turns) < 0.29
    assert 0.42 < sum(feedback == NOTHING for feedback in noisy) / len(noisy) < 0.58
    assert not any(feedback == NOTHING for turn, feedback in turns if turn.is_expert)


def test_a_demonstration_is_determined_by_its_generator() -> None:
    task = make_task(SMALL, "train", 9)
    assert noisy_demonstration(task, random.Random(4)) == noisy_demonstration(task, random.Random(4))


def test_inadmissible_commands_are_inadmissible() -> None:
    world = World(example_task(PICK_AND_PLACE))
    rng = random.Random(0)
    assert all(world.do(inadmissible_command(world, rng)) == NOTHING for _ in range(200))


def test_too_much_noise_is_reported() -> None:
    with pytest.raises(CheckError, match=r"not solved in 3 turns"):
        noisy_demonstration(example_task(), random.Random(0), max_turns=3)


def test_where_nothing_belongs_the_expert_frees_its_hand_at_hand() -> None:
    house = House(
        "kitchen", ("fridge 1", "microwave 1", "sinkbasin 1"), ("apple 1", "pillow 1"), randomized=True
    )
    task = Task(house, (2, 2), Goal(PICK_AND_PLACE, "apple", "fridge"))
    world = World(task)
    expert = Expert(world.intro())
    for command in ("go to sinkbasin 1", "take pillow 1 from sinkbasin 1"):
        expert.observe(command, world.do(command))
    assert expert.act() == "move pillow 1 to sinkbasin 1"

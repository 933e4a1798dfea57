"""What holds after any walk in any house."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl_envs.household import ALFWORLD, SMALL, SPLITS, HouseholdSettings, State, Task, World, make_task
from agentrl_envs.household.belief import read_room
from agentrl_envs.household.demonstrations import inadmissible_command, random_command
from agentrl_envs.household.language import NOTHING
from agentrl_envs.household.sim import IN_HAND

indices = st.integers(0, 1023)
seeds = st.integers(0, 2**32)
lengths = st.integers(0, 40)
splits = st.sampled_from(SPLITS)


def walked(task: Task, seed: int, length: int) -> tuple[World, random.Random]:
    """A world after a random walk, and the generator that led it."""
    rng = random.Random(seed)
    world = World(task)
    for _ in range(length):
        world.do(random_command(world, rng))
    return world, rng


def all_commands(task: Task) -> list[str]:
    """Every command that could be admissible in some state of a house."""
    places, things = task.house.receptacles, task.house.objects
    pairs = [(thing, place) for thing in things for place in places]
    return [
        *("look", "inventory", "help"),
        *(f"{verb} {place}" for verb in ("go to", "open", "close", "examine") for place in places),
        *(f"{verb} {thing}" for verb in ("use", "examine") for thing in things),
        *(f"take {thing} from {place}" for thing, place in pairs),
        *(f"move {thing} to {place}" for thing, place in pairs),
        *(f"{verb} {thing} with {place}" for verb in ("heat", "cool", "clean") for thing, place in pairs),
        *(f"slice {food} with {knife}" for food in things for knife in things),
    ]


def admitted(world: World) -> list[str]:
    """The admissible commands by trial: those that are not answered with an error."""
    start = world.snapshot()
    found: list[str] = []
    for command in all_commands(world.task):
        if world.do(command) != NOTHING:
            found.append(command)
        world.restore(start)
    return sorted(found)


@given(splits, indices, seeds, lengths)
@settings(max_examples=60, deadline=None)
def test_admissible_is_sound_and_complete(split: str, index: int, seed: int, length: int) -> None:
    world, _ = walked(make_task(SMALL, split, index), seed, length)
    assert world.admissible() == admitted(world)


@pytest.mark.parametrize("index", range(4))
def test_admissible_is_sound_and_complete_in_a_large_house(index: int) -> None:
    world, _ = walked(make_task(ALFWORLD, "train", index), index, 60)
    assert world.admissible() == admitted(world)


@given(splits, indices, seeds, lengths)
@settings(max_examples=60, deadline=None)
def test_errors_change_nothing(split: str, index: int, seed: int, length: int) -> None:
    world, rng = walked(make_task(SMALL, split, index), seed, length)
    before = world.state_key()
    assert world.do(inadmissible_command(world, rng)) == NOTHING
    assert world.state_key() == before


@given(indices, seeds, lengths, lengths, st.sampled_from([SMALL, ALFWORLD]))
@settings(max_examples=60, deadline=None)
def test_restoring_brings_everything_back(
    index: int, seed: int, length: int, further: int, size: HouseholdSettings
) -> None:
    task = make_task(size, "train", index % 20)
    world, rng = walked(task, seed, length)
    snapshot = world.snapshot()
    commands = [random_command(world, rng) for _ in range(further)]
    first = [(world.do(command), world.won(), world.state_key(), world.admissible()) for command in commands]
    other = World(task)
    for replay in (world, other):
        replay.restore(snapshot)
        assert replay.state_key() == snapshot
        again = [
            (replay.do(command), replay.won(), replay.state_key(), replay.admissible())
            for command in commands
        ]
        assert again == first


@given(indices, seeds, lengths, lengths)
@settings(max_examples=60, deadline=None)
def test_equal_keys_mean_equal_futures(index: int, seed: int, length: int, further: int) -> None:
    world, rng = walked(make_task(SMALL, "train", index), seed, length)
    other = World(world.task)
    other.restore(world.snapshot())
    detour = undone(other)
    assert (other.state_key() == world.state_key()) == (not detour)
    for command in detour:
        other.do(command)
    assert other.state_key() == world.state_key()
    for _ in range(further):
        command = random_command(world, rng)
        assert world.do(command) == other.do(command)
        assert world.state_key() == other.state_key()


def undone(world: World) -> list[str]:
    """Do something that can be undone, if there is anything; return what undoes it."""
    for command in world.admissible():
        verb, _, rest = command.partition(" ")
        undo = {
            "open": f"close {rest}",
            "close": f"open {rest}",
            "take": "move " + " to ".join(rest.split(" from ")),
            "move": "take " + " from ".join(rest.split(" to ")),
        }.get(verb)
        if undo is not None:
            world.do(command)
            return [undo]
    return []


@given(indices, seeds)
@settings(max_examples=30, deadline=None)
def test_a_key_is_hashable_and_plain(index: int, seed: int) -> None:
    world, _ = walked(make_task(SMALL, "train", index), seed, 20)
    key = world.state_key()
    assert isinstance(key, State)
    assert hash(key) == hash(world.state_key())
    assert all(isinstance(part, int | tuple) for part in key)


@given(indices, seeds, lengths)
@settings(max_examples=60, deadline=None)
def test_the_texts_tell_the_truth(index: int, seed: int, length: int) -> None:
    """A belief read from the feedback alone never contradicts the state."""
    task = make_task(SMALL, "train", index)
    rng = random.Random(seed)
    world = World(task)
    belief = read_room(world.intro())
    for _ in range(length):
        belief.update(world.do(random_command(world, rng)))
    state, house = world.snapshot(), task.house
    assert belief.receptacles == house.receptacles
    assert belief.location == ("" if state.agent < 0 else house.receptacles[state.agent])
    assert belief.holding == next(
        (name for name, place in zip(house.objects, state.places, strict=True) if place == IN_HAND), ""
    )
    assert belief.opened == {
        name for number, name in enumerate(house.receptacles) if state.opened >> number & 1
    }
    for number, name in enumerate(house.objects):
        masks = {"hot": state.hot, "cool": state.cool, "clean": state.clean, "on": state.toggled}
        assert belief.conditions.get(name, set()) == {
            word for word, mask in masks.items() if mask >> number & 1
        }
        place = belief.place_of(name)
        assert not place or house.receptacles[state.places[number]] == place

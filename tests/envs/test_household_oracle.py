"""The household played in step against ALFWorld's own domain and grammar, in TextWorld's PDDL engine."""

from __future__ import annotations

import importlib.util
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agentrl_envs.alfworld.data import Logic, of_household
from agentrl_envs.alfworld.session import Session
from agentrl_envs.household import Expert, HouseholdSettings, World, make_task
from agentrl_envs.household.demonstrations import random_command
from agentrl_envs.household.examples import example_task
from agentrl_envs.household.settings import ALFWORLD, SMALL, TWO_ROOMS
from agentrl_envs.household.tasks import TASK_TYPES
from tests.envs.test_household_transcripts import CHORES, CONDITIONS, SOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agentrl_envs.household.tasks import Task

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("textworld") is None or importlib.util.find_spec("fast_downward") is None,
    reason="the extra `alfworld` is not installed",
)


@pytest.fixture(scope="module")
def logic(test_data: Path) -> Logic:
    return Logic.read(test_data / "alfworld")


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    made = Session()
    yield made
    made.close()


def tasks_of_each_type(settings: HouseholdSettings, split: str, count: int) -> list[Task]:
    found: dict[str, list[Task]] = {kind: [] for kind in TASK_TYPES}
    for index in range(1000):
        task = make_task(settings, split, index)
        if len(found[task.goal.task_type]) < count:
            found[task.goal.task_type].append(task)
        if all(len(tasks) == count for tasks in found.values()):
            break
    return [task for tasks in found.values() for task in tasks]


def assert_equal_play(session: Session, logic: Logic, task: Task, commands: Iterable[str]) -> World:
    """Play on both; after each command texts, admissible commands and success agree."""
    world = World(task)
    assert session.start(of_household(task, logic)) == world.intro()
    assert session.commands() == world.admissible()
    for command in commands:
        where = (task.split, task.index, command)
        assert (session.send(command), where) == (world.do(command), where)
        assert (session.commands(), where) == (world.admissible(), where)
        assert (session.won(), where) == (world.won(), where)
    return world


def disturbed(task: Task, noise: float, turns: int) -> list[str]:
    """The expert's commands with random ones in between, admissible or not, until it wins and a little on."""
    world, rng = World(task), random.Random(task.index)
    expert = Expert(world.intro())
    commands: list[str] = []
    while not world.won() and len(commands) < turns:
        command = expert.act() if rng.random() >= noise else random_command(world, rng)
        expert.observe(command, world.do(command))
        commands.append(command)
    for _ in range(3):
        commands.append(random_command(world, rng))
        world.do(commands[-1])
    return commands


@pytest.mark.parametrize(
    "settings",
    [SMALL, TWO_ROOMS, replace(TWO_ROOMS, randomized=1.0)],
    ids=["small", "two_rooms", "randomized"],
)
def test_disturbed_experts_are_answered_alike(
    session: Session, logic: Logic, settings: HouseholdSettings
) -> None:
    tasks = tasks_of_each_type(settings, "train", 1)
    assert {task.goal.task_type for task in tasks} == set(TASK_TYPES)
    for task in tasks:
        assert_equal_play(session, logic, task, disturbed(task, 0.4, 40))


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_our_transcripts_are_the_engines_too(session: Session, logic: Logic, task_type: str) -> None:
    texts = SOLUTIONS[task_type], CHORES, CONDITIONS
    for text in texts if task_type == TASK_TYPES[0] else texts[:1]:
        commands = [line[2:] for line in text.splitlines() if line.startswith("> ")]
        assert_equal_play(session, logic, example_task(task_type), commands)


@pytest.mark.slow
def test_random_play_agrees_in_many_houses(session: Session, logic: Logic) -> None:
    for task in tasks_of_each_type(SMALL, "train", 6) + tasks_of_each_type(TWO_ROOMS, "valid_seen", 3):
        assert_equal_play(session, logic, task, disturbed(task, 0.7, 60))


@pytest.mark.slow
def test_houses_of_alfworlds_size_agree(session: Session, logic: Logic) -> None:
    for task in tasks_of_each_type(ALFWORLD, "train", 1):
        assert_equal_play(session, logic, task, disturbed(task, 0.3, 60))

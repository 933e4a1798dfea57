"""What can be known before anything is spent: that settings, algorithm and world fit together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from agentrl.credit.critic import returns_of
from agentrl.credit.keep import keep_all
from agentrl.credit.ledger import TaskRecord
from agentrl.credit.part import name_of, parts_inside
from agentrl.errors import AgentrlError, AlgorithmError, ConfigError, MissingColumnError, did_you_mean
from agentrl.learn.algorithm import Needy
from agentrl.learn.penalty import Need
from agentrl.trajectory.batch import (
    ENTROPY,
    GOLD_LOGPROB,
    GOLD_LOGPROB_FINAL,
    LOGPROB_BEFORE_UPDATE,
    REFERENCE_LOGPROB,
    SENTENCE,
    VALUE,
    VOCABULARY_LOGPROB,
    Batch,
    Column,
)
from agentrl.trajectory.columns import is_reward_component, reward_component
from agentrl.trajectory.pack import pack
from agentrl.trajectory.turn import StopReason, Trajectory, Turn
from agentrl.world.closing import close_world
from agentrl.world.registry import make

if TYPE_CHECKING:
    from collections.abc import Collection

    from agentrl.credit.ledger import Ledger
    from agentrl.learn.algorithm import Algorithm, Credit
    from agentrl.run.settings import TrainSettings
    from agentrl.world.env import TextEnv


def check_algorithm(algorithm: Algorithm, settings: TrainSettings) -> None:
    """Raise `AlgorithmError` where the run cannot give the algorithm what it needs."""
    for part in parts_inside((*algorithm.penalties, algorithm.advantage)):
        for need in part.needs if isinstance(part, Needy) else ():
            if need not in get_args(Need):
                raise AlgorithmError(
                    f"{name_of(part)} needs {need!r}, which no run measures."
                    f"{did_you_mean(need, get_args(Need))} There are {', '.join(get_args(Need))}."
                )
    if algorithm.critic is not None and returns_of(algorithm.advantage) is None:
        raise AlgorithmError(
            f"the algorithm has a critic, and its advantage {name_of(algorithm.advantage)} does not say what "
            "the critic should learn. Use one with returns(), such as TurnGae, or critic=None."
        )
    if settings.rl.steps and settings.rl.members == 1:
        _check_lone_members(algorithm.at(0.0))
    rollouts = settings.rl.tasks * settings.rl.members
    if algorithm.minibatches > rollouts:
        raise AlgorithmError(
            f"the algorithm takes {algorithm.minibatches} minibatches from {rollouts} trajectories a step "
            "(rl.tasks x rl.members). Take fewer minibatches or raise rl.tasks."
        )


def _check_lone_members(algorithm: Algorithm) -> None:
    """Raise where groups of one teach nothing: a success and a failure, each alone, get no advantage."""
    sizes = algorithm.plan.allocator([TaskRecord(), TaskRecord()], 1)
    if algorithm.plan.brancher is not None or list(sizes) != [1, 1]:
        return
    # Whatever a filter keeps of them, so that one for texts need not like these.
    credit = _credit_of(replace(algorithm, keep=keep_all), pack([_alone(0), _alone(1)]))
    if credit is not None and not np.any(credit.advantage_of_sample):
        raise AlgorithmError(
            "rl.members is 1, and the algorithm compares a trajectory with the others of its group: every "
            "advantage would be zero and nothing would be learnt. Set rl.members to 2 or more (8 is common), "
            "or choose an algorithm with another baseline, such as REINFORCE."
        )


def _alone(number: int) -> Trajectory:
    """An episode of one turn, the only one of its group: number 1 succeeds, number 0 fails."""
    turn = Turn(
        np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.float32), "", "", "", float(number)
    )
    return Trajectory(str(number), "", "", str(number), (turn,), StopReason.TERMINATED, success=bool(number))


def _credit_of(algorithm: Algorithm, batch: Batch) -> Credit | None:
    """The credit, with zeros for what a run measures; None where plain arrays are not enough to tell."""
    while True:
        try:
            return algorithm.credit(batch)
        except MissingColumnError as error:
            if not isinstance(error.column, Column):
                return None
            batch = _with_zeros(batch, error.column)
        except AgentrlError:
            return None


def _with_zeros(batch: Batch, column: Column) -> Batch:
    sizes = {
        "E": batch.num_trajectories,
        "S": batch.num_turns,
        "T": batch.num_tokens,
        "N": batch.num_sampled,
    }
    return batch.with_column(column, np.zeros(sizes[column.axis], np.float32))


def check_splits(settings: TrainSettings) -> None:
    """Raise `ConfigError` where a split is missing or has too few tasks for what is asked of it."""
    wanted, warm = settings.evaluation, settings.warm_start
    asked = (
        ("environment.split", settings.environment.split, "warm_start.demonstrations", warm.demonstrations),
        ("evaluation.curve_split", wanted.curve_split, "evaluation.curve_tasks", wanted.curve_tasks),
        ("evaluation.final_split", wanted.final_split, "evaluation.final_tasks", wanted.final_tasks),
    )
    env = make(settings.environment.id, **settings.environment.kwargs)
    try:
        for name, split, counted, tasks in asked:
            if tasks or name == "environment.split":
                first = 0 if name == "environment.split" else wanted.first_task
                _check_split(env, settings.environment.id, (name, split), (counted, first, tasks))
    finally:
        close_world(env)


def _check_split(env: TextEnv, world: str, named: tuple[str, str], asked: tuple[str, int, int]) -> None:
    (setting, split), (counted, first, tasks) = named, asked
    splits = env.list_splits()
    if split not in splits:
        raise ConfigError(
            f"{setting} is {split!r}, and {world} has the splits {', '.join(splits)}; name one of them."
            + did_you_mean(split, splits)
        )
    size = env.num_tasks(split)
    if size is not None and first + tasks > size:
        begin = f" from number {first} on" if first else ""
        raise ConfigError(
            f"{counted} asks for {tasks} tasks{begin}, but split {split!r} has {size}; lower it."
        )


def columns_read(
    algorithm: Algorithm, trajectory: Trajectory, ledger: Ledger, components: Collection[str] | None = None
) -> tuple[Column, ...]:
    """Return the measured columns that credit and loss of one episode read, found by computing them.

    So a part that cannot work says so before anything is spent.

    Args:
        components: of the reward, that the world declares; a component that is neither among them nor in the
            episode is refused. None takes every component for one that other episodes may have.

    Raises:
        AlgorithmError: a part is broken; MissingColumnError: it reads a column that no run measures.
    """
    algorithm = replace(algorithm, on_empty="skip").at(0.0)
    batch = ledger.annotate(pack([trajectory]))
    read: list[Column] = []
    while True:
        try:
            _credit_and_loss(algorithm, batch)
        except MissingColumnError as error:
            column = error.column
            if not isinstance(column, Column):
                raise
            if is_reward_component(column):
                _check_component(trajectory, column, components)
            else:
                _check_measured(algorithm, trajectory, column, error)
                read.append(column)
            batch = _with_zeros(batch, column)
        else:
            return tuple(read)


def _check_component(trajectory: Trajectory, column: Column, components: Collection[str] | None) -> None:
    """Raise where an episode lacks a component of the reward that its world does not declare either."""
    # A declared one may be absent from one episode and stand in the next.
    if components is None or column in map(reward_component, components):
        return
    name = column.name.partition(":")[2]
    raise MissingColumnError(
        f"the algorithm reads {column.name!r}, a component of the reward that {trajectory.environment} "
        f"neither gave in the preflight episode nor declares. Let its step put {name!r} into "
        f"info['rewards'], and where only some turns have it declare reward_names = ({name!r},); or choose "
        "another algorithm.",
        column,
    )


def _credit_and_loss(algorithm: Algorithm, batch: Batch) -> None:
    from agentrl.learn.loss import prepare

    credit = algorithm.credit(batch)
    prepare(algorithm, batch, credit)
    critic = returns_of(algorithm.advantage)
    if algorithm.critic is not None and critic is not None:
        critic.returns(batch, credit.reward, credit.kept)


def _check_measured(
    algorithm: Algorithm, trajectory: Trajectory, column: Column, error: MissingColumnError
) -> None:
    """Raise where a run does not measure the column that an algorithm reads."""
    if column in (REFERENCE_LOGPROB, LOGPROB_BEFORE_UPDATE, ENTROPY, SENTENCE, VOCABULARY_LOGPROB):
        return
    if column == VALUE and algorithm.critic is not None:
        return
    if column in (GOLD_LOGPROB, GOLD_LOGPROB_FINAL):
        if trajectory.gold is not None:
            return
        raise MissingColumnError(
            f"the algorithm reads {column.name!r}, the belief in the gold answer, and "
            f"{trajectory.environment} gives none for {trajectory.task}. Define gold() in the environment, "
            "or choose another algorithm.",
            column,
        ) from error
    raise error

"""What can be known before anything is spent: that settings, algorithm and world fit together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from agentrl.credit.part import name_of
from agentrl.errors import AlgorithmError, ConfigError, MissingColumnError, did_you_mean
from agentrl.learn.penalty import Need
from agentrl.trajectory.batch import LOGPROB_BEFORE_UPDATE, REFERENCE_LOGPROB
from agentrl.trajectory.pack import pack
from agentrl.world.registry import make

if TYPE_CHECKING:
    from agentrl.credit.ledger import Ledger
    from agentrl.learn.algorithm import Algorithm
    from agentrl.run.settings import TrainSettings
    from agentrl.trajectory import Trajectory
    from agentrl.world.env import TextEnv


def check_algorithm(algorithm: Algorithm, settings: TrainSettings) -> None:
    """Raise `AlgorithmError` where the run cannot give the algorithm what it needs."""
    for penalty in algorithm.penalties:
        for need in penalty.needs:
            if need not in get_args(Need):
                raise AlgorithmError(
                    f"the penalty {name_of(penalty)} needs {need!r}, which no run measures."
                    f"{did_you_mean(need, get_args(Need))} There are {', '.join(get_args(Need))}."
                )
    rollouts = settings.rl.tasks * settings.rl.members
    if algorithm.minibatches > rollouts:
        raise AlgorithmError(
            f"the algorithm takes {algorithm.minibatches} minibatches from {rollouts} trajectories a step "
            "(rl.tasks x rl.members). Take fewer minibatches or raise rl.tasks."
        )


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
        env.close()


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


def check_credit(algorithm: Algorithm, trajectory: Trajectory, ledger: Ledger) -> None:
    """Compute the credit of one episode, so that a part that cannot work says so before anything is spent.

    Raises:
        AlgorithmError: a part is broken; MissingColumnError: it reads a column that no run measures.
    """
    batch = ledger.annotate(pack([trajectory]))
    for column in (REFERENCE_LOGPROB, LOGPROB_BEFORE_UPDATE):
        batch = batch.with_column(column, batch.logprob)
    try:
        replace(algorithm, on_empty="skip").at(0.0).credit(batch)
    except MissingColumnError as error:
        # A named reward may be absent from one episode and stand in the next.
        if "'reward:" not in str(error):
            raise

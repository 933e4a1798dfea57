"""Evaluate policies on scenarios: success with intervals clustered by task, failures counted apart."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.config import load
from agentrl.errors import ConfigError, RolloutError, RunDirectoryError
from agentrl.policy.base import Policy, Sampling
from agentrl.rollout import Limits, Play, Stock, collect
from agentrl.run.card import plain, provenance
from agentrl.run.crew import Crew, Recipe
from agentrl.run.directory import RunDirectory, refuse_a_file
from agentrl.run.jobs import collect_on
from agentrl.run.judge import assignments_of, verdict_of
from agentrl.run.outcome import Evaluation, Row
from agentrl.run.players import load_player, player_of
from agentrl.run.scenarios import find, names
from agentrl.run.settings import EnvironmentSettings
from agentrl.run.shard import Task, protocol_of, terms_of
from agentrl.run.suite import EvaluationSuite, ScenarioSettings
from agentrl.trajectory.store import JournalWriter
from agentrl.world.closing import close_world
from agentrl.world.registry import make

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from typing import TypeAlias

    from agentrl.rollout import Assignment
    from agentrl.run.players import Loaded, Player
    from agentrl.run.settings import LimitSettings
    from agentrl.trajectory import Invalid, Trajectory

    Stage: TypeAlias = Callable[[tuple[Assignment, ...], float, float], list[Trajectory | Invalid]]
    # Plays assignments at a temperature and a top-p.


def evaluate(
    what: EvaluationSuite | Path | str,
    policy: str | Policy | Sequence[str | Policy] = (),
    *,
    split: str = "",
    tasks: int = 128,
    rollouts: int = 1,
    out: Path | str | None = None,
    finished: Callable[[Row], None] | None = None,
) -> Evaluation:
    """Play every scenario of a suite, or some tasks of one environment, with every policy.

    Args:
        what: a suite, its TOML file or scenario name; or the id of an environment.
        policy: "random", "expert", "hf:PATH", a run directory with or without ":checkpoint", or a policy
            object; or several of them. The suite's own policies by default.
        split, tasks, rollouts: of an environment; its first split by default. A suite says these itself.
        out: a new folder for `eval.json` and the journals of all trajectories.
        finished: called with each row as it comes.

    Raises:
        ConfigError, RegistryError, RolloutError, RunDirectoryError: sentences that name the repair.
    """
    suite = suite_of(what, split=split, tasks=tasks, rollouts=rollouts)
    given = [policy] if isinstance(policy, str | Policy) else list(policy)
    players = [player_of(item, suite.server) for item in (given or suite.policies)]
    if not players:
        raise ConfigError("nobody plays: name a policy (random, expert, hf:PATH or a run directory).")
    folder = None if out is None else open_folder(Path(out))
    evaluation = play_suite(suite, players, folder, finished)
    if folder is not None:
        folder.write_json("eval.json", evaluation.content())
    return evaluation


def suite_of(
    what: EvaluationSuite | Path | str, *, split: str = "", tasks: int = 128, rollouts: int = 1
) -> EvaluationSuite:
    """Return the suite that is meant: as given, from a TOML file, or made for one environment."""
    if isinstance(what, EvaluationSuite):
        return what
    if isinstance(what, Path) or what.endswith(".toml") or what in names():
        return load(EvaluationSuite, find(what))
    first = split or make(what).list_splits()[0]
    scenario = ScenarioSettings(split=first, tasks=tasks, rollouts=rollouts, modes=("sampled",))
    environment = EnvironmentSettings(id=what, split=first)
    # One process: an environment that a script registered is known to this one only.
    return EvaluationSuite(name=what, processes=1, environment=environment, scenario=(scenario,))


def open_folder(path: Path) -> RunDirectory:
    """Make the folder of an evaluation before anything is spent.

    Raises:
        RunDirectoryError: it cannot be written, or holds an evaluation already.
    """
    if (path / "eval.json").exists():
        raise RunDirectoryError(f"{path} already holds an evaluation; choose another folder with --out.")
    folder = RunDirectory(path)
    try:
        refuse_a_file(path)
        (path / "trajectories").mkdir(parents=True, exist_ok=True)
        folder.write_json("eval.json", {})
        (path / "eval.json").unlink()
    except OSError as error:
        raise RunDirectoryError(
            f"the folder {path} cannot be written: {error.strerror or error}. Choose another with --out."
        ) from error
    return folder


def play_suite(
    suite: EvaluationSuite,
    players: Sequence[Player],
    folder: RunDirectory | None = None,
    finished: Callable[[Row], None] | None = None,
) -> Evaluation:
    """Play a suite; with a folder, every trajectory goes to a journal in it."""
    began = time.monotonic()
    about = provenance()
    _check_tasks(suite)
    rows: list[Row] = []
    for player in players:
        for row in _rows(suite, player):
            if folder is not None:
                _keep(folder, row)
            _check_invalid(row, suite.most_invalid)
            rows.append(row)
            if finished is not None:
                finished(row)
    return Evaluation(plain(suite), tuple(rows), time.monotonic() - began, about)


def _rows(suite: EvaluationSuite, player: Player) -> Iterator[Row]:
    loaded = load_player(player, suite.model)
    with ExitStack() as stack:
        stages: dict[LimitSettings, Stage] = {}
        for scenario in suite.scenario:
            limits = suite.limits_of(scenario)
            if limits not in stages:
                stages[limits] = stack.enter_context(_stage(suite, player, loaded, limits))
            assignments = assignments_of(
                scenario.split, scenario.tasks, first_task=scenario.first_task, rollouts=scenario.rollouts
            )
            for mode in scenario.modes if player.samples else ("sampled",):
                began = time.monotonic()
                greedy = mode == "greedy"
                results = stages[limits](
                    assignments, 0.0 if greedy else scenario.temperature, 1.0 if greedy else scenario.top_p
                )
                yield Row(scenario, player.name, mode, verdict_of(results), time.monotonic() - began)


@contextmanager
def _stage(suite: EvaluationSuite, player: Player, loaded: Loaded, limits: LimitSettings) -> Generator[Stage]:
    """Play on the shards of a crew; a policy object of the user's own plays in this process instead."""
    own = player.policy
    environment = suite.environment
    if own is not None:
        bounds = Limits(**limits.model_dump())
        stock = Stock(lambda: make(environment.id, **environment.kwargs))

        def here(
            assignments: tuple[Assignment, ...], temperature: float, top_p: float
        ) -> list[Trajectory | Invalid]:
            sampling = Sampling(temperature, top_p, bounds.turn_tokens)
            env = stock.look()
            play = Play(
                own,
                protocol_of(environment, env, own.renderer),
                sampling,
                bounds,
                environment.id,
                terms_of(environment, env),
            )
            return collect(stock, play, assignments, concurrency=suite.model.slots)

        try:
            yield here
        finally:
            stock.close()
        return
    # Scripted players cost less than starting a helper process.
    processes = suite.processes if player.samples else 1
    recipe = Recipe(environment, limits, loaded.shape, player.folder, player.memory)
    with Crew(recipe, loaded.model, loaded.renderer, suite.shards, processes) as crew:
        yield lambda assignments, temperature, top_p: collect_on(
            crew, Task(assignments, player.actor, temperature, top_p), None
        )


def _check_tasks(suite: EvaluationSuite) -> None:
    """Raise `ConfigError` where a scenario asks for tasks that its split does not have."""
    env = make(suite.environment.id, **suite.environment.kwargs)
    for scenario in suite.scenario:
        if scenario.split not in env.list_splits():
            raise ConfigError(
                f"scenario {scenario.title!r} names the split {scenario.split!r}; "
                f"{suite.environment.id} has {', '.join(env.list_splits())}."
            )
        size = env.num_tasks(scenario.split)
        last = scenario.first_task + scenario.tasks
        if size is not None and last > size:
            raise ConfigError(
                f"scenario {scenario.title!r} asks for tasks {scenario.first_task} to {last - 1}, but split "
                f"{scenario.split!r} has {size}; lower its tasks or first_task."
            )
    close_world(env)


def _check_invalid(row: Row, most: float) -> None:
    """Raise `RolloutError` where too many rollouts failed to call the rest an evaluation."""
    failed = row.verdict.invalid
    total = len(failed) + len(row.verdict.trajectories)
    if len(failed) <= most * total and row.verdict.trajectories:
        return
    (reason, detail), count = Counter((item.reason, item.detail) for item in failed).most_common(1)[0]
    raise RolloutError(
        f"{len(failed)} of {total} rollouts of {row.policy} on {row.scenario.title} failed, more than the "
        f"{most:.0%} allowed by most_invalid. The commonest failure ({count}x {reason.value}): {detail}. "
        "Repair the environment or policy, or raise most_invalid in the suite."
    )


def _keep(folder: RunDirectory, row: Row) -> None:
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in row.title)
    with JournalWriter(folder.path / "trajectories" / f"{name}.jsonl.zst") as journal:
        journal.append(
            [*(replace(item, policy=row.policy) for item in row.verdict.trajectories), *row.verdict.invalid]
        )

"""`check_env`: whether an environment keeps the contract that rollouts, credit and probes rely on."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import gymnasium.utils.env_checker
import numpy as np
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from agentrl.errors import CheckError, EnvironmentUsageError
from agentrl.testing.calls import changed_by_reading, fails_in_threads, wrong_admissible
from agentrl.testing.consequences import without_consequences
from agentrl.testing.elsewhere import played_elsewhere
from agentrl.testing.keys import wrong_keys
from agentrl.testing.leaks import gold_in_sight, leaks_on_the_way
from agentrl.testing.probe import (
    Lent,
    Probe,
    act,
    address,
    difference,
    generators_at_rest,
    global_randomness,
    key_of,
)
from agentrl.testing.report import CheckReport, Finding, run_checks
from agentrl.testing.results import (
    opposite,
    paid,
    without_success,
    wrong_numbers,
    wrong_types,
)
from agentrl.testing.snapshots import wrong_snapshots
from agentrl.world.asynchronous import AsyncTextEnv
from agentrl.world.closing import RAISED
from agentrl.world.env import TextEnv
from agentrl.world.registry import make

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvCreator

    from agentrl.testing.probe import Moment, Where
    from agentrl.testing.report import Check

Factory: TypeAlias = Callable[[], TextEnv]
_TASKS: Final = 3


def check_env(
    env: str | TextEnv | Factory,
    *,
    tasks: Sequence[Where] | None = None,
    actions: Sequence[str] = (),
    turns: int = 12,
    skip: Collection[str] = (),
    processes: bool = False,
) -> CheckReport:
    """Check an environment against the whole contract and return what was found.

    Args:
        env: an id, an instance that was not reset yet, or a class or function that makes one.
        tasks: (split, index) pairs to play; the first three of the first split by default.
        actions: texts to play; admissible commands, or nonsense where there are none, by default. Give
            actions that reach the end of an episode: checks see only what they play.
        turns: length of an episode at most.
        skip: names of checks to leave out; an unknown one raises `CheckError`.
        processes: play in two other processes, too, where sets of texts have another order. `agentrl envs
            check` does so.

    >>> from agentrl.world.env import TextEnv
    >>> class Door(TextEnv):
    ...     def reset(self, *, seed=None, options=None):
    ...         super().reset(seed=seed, options=options)
    ...         return "A door.", {}
    ...
    ...     def step(self, action):
    ...         opened = action == "open door"
    ...         return (
    ...             ("It opens." if opened else "Nothing happens."),
    ...             float(opened),
    ...             opened,
    ...             False,
    ...             {"valid": opened, "success": opened},
    ...         )
    >>> print(check_env(Door, actions=["look", "open door"]))
    <class 'Door'>: passed (15 checks)
    """
    factory = _factory(env)
    lent = Lent(factory)
    name = env if isinstance(env, str) else env.__qualname__ if isinstance(env, type) else repr(env)
    title = f"<class {name!r}>" if isinstance(env, type) else name
    start = run_checks(title, {"tasks": lambda: _no_tasks(lent())}, ())
    if not tasks and not start:
        lent.close()
        return start
    subject = _EnvironmentChecks(Probe(lent, actions, turns), tuple(tasks or _first_tasks(lent())))
    lent.close()
    checks: dict[str, Check] = {
        name: functools.partial(lent.around, check) for name, check in subject.checks().items()
    }
    if processes:
        checks["processes"] = functools.partial(lent.around, functools.partial(subject.processes, factory))
    report = run_checks(title, checks, skip)
    return dataclasses.replace(report, findings=without_consequences(report.findings))


def _factory(env: object) -> Factory:
    if isinstance(env, AsyncTextEnv) or (isinstance(env, type) and issubclass(env, AsyncTextEnv)):
        raise CheckError(
            "check_env plays synchronously and cannot check an AsyncTextEnv. Check its TextEnv core."
        )
    if isinstance(env, str):
        return functools.partial(make, env)
    if isinstance(env, TextEnv):
        pristine = copy.deepcopy(env)
        return lambda: copy.deepcopy(pristine)
    if not callable(env):
        raise CheckError(f"check_env takes an id, a TextEnv or a class; got {type(env).__name__}.")
    made = cast("Callable[[], object]", env)
    if not isinstance(first := made(), TextEnv):
        raise CheckError(f"check_env needs a TextEnv; {env!r} made a {type(first).__name__}.")
    with contextlib.suppress(*RAISED):  # the check "close" tells it
        first.close()
    return cast("Factory", made)


def _no_tasks(env: TextEnv) -> Iterator[Finding]:
    """What is wrong with the number of tasks of the first split, without which nothing can be played."""
    split = env.list_splits()[0]
    size: object = env.num_tasks(split)
    if size is None or (isinstance(size, int | np.integer) and size > 0):
        return
    text = f"num_tasks({split!r}) is {size!r}; a split has at least one task, and None stands for no end"
    yield Finding("error", "tasks", text)


def _first_tasks(env: TextEnv) -> list[Where]:
    split = env.list_splits()[0]
    size = env.num_tasks(split)
    return [(split, index) for index in range(_TASKS if size is None else min(size, _TASKS))]


class _EnvironmentChecks:
    """The checks by name. Each plays on environments of its own and yields what it finds."""

    def __init__(self, probe: Probe, tasks: tuple[Where, ...]) -> None:
        self.probe = probe
        self.tasks = tasks

    def checks(self) -> dict[str, Check]:
        return {
            "gymnasium": self.gymnasium,
            "tasks": self.task_addresses,
            "types": self.types,
            "order": self.order,
            "determinism": self.determinism,
            "global_random": self.global_random,
            "isolation": self.isolation,
            "keys": self.keys,
            "snapshot": self.snapshot,
            "hooks": self.hooks,
            "threads": self.threads,
            "gold": self.gold,
            "leak": self.leak,
            "admissible": self.admissible,
            "close": self.close,
        }

    def gymnasium(self) -> Iterator[Finding]:
        """Gymnasium's own checker passes without a warning."""
        env = self.probe.make()
        takes_mode = "render_mode" in inspect.signature(type(env)).parameters
        if env.spec is None:
            creator = cast("EnvCreator", self._with_mode)
            env.spec = GymnasiumSpec("checked/Environment-v0", entry_point=creator, order_enforce=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                gymnasium.utils.env_checker.check_env(env, skip_render_check=not takes_mode)
            except AssertionError as error:
                yield Finding("error", "gymnasium", str(error))
        for warning in caught:
            yield Finding("error", "gymnasium", re.sub(r"\x1b\[\d+m", "", str(warning.message)))

    def _with_mode(self, render_mode: str | None = None) -> TextEnv:
        env = self.probe.make()
        env.render_mode = render_mode
        return env

    def task_addresses(self) -> Iterator[Finding]:
        """Each task says where it is, and an index outside of the split is refused."""
        env = self.probe.make()
        for split, index in self.tasks:
            task = env.get_task(split, index)
            if (task.split, task.index) != (split, index):
                yield Finding("error", "tasks", f"get_task({split!r}, {index}) returned {task.id}")
        for split in env.list_splits():
            size = env.num_tasks(split)
            if size is not None and not _refuses(env, split, size):
                yield Finding(
                    "error", "tasks", f"reset to {split}/{size} is outside of the split and did not raise"
                )

    def types(self) -> Iterator[Finding]:
        """Observations are texts, rewards finite numbers, flags booleans, and reserved info has its type."""
        ends: list[tuple[float, object]] = []
        unsaid: list[Finding] = []
        for where in self.tasks:
            env = self.probe.make()
            total = 0.0
            observation, info = env.reset(
                seed=self.probe.seed, options={"split": where[0], "index": where[1]}
            )
            yield from wrong_types("reset", observation, info)
            for turn in range(self.probe.turns):
                step = env.step(self.probe.choose(env, turn))
                yield from wrong_types(f"step {turn}", step[0], step[4])
                yield from wrong_numbers(env, turn, step[1], step[2], step[3])
                total += paid(step[1])
                if step[2] or step[3]:
                    ends.append((total, step[4].get("success")))
                    unsaid += without_success(address(where), step[4]) if step[2] else ()
                    break
        yield from unsaid[:1]
        yield from opposite(ends)

    def order(self) -> Iterator[Finding]:
        """`step` before `reset` and after the end raises `EnvironmentUsageError`."""
        env = self.probe.make()
        if not _raises_usage(env):
            yield Finding("error", "order", "step() before reset() did not raise EnvironmentUsageError")
        ended = 0
        for where in self.tasks:
            if self.probe.play(env, where)[-1].over:
                ended += 1
                if not _raises_usage(env):
                    yield Finding(
                        "error", "order", "step() after the end did not raise EnvironmentUsageError"
                    )
        if not ended:
            text = (
                f"no episode ended within {self.probe.turns} turns; give actions that reach the end "
                "(--action on the command line, actions= in Python)"
            )
            yield Finding("note", "order", text)

    def determinism(self) -> Iterator[Finding]:
        """Members of a group start equal, and the same actions have the same consequences."""
        for where in self.tasks:
            first, second, again = self.probe.make(), self.probe.make(), self.probe.make()
            played = self.probe.play(first, where)
            if text := difference(played, self.probe.play(second, where)):
                yield Finding("error", "determinism", f"{address(where)}, same seed: {text}")
            self.probe.begin(again, where)
            if again.system_text() != second.system_text():
                yield Finding("error", "determinism", f"{address(where)}: system_text differs within a group")

    def processes(self, factory: Factory) -> Iterator[Finding]:
        """Another process sees the same, though its sets have another order."""
        try:
            recordings = played_elsewhere(dataclasses.replace(self.probe, make=factory), self.tasks)
        except CheckError as error:
            yield Finding("note", "processes", str(error))
            return
        for position, where in enumerate(self.tasks):
            here = [
                dataclasses.replace(moment, info={}) for moment in self.probe.play(self.probe.make(), where)
            ]
            texts = (difference(here, there[position]) for there in recordings)
            if text := next(filter(None, texts), None):
                yield Finding("error", "processes", f"{address(where)}, in another process: {text}")

    def global_random(self) -> Iterator[Finding]:
        """The global generators of `random` and `numpy` are left alone; `self.rng` is there instead."""
        with generators_at_rest():
            before = global_randomness()
            for where in self.tasks:
                self.probe.play(self.probe.make(), where)
            after = global_randomness()
        for name, old, new in zip(("random", "numpy.random"), before, after, strict=True):
            if old != new:
                yield Finding("error", "global_random", f"uses the global generator of {name}; use self.rng")

    def isolation(self) -> Iterator[Finding]:
        """Nothing leaks from one episode into the next, nor between two instances."""
        last = self.tasks[-1]
        for where in self.tasks:
            alone = self.probe.play(self.probe.make(), where)
            used = self.probe.make()
            self.probe.play(used, last)
            if text := difference(alone, self.probe.play(used, where)):
                yield Finding("error", "isolation", f"{address(where)} after another episode: {text}")
            if text := difference(alone, self._beside(where, last)):
                yield Finding("error", "isolation", f"{address(where)} beside another instance: {text}")

    def _beside(self, where: Where, other: Where) -> list[Moment]:
        """Play while a neighbour, always a step ahead, plays too; keys are read after its step."""
        env, neighbour = self.probe.make(), self.probe.make()
        played = [self.probe.begin(env, where)]
        self.probe.play(neighbour, other, turns=1)
        for turn in range(self.probe.turns):
            mine = act(env, self.probe.choose(env, turn))
            if neighbour._phase != "running":  # noqa: SLF001  # it starts again for as long as it is needed
                self.probe.begin(neighbour, other)
            act(neighbour, self.probe.choose(neighbour, turn))
            keys = key_of(env.observation_key()), key_of(env.state_key())
            played.append(dataclasses.replace(mine, observation_key=keys[0], state_key=keys[1]))
            if mine.over:
                break
        return played

    def keys(self) -> Iterator[Finding]:
        """Keys can be compared across processes, and a refused action changes none."""
        for where in self.tasks:
            yield from wrong_keys(self.probe, where)

    def snapshot(self) -> Iterator[Finding]:
        """`restore(snapshot())` brings back the same behaviour, here and in another instance."""
        yield from wrong_snapshots(self.probe, self.tasks)

    def hooks(self) -> Iterator[Finding]:
        """A hook may be read any number of times."""
        yield from changed_by_reading(self.probe, self.tasks[0])

    def threads(self) -> Iterator[Finding]:
        """A world that blocks can be played from other threads."""
        yield from fails_in_threads(self.probe, self.tasks[0])

    def close(self) -> Iterator[Finding]:
        """An environment can be closed after an episode began."""
        env = self.probe.make()
        self.probe.begin(env, self.tasks[0])
        try:
            env.close()
        except RAISED as error:
            yield Finding("error", "close", f"close() raised {type(error).__name__}: {error}")

    def gold(self) -> Iterator[Finding]:
        """The reference answer is neither in the prompt nor in info."""
        for where in self.tasks:
            yield from gold_in_sight(self.probe, where)

    def leak(self) -> Iterator[Finding]:
        """No reply on the way tells the answer or judges a guess."""
        for where in self.tasks:
            yield from leaks_on_the_way(self.probe, where)

    def admissible(self) -> Iterator[Finding]:
        """Each command that is called admissible is accepted."""
        yield from wrong_admissible(self.probe, self.tasks)


def _refuses(env: TextEnv, split: str, index: int) -> bool:
    try:
        env.reset(seed=0, options={"split": split, "index": index})
    except EnvironmentUsageError:
        return True
    return False


def _raises_usage(env: TextEnv) -> bool:
    try:
        env.step("look")
    except EnvironmentUsageError:
        return True
    return False

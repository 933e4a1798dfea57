"""Plays episodes and records everything that two equal episodes must have in common."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from agentrl.trajectory import TurnKind, digest
from agentrl.world.closing import RAISED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence

    from agentrl.testing.report import Check, Finding
    from agentrl.world.env import StepResult, TextEnv

Where: TypeAlias = tuple[str, int]
NONSENSE: Final = ("xyzzy the frobnicator", "plugh")
_TIMING: Final = frozenset({"seconds", "time"})


@dataclass(frozen=True)
class Unusable:
    """A key that cannot be compared across processes, and why; the check of keys tells it, no other."""

    why: str


Key: TypeAlias = int | Unusable | None


@dataclass(frozen=True)
class Moment:
    """What one instant of an episode shows; compared between episodes that must be equal."""

    observation: str
    observation_key: Key
    state_key: Key
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, object] = field(default_factory=dict)
    action: str | None = None

    @property
    def over(self) -> bool:
        """Whether the episode ended here."""
        return self.terminated or self.truncated

    @property
    def refused(self) -> bool:
        """Whether the environment says that it did not accept the action."""
        kinds = {TurnKind.PARSE_ERROR, TurnKind.TOOL_ERROR}
        return self.info.get("valid") is False or self.info.get("turn_kind") in kinds


class Lent:
    """Makes environments and remembers them, so that what they hold can be given back.

    Args:
        factory: makes a fresh environment.
    """

    def __init__(self, factory: Callable[[], TextEnv]) -> None:
        self._factory = factory
        self._made: list[TextEnv] = []

    def __call__(self) -> TextEnv:
        """Return a fresh environment."""
        self._made.append(self._factory())
        return self._made[-1]

    def around(self, check: Check) -> Iterator[Finding]:
        """What a check finds; what it made is closed then, for it may hold places at a server."""
        try:
            yield from check()
        finally:
            self.close()

    def close(self) -> None:
        """Close every environment that was made."""
        while self._made:
            with contextlib.suppress(*RAISED):  # the check "close" tells it
                self._made.pop().close()


@dataclass(frozen=True)
class Probe:
    """How a check plays.

    Args:
        make: a fresh environment.
        actions: texts played in turn; without them the admissible commands, drawn by turn, or nonsense.
        turns: length of an episode at most.
        seed: of the environment and of the draws.
    """

    make: Callable[[], TextEnv]
    actions: Sequence[str] = ()
    turns: int = 12
    seed: int = 7

    def begin(self, env: TextEnv, where: Where) -> Moment:
        """Reset to a task."""
        observation, info = env.reset(seed=self.seed, options={"split": where[0], "index": where[1]})
        return moment(env, observation, info=info)

    def play(self, env: TextEnv, where: Where, turns: int | None = None) -> list[Moment]:
        """Reset and play, and return every moment."""
        moments = [self.begin(env, where)]
        moments += self.go_on(env, 0, self.turns if turns is None else turns)
        return moments

    def go_on(self, env: TextEnv, first: int, turns: int) -> list[Moment]:
        """Play on from turn `first` until the episode ends or `turns` have been played."""
        moments: list[Moment] = []
        for turn in range(first, first + turns):
            moments.append(act(env, self.choose(env, turn)))
            if moments[-1].over:
                break
        return moments

    def choose(self, env: TextEnv, turn: int) -> str:
        """Return the action of a turn; the same turn in the same state gives the same."""
        if self.actions:
            return self.actions[turn % len(self.actions)]
        commands = env.admissible()
        if not commands:
            return NONSENSE[turn % len(NONSENSE)]
        noise = np.random.Generator(np.random.Philox(key=digest((self.seed, turn))))
        return commands[int(noise.integers(len(commands)))]


def act(env: TextEnv, action: str) -> Moment:
    """Take one step and record it."""
    return record(env, env.step(action), action)


def record(env: TextEnv, step: StepResult, action: str) -> Moment:
    """Record what a step gave."""
    observation, reward, terminated, truncated, info = step
    return moment(env, observation, float(reward), terminated, truncated, info, action)


def moment(  # the five things of a step
    env: TextEnv,
    observation: str,
    reward: float = 0.0,
    terminated: bool = False,  # as step returns it
    truncated: bool = False,  # as step returns it
    info: Mapping[str, object] | None = None,
    action: str | None = None,
) -> Moment:
    """Record what the environment shows now."""
    shown = {name: value for name, value in (info or {}).items() if name not in _TIMING}
    keys = key_of(env.observation_key()), key_of(env.state_key())
    return Moment(observation, *keys, reward, terminated, truncated, shown, action)


def address(where: Where) -> str:
    """Return where a task is, as text: "train/3"."""
    return f"{where[0]}/{where[1]}"


def key_of(key: Hashable | None) -> Key:
    """Return the digest of a key."""
    try:
        return None if key is None else digest(key)
    except (TypeError, UnicodeEncodeError) as error:
        return Unusable(str(error))


def difference(one: Sequence[Moment], other: Sequence[Moment]) -> str | None:
    """Say where two recordings differ first, or return None."""
    for turn, (first, second) in enumerate(zip(one, other, strict=False)):
        for name in (
            "action",
            "observation",
            "reward",
            "terminated",
            "truncated",
            "observation_key",
            "state_key",
        ):
            left, right = getattr(first, name), getattr(second, name)
            if left != right and (left == left or right == right):  # noqa: PLR0124  # two NaN are alike
                return f"{name} after {turn} actions is {_short(left)} once and {_short(right)} once"
        if repr(sorted(first.info.items())) != repr(sorted(second.info.items())):
            infos = f"{_short(dict(first.info))} once and {_short(dict(second.info))} once"
            return f"info after {turn} actions is {infos}"
    if len(one) != len(other):
        return f"one episode has {len(one) - 1} turns, the other {len(other) - 1}"
    return None


def _short(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


@contextlib.contextmanager
def generators_at_rest() -> Generator[None]:
    """Put the global generators where no world would put them by seeding, and back in the end."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002  # put back, never used
    random.seed("at rest")
    np.random.seed(list(b"at rest"))  # noqa: NPY002  # a state to be looked at
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002  # put back


def global_randomness() -> tuple[str, str]:
    """Return the state of the global generators of `random` and `numpy` as comparable text."""
    name, keys, position, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  # looked at, never used
    return repr(random.getstate()), repr((name, np.asarray(keys).tobytes(), position, rest))

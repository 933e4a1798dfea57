"""Branching: a group of trajectories grows as trees, wave after wave.

Each wave is planned from what stands already, so that a plan is a pure function of finished trajectories and
does not depend on which of them ended first. A branch shares its parent's turns, tokens included, and goes on
from the environment as it stood there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agentrl.errors import RolloutError
from agentrl.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from typing import TypeVar

    from agentrl.rollout.assignment import Assignment
    from agentrl.rollout.stage import Course
    from agentrl.trajectory import Invalid

    Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a new member begins: before turn `turn` of member `parent`, or afresh without a parent."""

    parent: int | None = None
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Growth:
    """A group as it stands.

    Attributes:
        grown: members so far, in their order; `members`: how many the group will have.
        wave: number of this wave, from 0, when nothing stands yet.
        rng: noise of this wave, keyed by (seed, step, task, wave).
    """

    grown: tuple[Trajectory, ...]
    members: int
    wave: int
    rng: np.random.Generator

    @property
    def room(self) -> int:
        """Members that are still to come."""
        return self.members - len(self.grown)


class Brancher(Protocol):
    """A brancher slot: where the members of the next wave begin, at most `growth.room` of them.

    Where it names none the members that are left begin afresh, so a group always gets its size.
    """

    def __call__(self, growth: Growth, /) -> Sequence[Fork]:
        """Return the forks."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a branch leaves its parent: before the parent's turn `turn`, reached on `course`."""

    parent: Trajectory
    turn: int
    course: Course


@dataclass(frozen=True, slots=True)
class Played:
    """How a rollout ended, and the course of its environment."""

    result: Trajectory | Invalid
    course: Course


async def grow(
    assignments: Sequence[Assignment],
    brancher: Brancher,
    play: Callable[[Assignment, Origin | None], Awaitable[Played]],
) -> list[Trajectory | Invalid]:
    """Play one group, wave after wave.

    A wave in which a member fails is the last one: the group will be dropped, so the others are not begun.

    Raises:
        RolloutError: the brancher names a member or turn that is not there, or more than there is room for.
    """
    stems: list[tuple[Trajectory, Course]] = []
    results: list[Trajectory | Invalid] = []
    wave = 0
    while len(results) < len(assignments):
        growth = Growth(
            tuple(stem for stem, _ in stems), len(assignments), wave, _noise(assignments[0], wave)
        )
        origins = [_origin(stems, fork) for fork in _planned(brancher, growth)]
        members = assignments[len(results) : len(results) + len(origins)]
        played = await gathered(play(*pair) for pair in zip(members, origins, strict=True))
        results += [item.result for item in played]
        stems += [(item.result, item.course) for item in played if isinstance(item.result, Trajectory)]
        if len(stems) < len(results):
            break
        wave += 1
    return results


async def gathered(work: Iterable[Awaitable[Result]]) -> list[Result]:
    """Wait for all; where one raises, the others are cancelled."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _planned(brancher: Brancher, growth: Growth) -> Sequence[Fork]:
    forks = tuple(brancher(growth)) or (Fork(),) * growth.room
    if len(forks) > growth.room:
        raise RolloutError(
            f"{brancher!r} named {len(forks)} forks where the group has room for {growth.room}; "
            "return at most growth.room of them."
        )
    return forks


def _origin(stems: Sequence[tuple[Trajectory, Course]], fork: Fork) -> Origin | None:
    if fork.parent is None:
        return None
    if not 0 <= fork.parent < len(stems) or not 0 <= fork.turn < len(stems[fork.parent][0].turns):
        raise RolloutError(
            f"a brancher cannot fork before turn {fork.turn} of member {fork.parent}: the group has "
            f"{len(stems)} members, with {[len(stem.turns) for stem, _ in stems]} turns."
        )
    parent, course = stems[fork.parent]
    return Origin(parent, fork.turn, course)


def _noise(first: Assignment, wave: int) -> np.random.Generator:
    return np.random.default_rng([*first.key(0)[:3], 5, wave])

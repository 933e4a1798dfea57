"""Where groups branch: each brancher against a plan worked out by hand, or by plain loops."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agentrl.errors import AlgorithmError
from agentrl.plan import BalancedForks, EntropyForks, Expand, MonteCarlo, Segments, surprisal
from agentrl.plan.brancher import nodes, roots, runs_of_forks
from agentrl.rollout.branch import Fork, Growth
from agentrl.trajectory import StopReason, Trajectory, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentrl.rollout.branch import Brancher


def turn(entropies: Sequence[float]) -> Turn:
    spread = np.array(entropies, np.float32)
    tokens = np.zeros(len(spread), np.int32)
    return Turn(tokens[:0], tokens, -spread, "o", "t", "a", token_measures={"entropy": spread})


def member(
    number: int, *turns: float, parent: int | None = None, at: int | None = None, hint: int = 0
) -> Trajectory:
    """A trajectory whose turns have these summed entropies."""
    return Trajectory(
        id=str(number), environment="e", task="t", group="g", member=number, stop=StopReason.TERMINATED,
        turns=tuple(turn([total / 2, total / 2]) for total in turns), hint_level=hint,
        parent=None if parent is None else str(parent), branch_turn=at,
    )  # fmt: skip


def growth(*grown: Trajectory, members: int = 8, wave: int = 1, seed: int = 0) -> Growth:
    return Growth(grown, members, wave, np.random.default_rng(seed))


def grow(brancher: Brancher, members: int, turns: int = 4) -> list[Fork]:
    """Grow a group of trajectories of equal length and return where all of its members began."""
    grown: list[Trajectory] = []
    forks: list[Fork] = []
    wave = 0
    while len(grown) < members:
        planned = brancher(growth(*grown, members=members, wave=wave, seed=wave)) or (Fork(),) * (
            members - len(grown)
        )
        for fork in planned:
            at = None if fork.parent is None else fork.turn
            grown.append(member(len(grown), *[1.0] * turns, parent=fork.parent, at=at))
        forks += planned
        wave += 1
    return forks


# -- ARPO --------------------------------------------------------------------------------------------------


def plain_arpo(
    grown: Sequence[Trajectory], room: int, draws: np.random.Generator, *, after: bool
) -> list[Fork]:
    """The next round with any fork, in loops: P(fork) = .5 + .2 (H_now - H_begin) / log(vocabulary)."""
    first = 1 + max(item.branch_turn or 0 for item in grown)
    for place in range(first, max(len(item.turns) for item in grown)):
        forks = []
        for row, item in enumerate(grown):
            if place >= len(item.turns):
                continue
            now = item.turns[place if after else place - 1].token_measures["entropy"][:20].sum()
            begin = item.turns[item.branch_turn or 0].token_measures["entropy"][:20].sum()
            u = draws.random() - 0.2 * float(now - begin) / math.log(151936)
            if min(max(u, 0.0), 1.0) <= 0.5:
                forks.append(Fork(row, place))
        if forks:
            return forks[:room]
    return []


@pytest.mark.parametrize("after", [True, False])
def test_entropy_forks_are_those_of_plain_loops(after: bool) -> None:
    random = np.random.default_rng(5)
    for seed in range(40):
        grown = [member(k, *random.uniform(0, 40, random.integers(1, 5))) for k in range(4)]
        if seed % 2 and len(grown[1].turns) > 1:
            grown.append(member(4, *random.uniform(0, 40, 4), parent=1, at=1))
        planned = EntropyForks(after_reply=after)(growth(*grown, seed=seed))
        assert list(planned) == plain_arpo(grown, 8 - len(grown), np.random.default_rng(seed), after=after)


def test_entropy_decides() -> None:
    # log(151936) = 11.93 nats are one unit. A rise of 3 gives .5 + .2 x 3 = 1.1, certain; a fall of 3, never.
    unit = math.log(151936)
    up, down = member(0, 0.0, 3 * unit, 3 * unit), member(1, 3 * unit, 0.0, 0.0)
    for seed in range(20):
        assert list(EntropyForks()(growth(up, down, seed=seed))) == [Fork(0, 1)]


def test_the_first_wave_is_half_of_the_group() -> None:
    assert EntropyForks()(growth(members=16, wave=0)) == (Fork(),) * 8
    assert grow(EntropyForks(chance=0.0), 8) == [Fork()] * 8  # nothing forks, so the rest begins afresh


def test_policies_without_entropies_use_surprisal() -> None:
    plain = Trajectory(
        "0",
        "e",
        "t",
        "g",
        (Turn(np.zeros(0, np.int32), None, None, "o", "t", "a"),) * 2,
        StopReason.TERMINATED,
    )
    with pytest.raises(AlgorithmError, match=r"measure=agentrl\.plan\.surprisal"):
        EntropyForks()(growth(plain))
    EntropyForks(measure=surprisal)(growth(plain))
    assert surprisal(turn([1.0, 2.0]), 1) == 1.0


# -- AEPO --------------------------------------------------------------------------------------------------


def test_the_first_trajectory_decides_how_many_begin_afresh() -> None:
    # sigmoid((2 - 2) / 2) = 1/2 of 8, plus one; with H_root 10 units above H_tool nearly all of them.
    unit = math.log(151936)
    assert BalancedForks()(growth(wave=0)) == (Fork(),)
    assert len(BalancedForks()(growth(member(0, 2 * unit, 2 * unit)))) == 5 - 1
    assert len(BalancedForks()(growth(member(0, 12 * unit, 2 * unit)))) == 8 - 1
    # Replies unsettle it: int(8 x .0067) + 1 = 1 root, which is there, so that forks begin at once.
    assert all(fork.parent == 0 for fork in BalancedForks()(growth(member(0, 2 * unit, 12 * unit))))


def test_runs_of_forks_tire() -> None:
    forked = [
        member(0, 1, 1, 1, 1),
        member(1, 1, 1, 1, 1, parent=0, at=1),
        member(2, 1, 1, 1, 1, parent=0, at=2),
    ]
    assert [runs_of_forks(forked, turn) for turn in (1, 2, 3, 4)] == [0, 1, 2, 0]
    # chance 1 asks for u x tired >= 0, which holds; with fatigue 1 two rounds leave 0 >= 1 - chance.
    assert BalancedForks(chance=0.5, fatigue=0.5)(growth(*forked, wave=4)) == ()


# -- trees -------------------------------------------------------------------------------------------------


def test_expand_grows_equal_trees() -> None:
    forks = grow(Expand(trees=2, nodes=3), 8)
    assert forks[:2] == [Fork(), Fork()]
    assert [fork.parent for fork in forks[2:]] == [0, 0, 0, 1, 1, 1]
    assert all(1 <= fork.turn < 4 for fork in forks[2:])
    # A second round picks from everything that the trees hold by now.
    deep = grow(Expand(trees=1, nodes=2), 9, turns=8)
    assert {fork.parent for fork in deep} > {None, 0}


def test_expand_finds_a_place_in_short_trees() -> None:
    assert grow(Expand(trees=1, nodes=2), 3, turns=1) == [Fork(), Fork(0, 0), Fork(0, 0)]


def test_segments_split_until_the_group_is_full() -> None:
    # One root splits before turn 1; both split before turn 2, and so on: 1, 2, 4, 8.
    assert grow(Segments(), 8) == [
        Fork(), Fork(0, 1), Fork(0, 2), Fork(1, 2), Fork(0, 3), Fork(1, 3), Fork(2, 3), Fork(3, 3),
    ]  # fmt: skip
    # Longer segments end before turns 2 and 4 only; three ways need two forks each.
    assert grow(Segments(turns=2, width=3), 5, turns=6) == [
        Fork(), Fork(0, 2), Fork(0, 2), Fork(0, 4), Fork(0, 4),
    ]  # fmt: skip


def test_segments_fall_back_on_the_ends_that_there_are() -> None:
    forks = grow(Segments(), 6, turns=2)
    assert forks[:2] == [Fork(), Fork(0, 1)]
    assert {(fork.parent, fork.turn) for fork in forks[2:]} == {(0, 1)}
    assert grow(Segments(), 3, turns=1) == [Fork()] * 3


def test_monte_carlo_spreads_places_over_the_turns() -> None:
    # Seven members are left: three places of two samples, and one more of the first.
    assert grow(MonteCarlo(samples=2), 8, turns=6)[1:] == [
        Fork(0, 0), Fork(0, 2), Fork(0, 4), Fork(0, 0), Fork(0, 2), Fork(0, 4), Fork(0, 0),
    ]  # fmt: skip
    assert grow(MonteCarlo(samples=3), 4, turns=1)[1:] == [Fork(0, 0)] * 3


def test_what_the_expert_played_is_no_place_to_fork() -> None:
    hinted = member(0, 1, 1, 1, 1, hint=2)
    assert nodes([hinted], [0]) == [Fork(0, 3)]
    assert Segments()(growth(hinted)) == (Fork(0, 3),)
    assert MonteCarlo(samples=1)(growth(hinted, members=3)) == (Fork(0, 2), Fork(0, 3))


def test_roots_follow_parents() -> None:
    assert roots(
        [member(0, 1), member(1, 1), member(2, 1, parent=1, at=0), member(3, 1, parent=2, at=0)]
    ) == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: EntropyForks(initial=0.0), lambda: EntropyForks(width=0), lambda: Expand(trees=0),
        lambda: Segments(width=1), lambda: MonteCarlo(samples=0),
    ],
)  # fmt: skip
def test_impossible_numbers_are_refused(wrong: object) -> None:
    with pytest.raises(AlgorithmError, match=r"at (least|most)"):
        wrong()  # type: ignore[operator]  # a function of no arguments

"""Branchers: where the members of a group begin, so that a group grows as trees.

Rounds go by turns, as in a breadth-first search: the forks before turn t are decided for every trajectory
that has such a turn before any fork before turn t + 1 is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agentrl.credit.part import Number, Printed, fixed
from agentrl.errors import AlgorithmError
from agentrl.rollout.branch import Fork

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentrl.rollout.branch import Growth
    from agentrl.trajectory import Trajectory, Turn

QWEN_VOCABULARY = 151_936
"""Entropies are published over the logarithm of this model's vocabulary."""


class Uncertainty(Protocol):
    """How unsure the policy was in a turn, from its first `tokens` tokens, in nats."""

    def __call__(self, turn: Turn, tokens: int, /) -> float:
        """Return the sum over those tokens."""
        ...


def entropy(turn: Turn, tokens: int, /) -> float:
    """Sum of the entropies of the distributions that the first tokens were drawn from.

    Raises:
        AlgorithmError: the policy tells none.
    """
    if "entropy" not in turn.token_measures:
        raise AlgorithmError(
            "the brancher reads entropies, and this policy gives none (Sample.token_measures['entropy']); "
            "use one that does, such as hf, or set measure=agentrl.plan.surprisal."
        )
    return float(turn.token_measures["entropy"][:tokens].sum(dtype=np.float64))


def surprisal(turn: Turn, tokens: int, /) -> float:
    """Minus the log-probability of the first tokens: a one-sample estimate of the sum of their entropies."""
    return 0.0 if turn.logprobs is None else -float(turn.logprobs[:tokens].sum(dtype=np.float64))


@dataclass(frozen=True, repr=False)
class EntropyForks(Printed):
    """ARPO: a trajectory forks where the policy has become less sure than it was at its beginning.

    P(fork before turn t) = chance + weight (H_t - H_begin) within [0, 1], where H is the entropy of the first
    `tokens` tokens of a turn over log(vocabulary) and H_begin that of the trajectory's first own turn. What
    is left after the last round begins afresh. Source: dongguanting/ARPO (arXiv 2507.19849).
    Departures: H_t is of the tokens after the reply, as in the paper; its code takes the turn that ended with
    the call (`after_reply=False`). H_begin is of this trajectory, where its code keeps that of earlier
    prompts. The members left begin afresh together, theirs one in each round.

    Attributes:
        initial: share of the group that begins afresh; `width`: most forks at one turn of a trajectory.
        unit: nats that count as 1.
    """

    initial: float = 0.5
    chance: Number = 0.5
    weight: Number = 0.2
    width: int = 1
    tokens: int = 20
    unit: float = math.log(QWEN_VOCABULARY)
    after_reply: bool = True
    measure: Uncertainty = entropy

    def __post_init__(self) -> None:
        _check_share("initial", self.initial)
        _check_positive(width=self.width, tokens=self.tokens)

    def __call__(self, growth: Growth, /) -> Sequence[Fork]:
        """Return the roots, then the forks of the next round that has any."""
        if not growth.grown:
            return (Fork(),) * max(1, round(self.initial * growth.members))
        return next((forks for _, forks in self._rounds(growth) if forks), ())

    def _rounds(self, growth: Growth) -> Iterator[tuple[int, tuple[Fork, ...]]]:
        for turn, active in rounds(growth.grown):
            drawn = [
                Fork(row, turn) for row in active for _ in range(self.width) if self._forks(growth, row, turn)
            ]
            yield turn, tuple(drawn[: growth.room])

    def _forks(self, growth: Growth, row: int, turn: int) -> bool:
        rise = self.rise(growth.grown[row], turn)
        return bool(growth.rng.random() - fixed(self.weight) * rise <= fixed(self.chance))

    def rise(self, trajectory: Trajectory, turn: int) -> float:
        """How much less sure the policy is before `turn` than it was at the beginning, in units."""
        now = trajectory.turns[turn if self.after_reply else turn - 1]
        begin = trajectory.turns[born(trajectory)]
        return (self.measure(now, self.tokens) - self.measure(begin, self.tokens)) / self.unit


@dataclass(frozen=True, repr=False)
class BalancedForks(EntropyForks):
    """AEPO: how many trajectories begin afresh follows from the first one, and runs of forks grow rarer.

    With H_root the entropy of the first turn and H_tool the mean of the later ones, n sigmoid((H_root -
    H_tool) / 2) + 1 trajectories begin afresh: where replies unsettle the policy more than the task does,
    more of the budget goes to forks. A turn forks where (u + weight rise) max(0, 1 - fatigue c) is at least
    1 - chance, with u uniform and c the rounds in a row in which the group has forked before it. `initial` is
    not read. Source: AEPO (arXiv 2510.14545), rollout of its code.
    Departure: the trajectory that is looked at first is kept, theirs is thrown away.
    """

    fatigue: Number = 0.05

    def __call__(self, growth: Growth, /) -> Sequence[Fork]:
        """Return one root, then the others, then the forks of the next round that has any."""
        if not growth.grown:
            return (Fork(),)
        roots = sum(trajectory.parent is None for trajectory in growth.grown)
        if growth.wave == 1:
            more = min(self._roots(growth) - roots, growth.room)
            if more > 0:
                return (Fork(),) * more
        return next((forks for _, forks in self._rounds(growth) if forks), ())

    def _roots(self, growth: Growth) -> int:
        first = [self.measure(turn, self.tokens) / self.unit for turn in growth.grown[0].turns]
        later = sum(first[1:]) / max(len(first) - 1, 1)
        share = 1.0 / (1.0 + math.exp(-0.5 * (first[0] - later)))
        return min(max(int(growth.members * share) + 1, 1), growth.members)

    def _forks(self, growth: Growth, row: int, turn: int) -> bool:
        eager = growth.rng.random() + fixed(self.weight) * self.rise(growth.grown[row], turn)
        tired = max(0.0, 1.0 - fixed(self.fatigue) * runs_of_forks(growth.grown, turn))
        return bool(eager * tired >= 1.0 - fixed(self.chance))


@dataclass(frozen=True)
class Expand:
    """Tree-GRPO: some trees, and in every round `nodes` random nodes of each grow one more branch.

    A node is the place before a turn, the first one left out; a tree of a single turn grows from its root.
    Rounds go on until the group is full, so with members = trees (1 + nodes rounds) all trees end equal.
    Source: AMAP-ML/Tree-GRPO (arXiv 2509.21240), whose M, N and L are `trees`, `nodes` and the rounds.
    """

    trees: int = 2
    nodes: int = 2

    def __post_init__(self) -> None:
        _check_positive(trees=self.trees, nodes=self.nodes)

    def __call__(self, growth: Growth, /) -> Sequence[Fork]:
        """Return the roots, then one round."""
        if not growth.grown:
            return (Fork(),) * min(self.trees, growth.members)
        tree = roots(growth.grown)
        forks = [fork for root in sorted(set(tree)) for fork in self._round(growth, tree, root)]
        return tuple(forks[: growth.room])

    def _round(self, growth: Growth, tree: Sequence[int], root: int) -> list[Fork]:
        places = nodes(growth.grown, [row for row, other in enumerate(tree) if other == root])
        if not places:
            return [Fork(root, born(growth.grown[root]))] * self.nodes
        return [places[int(number)] for number in growth.rng.integers(len(places), size=self.nodes)]


@dataclass(frozen=True)
class Segments:
    """TreePO: at the end of every segment of `turns` turns each trajectory splits into `width`.

    When no trajectory reaches another segment's end, the members left grow from random ends of segments.
    Source: TreePO (arXiv 2508.17445). Departure: a segment is some turns, theirs some tokens. Its early stop
    of paths that repeat themselves is `Plan.repeats`; what they leave of the budget goes to other paths.
    """

    turns: int = 1
    width: int = 2
    roots: int = 1

    def __post_init__(self) -> None:
        _check_positive(turns=self.turns, roots=self.roots)
        if self.width < 2:  # one is no split
            raise AlgorithmError(f"Segments split a trajectory into at least 2; got width={self.width}.")

    def __call__(self, growth: Growth, /) -> Sequence[Fork]:
        """Return the roots, then the splits of the next segment that ends anywhere."""
        if not growth.grown:
            return (Fork(),) * min(self.roots, growth.members)
        for turn, active in rounds(growth.grown):
            if turn % self.turns == 0:
                forks = [Fork(row, turn) for row in active for _ in range(self.width - 1)]
                return tuple(forks[: growth.room])
        return self._fall_back(growth)

    def _fall_back(self, growth: Growth) -> Sequence[Fork]:
        every = nodes(growth.grown, range(len(growth.grown)))
        ends = [fork for fork in every if fork.turn % self.turns == 0]
        if not ends:
            return ()
        return tuple(ends[int(number)] for number in growth.rng.integers(len(ends), size=growth.room))


@dataclass(frozen=True)
class MonteCarlo:
    """SPO, VinePPO: one trajectory, and `samples` continuations from places spread evenly over its turns.

    The mean outcome of the continuations estimates the value of a place; the first place is the beginning.
    With members = 1 + samples places. Members that are left over go round the places once more.
    Sources: AIFrameResearch/SPO (arXiv 2505.23564), chain; VinePPO (arXiv 2410.01679).
    Departure: places are turn boundaries spread evenly, theirs lie where tokens are unlikely.
    """

    samples: int = 2

    def __post_init__(self) -> None:
        _check_positive(samples=self.samples)

    def __call__(self, growth: Growth, /) -> Sequence[Fork]:
        """Return the trajectory, then all continuations."""
        if not growth.grown:
            return (Fork(),)
        first = born(growth.grown[0])
        turns = len(growth.grown[0].turns) - first
        count = max(1, min(turns, growth.room // self.samples))
        places = [first + place * turns // count for place in range(count)]
        return tuple(Fork(0, places[number % count]) for number in range(growth.room))


@dataclass(frozen=True)
class Recover:
    """Fission-GRPO: where a trajectory failed, recovery rollouts begin after its first error.

    An error is a turn that the world or the parser refused; the world's reply to it is the diagnosis. The
    members that are left are shared evenly by the failures that have one. Source: Fission-GRPO, from its
    abstract, which writes a diagnosis with a simulator.

    Attributes:
        initial: share of the group that begins afresh.
    """

    initial: float = 0.5

    def __post_init__(self) -> None:
        _check_share("initial", self.initial)

    def __call__(self, growth: Growth, /) -> Sequence[Fork]:
        """Return the roots, then all recoveries."""
        if not growth.grown:
            return (Fork(),) * max(1, round(self.initial * growth.members))
        failures = [fork for fork in map(self._failure, range(len(growth.grown)), growth.grown) if fork]
        return tuple(failures[number % len(failures)] for number in range(growth.room if failures else 0))

    def _failure(self, row: int, trajectory: Trajectory) -> Fork | None:
        first, last = born(trajectory), len(trajectory.turns) - 1
        errors = [turn for turn in range(first, last) if not trajectory.turns[turn].valid]
        return Fork(row, errors[0] + 1) if errors and trajectory.success is False else None


# -- trees as they stand -----------------------------------------------------------------------------------


def rounds(grown: Sequence[Trajectory]) -> Iterator[tuple[int, list[int]]]:
    """Give the turns whose forks are still to be decided, and the members that have such a turn.

    Every turn up to the last fork has been decided. A branch's own first turn is no place to fork: it is the
    same place as that of the fork before it.
    """
    decided = max((born(trajectory) for trajectory in grown), default=0)
    longest = max((len(trajectory.turns) for trajectory in grown), default=0)
    for turn in range(decided + 1, longest):
        yield turn, [row for row, trajectory in enumerate(grown) if len(trajectory.turns) > turn]


def nodes(grown: Sequence[Trajectory], rows: Sequence[int]) -> list[Fork]:
    """List the places inside trees, each once: before every own turn but a trajectory's first."""
    return [Fork(row, turn) for row in rows for turn in range(born(grown[row]) + 1, len(grown[row].turns))]


def born(trajectory: Trajectory) -> int:
    """The first turn that is the trajectory's own: not its parent's, and not the expert's."""
    return max(trajectory.branch_turn or 0, trajectory.hint_level)


def roots(grown: Sequence[Trajectory]) -> list[int]:
    """(members,) the member that each one's tree begins with."""
    row_of = {trajectory.id: row for row, trajectory in enumerate(grown)}
    found: list[int] = []
    for row, trajectory in enumerate(grown):
        found.append(row if trajectory.parent is None else found[row_of[trajectory.parent]])
    return found


def runs_of_forks(grown: Sequence[Trajectory], turn: int) -> int:
    """How many rounds in a row before `turn` the group has forked."""
    forked = {trajectory.branch_turn for trajectory in grown if trajectory.parent is not None}
    return next(back for back in range(turn + 1) if turn - 1 - back not in forked)


def _check_positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise AlgorithmError(f"a brancher's {name} must be at least 1; got {count}.")


def _check_share(name: str, share: float) -> None:
    if not 0.0 < share <= 1.0:
        raise AlgorithmError(f"a brancher's {name} must be above 0 and at most 1; got {share}.")

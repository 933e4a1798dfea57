"""Trees: trajectories that share a beginning, by what was seen (prefix trees) or by branching (parents).

A *place* is a node of the tree, the state before a turn: (S,) ids like any peers. The value of a place is the
mean outcome of the trajectories that pass through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from agentrl.credit.advantage import Target, episode_total, mean
from agentrl.credit.compose import Advantage, Composable
from agentrl.credit.part import Printed
from agentrl.credit.peers import Peers, same_observation
from agentrl.credit.pool import pool_of, sum_by
from agentrl.credit.sequence import action_ids, following, number_pairs, prefix_ids
from agentrl.trajectory.batch import NO_KEY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]
    Ids: TypeAlias = NDArray[np.int64]


# -- places ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class SamePast(Printed):
    """Turns of one group whose anchors agree from the first turn on: nodes of a prefix tree."""

    anchor: Peers = same_observation

    def __call__(self, batch: Batch, /) -> Ids:
        """Return (S,)."""
        return prefix_ids(batch, self.anchor(batch))


def same_step(batch: Batch, /) -> Ids:
    """Turns of one group with equal observation, action and next observation: edges of SALT's graph."""
    key = batch.observation_key.astype(np.int64)
    after = np.append(key[1:], NO_KEY)[: len(key)]
    has_turns = batch.turns_per_trajectory > 0
    after[batch.turn_start[1:][has_turns] - 1] = batch.final_observation_key[has_turns]
    edge = number_pairs(number_pairs(batch.group_of_turn, key), action_ids(batch))
    return np.where((key == NO_KEY) | (after == NO_KEY), NO_KEY, number_pairs(edge, after))


def shared_turn(batch: Batch, /) -> Ids:
    """Turns that are one and the same: a branch shares the turns before `branch_turn` with its parent."""
    origin = np.arange(batch.num_turns, dtype=np.int64)
    if not is_branched(batch):
        return origin
    for row in _parents_first(batch):
        if batch.parent[row] >= 0:
            own, theirs = int(batch.turn_start[row]), int(batch.turn_start[batch.parent[row]])
            length = min(int(batch.turns_per_trajectory[[row, batch.parent[row]]].min()),
                         max(int(batch.branch_turn[row]), 0))  # fmt: skip
            origin[own : own + length] = origin[theirs : theirs + length]
    return origin


def copied_turn(batch: Batch, /) -> Ids:
    """(S,) `shared_turn` where the sampled tokens are indeed the same; other turns are their own."""
    own = np.arange(batch.num_turns, dtype=np.int64)
    if not is_branched(batch):
        return own
    origin, counts = shared_turn(batch), np.diff(batch.sample_start)
    origin = np.where(counts[origin] == counts, origin, own)
    token = batch.token[batch.sampled]
    other = np.bincount(batch.turn_of_sample, token != token[copied_sample(batch, origin)], batch.num_turns)
    return np.where(other == 0, origin, own)


def copied_sample(batch: Batch, origin: Ids, /) -> Ids:
    """(N,) the sampled token that each one is a copy of, given the turn that its turn is a copy of."""
    shift = batch.sample_start[origin].astype(np.int64) - batch.sample_start[:-1]
    return np.arange(batch.num_sampled, dtype=np.int64) + shift[batch.turn_of_sample]


def is_branched(batch: Batch, /) -> bool:
    """Whether any trajectory has its parent in the batch."""
    return bool(np.count_nonzero(batch.parent >= 0))


@dataclass(frozen=True, eq=False)
class Copies:
    """Rows of which some are copies of others: turns, or sampled tokens, of branches and their parents.

    Attributes:
        origin: (X,) the row that each is a copy of; `kept`: (X,) whether it carries loss;
        `rank`: (X,) who comes first where an origin itself is not kept.
    """

    origin: Ids
    kept: NDArray[np.bool_]
    rank: NDArray[np.integer]

    def standing(self) -> NDArray[np.bool_]:
        """(X,) one row for each origin with a kept copy: the origin, or its kept copy of lowest rank."""
        copy = self.origin != np.arange(len(self.origin))
        order = np.lexsort((self.rank, copy, ~self.kept))
        first = order[np.unique(self.origin[order], return_index=True)[1]]
        found = np.zeros(len(self.origin), np.bool_)
        found[first] = True
        return found & self.kept

    def mean(self, value: Floats) -> Floats:
        """(X,) the mean over the kept copies of the same row."""
        size = len(self.origin)
        total = np.bincount(self.origin, np.where(self.kept, value, 0.0), size)
        count = np.bincount(self.origin, self.kept, size)
        return (total / np.maximum(count, 1))[self.origin]


def branch_place(batch: Batch, /) -> Ids:
    """Turns that start from the same node of a branched tree; first turns of a group start together."""
    origin = shared_turn(batch)
    before = np.append(-1, origin)[: len(origin)]
    first = -2 - batch.group_of_turn
    return number_pairs(np.where(batch.turn_index == 0, first, before), np.zeros_like(before))


def same_tree(batch: Batch, /) -> Ids:
    """Turns of trajectories that branched, directly or through others, from the same one."""
    root = np.arange(batch.num_trajectories, dtype=np.int64)
    if not is_branched(batch):
        return root[batch.trajectory_of_turn]
    for row in _parents_first(batch):
        if batch.parent[row] >= 0:
            root[row] = root[batch.parent[row]]
    return root[batch.trajectory_of_turn]


def same_fork(batch: Batch, /) -> Ids:
    """Turns of branches that left the same parent at the same turn; those without a parent, of one group.

    So recovery rollouts are compared with each other and not with the attempt that failed: Fission-GRPO.
    """
    parent, turn = batch.parent.astype(np.int64), batch.branch_turn.astype(np.int64)
    first = np.where(parent >= 0, parent, -1 - batch.group.astype(np.int64))
    return number_pairs(first, np.where(parent >= 0, turn, 0))[batch.trajectory_of_turn]


def _parents_first(batch: Batch) -> list[int]:
    """Order the trajectories so that each follows its parent."""
    order: list[int] = []
    done = np.zeros(batch.num_trajectories, np.bool_)
    for row in range(batch.num_trajectories):
        line = []
        node = row
        while node >= 0 and not done[node]:
            done[node] = True
            line.append(node)
            node = int(batch.parent[node])
        order.extend(reversed(line))
    return order


# -- advantages --------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class PlaceDifference(Composable, Printed):
    """V(place after the turn) - V(place before it); after the last turn V is the trajectory's own outcome.

    V is the mean outcome over trajectories through the place, so the term is zero except where ways part.
    Sources: TEMPO's branch term (from its abstract), SPO's edge advantage (AIFrameResearch/SPO).
    """

    place: Peers = SamePast()
    target: Target = episode_total

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        outcome, owner = self.target(batch, reward), batch.trajectory_of_turn
        places = self.place(batch)
        pool = pool_of(outcome, places, owner, kept.baseline, "trajectory")
        known = (pool.count[pool.group] > 0) & (places != NO_KEY)
        value = np.where(known, mean(pool), outcome)
        final = np.zeros(batch.num_trajectories)
        final[owner] = outcome
        return following(batch, value, final) - value


@dataclass(frozen=True, repr=False)
class SubtreeMean(Composable, Printed):
    """TreePO: the outcome minus the mean of each subtree on the way, averaged over the subtrees.

    Subtrees of one trajectory are left out, the whole group always counts.

    Attributes:
        weigh: whether subtrees weigh by their number of trajectories, or all the same.
    """

    place: Peers = branch_place
    weigh: Literal["size", "equal"] = "size"

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,), the same at each turn of a trajectory."""
        outcome, owner = episode_total(batch, reward), batch.trajectory_of_turn
        group = np.unique(batch.group_of_turn, return_inverse=True)[1].astype(np.int64)
        top, places = pool_of(outcome, group, owner, kept.baseline, "trajectory"), self.place(batch)
        nodes = pool_of(outcome, places, owner, kept.baseline, "trajectory")
        size = nodes.count[nodes.group]
        whole = (batch.turn_index == 0) & (size == top.count[top.group])
        weight = np.where((size > 1) & ~whole & (places != NO_KEY), size, 0.0)
        whole_weight = top.count[top.group]
        if self.weigh == "equal":
            weight, whole_weight = (weight > 0).astype(float), (whole_weight > 0).astype(float)
        first = batch.turn_index == 0
        item = weight * (outcome - mean(nodes)) + np.where(first, whole_weight * (outcome - mean(top)), 0.0)
        size_e = batch.num_trajectories
        total = sum_by(owner, item, size_e)
        divisor = sum_by(owner, weight + np.where(first, whole_weight, 0.0), size_e)
        return (total / np.maximum(divisor, 1e-12))[owner]


@dataclass(frozen=True, repr=False)
class Whitened(Composable, Printed):
    """An advantage minus its mean over the kept turns of the batch, over their deviation (n - 1) plus eps."""

    advantage: Advantage
    eps: float = 1e-6

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,); 0 where fewer than two turns are kept."""
        value = self.advantage(batch, reward, kept)
        some = value[kept.loss]
        if len(some) < 2:  # a deviation needs two
            return np.zeros_like(value)
        return np.asarray((value - some.mean()) / (some.std(ddof=1) + self.eps))

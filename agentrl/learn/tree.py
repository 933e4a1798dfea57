"""Token sequences that share prefixes, as a tree: what is computed once for all that begin alike.

Members of a group share their first prompt, branches share the way to their fork, turns with a rewritten
history share what stayed, and a probe's answer shares everything before it. A node is a token after one
particular past, so whatever a causal model says there holds for each sequence that passes through it.

Source of the idea: Tree Training (arXiv 2511.00413); ours: chunks along longest paths, so that attention
meets few and long pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Index: TypeAlias = NDArray[np.int64]
Tokens: TypeAlias = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Tree:
    """Sequences merged where they begin alike. Axes: M nodes, R sequences, C chunks.

    A chunk is the part of a sequence's path that no longer sequence has; its nodes are consecutive. Every
    node stands behind its parent.

    Attributes:
        token: (M,) ids; `depth`: (M,) position of each node in the sequences that pass through it.
        entered: (M,) place of each node in a walk that takes every subtree in one go.
        path: for each sequence the (L,) node of each of its tokens.
        chunk_start: (C+1,) offsets of the chunks' nodes; `owner`: (C,) sequence whose path holds each.
    """

    token: Index
    depth: Index
    entered: Index
    path: tuple[Index, ...]
    chunk_start: Index
    owner: Index

    def __len__(self) -> int:
        return len(self.token)

    @property
    def left(self) -> Index:
        """(M,) where the walk of `entered` leaves each node's subtree: the node's descendants lie between."""
        left = self.entered + 1
        for path in self.path:
            if len(path):
                left[path] = np.maximum(left[path], self.entered[path[-1]] + 1)
        return left


def tree_of(sequences: Sequence[Tokens]) -> Tree:
    """Merge token sequences, (L,) each, where they begin alike.

    >>> tree = tree_of([np.array([5, 6, 7]), np.array([5, 6, 8, 9]), np.array([5])])
    >>> tree.token.tolist(), [path.tolist() for path in tree.path]
    ([5, 6, 8, 9, 7], [[0, 1, 4], [0, 1, 2, 3], [0]])
    """
    rough, count = _rough_paths(sequences)
    number, token, depth = (np.full(count, -1, np.int64) for _ in range(3))
    starts, owners, nodes = [0], [], 0
    for row in sorted(range(len(sequences)), key=lambda row: -len(sequences[row])):
        path = rough[row]
        known = int(np.count_nonzero(number[path] >= 0))
        added = len(path) - known
        if added:
            number[path[known:]] = np.arange(nodes, nodes + added)
            token[nodes : nodes + added] = sequences[row][known:]
            depth[nodes : nodes + added] = np.arange(known, len(path))
            nodes += added
            starts.append(nodes)
            owners.append(row)
    entered = np.zeros(count, np.int64)
    entered[number] = np.arange(count)
    paths = tuple(number[path] for path in rough)
    return Tree(token, depth, entered, paths, np.array(starts, np.int64), np.array(owners, np.int64))


def _rough_paths(sequences: Sequence[Tokens]) -> tuple[list[Index], int]:
    """Nodes in alphabetical order: the path of each sequence, and how many nodes there are."""
    paths = [np.zeros(0, np.int64)] * len(sequences)
    before: Tokens = np.zeros(0, np.int64)
    count, walked = 0, np.zeros(0, np.int64)
    for row in alphabetical(sequences):
        sequence = sequences[row]
        shared = common(before, sequence)
        added = len(sequence) - shared
        walked = np.concatenate([walked[:shared], np.arange(count, count + added)])
        paths[row], before, count = walked, sequence, count + added
    return paths, count


def alphabetical(sequences: Sequence[Tokens]) -> list[int]:
    """The rows in alphabetical order of their tokens, so that those that begin alike stand side by side."""
    keys = [np.asarray(sequence).astype(">u4").tobytes() for sequence in sequences]
    return sorted(range(len(keys)), key=keys.__getitem__)


def common(first: Tokens, second: Tokens) -> int:
    """The length of the common beginning.

    >>> common(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
    2
    """
    size = min(len(first), len(second))
    differs = first[:size] != second[:size]
    return int(differs.argmax()) if differs.any() else size


def nodes_added(sequences: Sequence[Tokens], order: Sequence[int]) -> list[int]:
    """How many nodes each sequence adds to those before it, for rows in alphabetical order."""
    before: Tokens = np.zeros(0, np.int64)
    added: list[int] = []
    for row in order:
        added.append(len(sequences[row]) - common(before, sequences[row]))
        before = sequences[row]
    return added


@dataclass(frozen=True, slots=True)
class Piece:
    """Sequences that are computed together: their `rows`, and how many `nodes` they have."""

    rows: list[int]
    nodes: int


def cut(sequences: Sequence[Tokens], *, tokens: int) -> list[Piece]:
    """Cut rows in alphabetical order into pieces of at most `tokens` nodes, one row at least.

    >>> cut([np.array([1, 2, 3]), np.array([9]), np.array([1, 2, 4])], tokens=4)
    [Piece(rows=[0, 2], nodes=4), Piece(rows=[1], nodes=1)]
    """
    order = alphabetical(sequences)
    pieces: list[Piece] = []
    rows: list[int] = []
    nodes = 0
    for row, added in zip(order, nodes_added(sequences, order), strict=True):
        if rows and nodes + added > tokens:
            pieces.append(Piece(rows, nodes))
            rows, nodes = [], 0
        nodes += added if rows else len(sequences[row])
        rows.append(row)
    return [*pieces, Piece(rows, nodes)] if rows else pieces


def deal(sequences: Sequence[Tokens], shares: int) -> list[list[int]]:
    """Deal rows into shares of nearly equal work, so that those that begin alike stay together.

    >>> deal([np.array([1, 2, 3]), np.array([9, 9, 9]), np.array([1, 2, 4]), np.array([9, 9, 8])], 2)
    [[0, 2], [3, 1]]
    """
    order = alphabetical(sequences)
    # A row costs its new tokens, and a little for those it looks back to.
    cost = np.array(nodes_added(sequences, order), float) + [0.1 * len(sequences[row]) for row in order]
    middle = np.cumsum(cost) - cost / 2
    share = np.minimum((middle / max(float(cost.sum()), 1.0) * shares).astype(int), shares - 1)
    return [
        [row for row, number in zip(order, share.tolist(), strict=True) if number == k] for k in range(shares)
    ]

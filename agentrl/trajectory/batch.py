"""What happened, as columns with offsets: the form that credit and losses read.

Axes, by letter: E trajectories, S turns, T tokens, N sampled tokens. Turns of a trajectory are consecutive,
tokens of a turn are its added prompt followed by its sampled tokens.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from agentrl.errors import BatchError, MissingColumnError
from agentrl.trajectory.arrays import columns_from
from agentrl.trajectory.columns import (
    AXES,
    CURRENT_LOGPROB,
    CURRENT_VOCABULARY_LOGPROB,
    ENTROPY,
    GOLD_LOGPROB,
    GOLD_LOGPROB_FINAL,
    KINDS,
    KNOWN_COLUMNS,
    LOGPROB_BEFORE_UPDATE,
    NO_KEY,
    NO_SPAN,
    REFERENCE_LOGPROB,
    SENTENCE,
    SPAN,
    STOPS,
    VALUE,
    VOCABULARY_LOGPROB,
    Axis,
    Bools,
    Column,
    Floats,
    Ints,
    Keys,
    Places,
    Texts,
    check_length,
    check_range,
    keyed,
    reward_component,
)
from agentrl.trajectory.segments import (
    check_offsets,
    check_sampled,
    expand,
    keys_of,
    offsets,
    ranges,
    renumber,
    segment_sum,
)
from agentrl.trajectory.turn import StopReason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from agentrl.trajectory.detail import TrajectoryDetail, TurnDetail

__all__ = [
    "CURRENT_LOGPROB", "CURRENT_VOCABULARY_LOGPROB", "ENTROPY", "GOLD_LOGPROB", "GOLD_LOGPROB_FINAL",
    "KINDS", "KNOWN_COLUMNS",
    "LOGPROB_BEFORE_UPDATE", "NO_KEY", "NO_SPAN", "REFERENCE_LOGPROB", "SENTENCE", "SPAN", "STOPS", "VALUE",
    "VOCABULARY_LOGPROB",
    "Axis", "Batch", "Bools", "Column", "Floats", "Ints", "Keys", "Texts",
    "expand", "keys_of", "reward_component", "segment_sum",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Batch:
    """Trajectories as frozen columns. Build one with `pack`, or `Batch.from_arrays` from plain arrays.

    Attributes:
        group: (E,) group number; members of one group share a task and an environment seed.
        success: (E,) 1 or 0, -1 where the environment has no notion of success.
        stop: (E,) index into `STOPS`.
        parent, branch_turn: (E,) row of the parent and turn of the fork, or -1.
        turn_start: (E+1,) offsets of each trajectory's turns.
        reward: (S,) environment reward; `kind`: (S,) index into `KINDS`.
        observation_key, state_key: (S,) digests before the action, `NO_KEY` where there is none.
        token_start: (S+1,) offsets of each turn's tokens; `sample_start`: (S+1,) of its sampled tokens.
        token: (T,) ids; `sampled`: (T,) whether the policy drew it.
        logprob: (N,) log-probability as drawn, in nats.
        tool_calls, tool_errors, tool_cost, tool_seconds: (S,) calls made, failed, and what they took.
        columns: optional columns; read them with `batch[COLUMN]`.
        span_roles: names of the numbers in `SPAN`.
        turn_details, trajectory_details: texts and records that no estimator reads; empty without `pack`.
    """

    group: Ints
    member: Ints
    success: NDArray[np.int8]
    stop: NDArray[np.int8]
    parent: Ints
    branch_turn: Ints
    hint_level: Ints
    task: Texts
    domain: Texts
    final_observation_key: Keys
    final_state_key: Keys
    turn_start: Ints
    reward: Floats
    kind: NDArray[np.int8]
    valid: Bools
    spoofed: Bools
    fresh: Bools
    observation_key: Keys
    state_key: Keys
    policy_version: Ints
    role: Texts
    tool_calls: Ints
    tool_errors: Ints
    tool_cost: Floats
    tool_seconds: Floats
    token_start: Ints
    sample_start: Ints
    token: Ints
    sampled: Bools
    logprob: Floats
    columns: Mapping[Column, NDArray[np.generic]] = field(default_factory=dict[Column, "NDArray[np.generic]"])
    span_roles: tuple[str, ...] = ()
    turn_details: tuple[TurnDetail, ...] = ()
    trajectory_details: tuple[TrajectoryDetail, ...] = ()

    def __post_init__(self) -> None:
        sizes = self._sizes()
        for name, axis in AXES.items():
            check_length(name, getattr(self, name), sizes[axis])
        check_offsets("turn_start", self.turn_start, sizes["E"], sizes["S"])
        check_offsets("token_start", self.token_start, sizes["S"], sizes["T"])
        check_offsets("sample_start", self.sample_start, sizes["S"], sizes["N"])
        check_sampled(self.sampled, self.token_start, self.sample_start)
        check_range("group", self.group, 0, 2**31)
        check_range("kind", self.kind, 0, len(KINDS))
        check_range("stop", self.stop, 0, len(STOPS))
        check_range("success", self.success, -1, 2)
        check_range("parent", self.parent, -1, sizes["E"])
        object.__setattr__(self, "columns", keyed(self.columns, sizes))

    def _sizes(self) -> dict[Axis, int]:
        return {"E": len(self.group), "S": len(self.reward), "T": len(self.token), "N": len(self.logprob)}

    # -- sizes and indices ---------------------------------------------------------------------------------

    @property
    def num_trajectories(self) -> int:
        """E."""
        return len(self.group)

    @property
    def num_turns(self) -> int:
        """S."""
        return len(self.reward)

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.token)

    @property
    def num_sampled(self) -> int:
        """N."""
        return len(self.logprob)

    @functools.cached_property
    def trajectory_of_turn(self) -> Places:
        """(S,) trajectory of each turn."""
        return expand(np.arange(self.num_trajectories, dtype=np.int64), self.turn_start)

    @functools.cached_property
    def turn_of_token(self) -> Places:
        """(T,) turn of each token."""
        return expand(np.arange(self.num_turns, dtype=np.int64), self.token_start)

    @functools.cached_property
    def turn_of_sample(self) -> Places:
        """(N,) turn of each sampled token."""
        return expand(np.arange(self.num_turns, dtype=np.int64), self.sample_start)

    @functools.cached_property
    def trajectory_of_sample(self) -> Places:
        """(N,) trajectory of each sampled token."""
        return self.trajectory_of_turn[self.turn_of_sample]

    @functools.cached_property
    def turn_index(self) -> Places:
        """(S,) position of each turn within its trajectory, from 0."""
        return np.arange(self.num_turns, dtype=np.int64) - self.turn_start[self.trajectory_of_turn]

    @functools.cached_property
    def turns_per_trajectory(self) -> Ints:
        """(E,) number of turns."""
        return np.diff(self.turn_start).astype(np.int32)

    @functools.cached_property
    def group_of_turn(self) -> Places:
        """(S,) group of each turn."""
        return self.group.astype(np.int64)[self.trajectory_of_turn]

    @functools.cached_property
    def truncated(self) -> Bools:
        """(E,) whether a limit ended the episode."""
        return np.asarray(self.stop != STOPS.index(StopReason.TERMINATED))

    @functools.cached_property
    def stream_turn_start(self) -> Ints:
        """(R+1,) offsets of each token stream's turns; a stream begins at a trajectory or at a fresh turn."""
        begins = self.fresh.copy()
        begins[self.turn_start[:-1][self.turns_per_trajectory > 0]] = True
        return np.append(np.flatnonzero(begins), self.num_turns).astype(np.int32)

    @functools.cached_property
    def episode_reward(self) -> Floats:
        """(E,) undiscounted sum of rewards."""
        return segment_sum(self.reward, self.turn_start)

    # -- optional columns ----------------------------------------------------------------------------------

    def __contains__(self, column: Column) -> bool:
        return column in self.columns

    def __getitem__(self, column: Column) -> Floats:
        """Return an optional column. Raises `MissingColumnError` naming the probe that provides it."""
        if column not in self.columns:
            raise MissingColumnError(
                f"the batch has no column {column.name!r} (axis {column.axis}); it is provided by "
                f"{column.probe}. Take a world, a policy or a probe that gives it, choose another algorithm, "
                "or pass the column to Batch.from_arrays(columns=...).",
                column,
            )
        return np.asarray(self.columns[column], dtype=np.float32)

    def with_column(self, column: Column, values: NDArray[np.generic]) -> Batch:
        """Return the batch with one more column."""
        return replace(self, columns={**self.columns, column: values})

    def in_span(self, role: str) -> Bools:
        """(N,) whether a sampled token lies in a span of this role (`think`, `tool_call`, `answer`)."""
        if role not in self.span_roles:
            return np.zeros(self.num_sampled, np.bool_)
        return np.asarray(self[SPAN] == self.span_roles.index(role))

    # -- selection -----------------------------------------------------------------------------------------

    def select(self, trajectories: Sequence[int] | NDArray[np.integer]) -> Batch:
        """Return a batch of the given trajectories, in the given order; parents outside become -1."""
        rows = np.asarray(trajectories, dtype=np.int64)
        check_range("trajectories", rows, 0, self.num_trajectories)
        turns = ranges(self.turn_start, rows)
        tokens, samples = ranges(self.token_start, turns), ranges(self.sample_start, turns)
        index: dict[Axis, NDArray[np.int64]] = {"E": rows, "S": turns, "T": tokens, "N": samples}
        picked = {name: getattr(self, name)[index[axis]] for name, axis in AXES.items()}
        picked["parent"] = renumber(self.parent, rows, self.num_trajectories)
        return replace(
            self,
            **picked,
            turn_start=offsets(np.diff(self.turn_start)[rows]),
            token_start=offsets(np.diff(self.token_start)[turns]),
            sample_start=offsets(np.diff(self.sample_start)[turns]),
            columns={column: values[index[column.axis]] for column, values in self.columns.items()},
            turn_details=tuple([self.turn_details[int(s)] for s in turns]) if self.turn_details else (),
            trajectory_details=tuple([self.trajectory_details[int(e)] for e in rows])
            if self.trajectory_details
            else (),
        )

    # -- the door for users of other trainers --------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        *,
        group: ArrayLike | Sequence[object],
        turns_per_trajectory: ArrayLike,
        reward: ArrayLike,
        tokens_per_turn: ArrayLike | None = None,
        **optional: object,
    ) -> Batch:
        """Build a batch from plain arrays; what is not given gets a neutral value.

        Args:
            group: (E,) hashable labels, compared as Python objects; `turns_per_trajectory`: (E,) counts.
            reward: (S,) per turn, held as float32: of 1e8 and 1e8 + 1 it knows no difference.
            tokens_per_turn: (S,) sampled tokens of each turn; one each by default. With prompt tokens, give
                `token_start`, `sample_start`, `token` and `sampled` instead.
            optional: any attribute of `Batch` by name, and `columns={ENTROPY: array}` by `Column` or by name.
                Keys are hashable labels, and None, NaN and the number -1 (`NO_KEY`) make no anchor; labels of
                a final key are those of the same key before a turn. A branch gives `parent` and the number
                of turns that it shares with it, `branch_turn`.

        Raises:
            BatchError: an array does not fit, a name is unknown, a trajectory has no group (None or NaN), or
            the parents are of another group or make no tree.

        >>> batch = Batch.from_arrays(
        ...     group=[0, 0], turns_per_trajectory=[2, 1], reward=[0, 1, 0], observation_key=["a", "b", "a"]
        ... )
        >>> batch.trajectory_of_turn.tolist(), batch.observation_key.tolist()
        ([0, 0, 1], [0, 1, 0])
        """
        known = {item.name for item in fields(cls)} - {"group", "reward", "turn_start"}
        unknown = sorted(set(optional) - known)
        if unknown:
            raise BatchError(
                f"Batch has no column {unknown[0]!r}; it takes {', '.join(sorted(known))} and "
                "columns={...}."
            )
        values = columns_from(group, turns_per_trajectory, reward, tokens_per_turn, optional)
        return cls(**values)  # type: ignore[arg-type]  # every column was converted

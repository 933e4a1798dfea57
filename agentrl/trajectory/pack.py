"""The only crossing between trajectories and a batch: `pack` and its exact inverse `unpack`.

Both are linear in the number of tokens; `pack` runs in every training step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np

from agentrl.errors import BatchError
from agentrl.trajectory.batch import Batch
from agentrl.trajectory.columns import (
    KINDS,
    KNOWN_COLUMNS,
    NO_KEY,
    NO_SPAN,
    SPAN,
    STOPS,
    Bools,
    Column,
    Floats,
    Ints,
    Keys,
    Texts,
    reward_component,
)
from agentrl.trajectory.detail import TrajectoryDetail, TurnDetail
from agentrl.trajectory.segments import keys_of, offsets
from agentrl.trajectory.turn import Invalid, Trajectory, Turn
from agentrl.trajectory.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from agentrl.trajectory.turn import FloatArray, IntArray

__all__ = ["pack", "unpack"]


def pack(trajectories: Sequence[Trajectory], columns: Sequence[Column] = ()) -> Batch:
    """Return trajectories as columns; groups are numbered in order of first appearance.

    Args:
        trajectories: (E,) with token ids and log-probabilities in every turn.
        columns: measures of your own to lift besides `KNOWN_COLUMNS`. A column is lifted from
            `Turn.token_measures` (N), `Turn.measures` (S) or `Trajectory.metrics` (E) when every one has it.

    Raises:
        BatchError: an entry is invalid or text-only, or its arrays do not fit together.

    >>> pack([]).num_trajectories
    0
    """
    _check(trajectories)
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    samples = [_sampled(turn) for turn in turns]
    counts = [len(ids) for ids, _ in samples]
    prompt_counts = [len(turn.prompt_tokens) for turn in turns]
    span, roles = _spans(turns, offsets(counts))
    parts = [
        part for turn, (ids, _) in zip(turns, samples, strict=True) for part in (turn.prompt_tokens, ids)
    ]
    lengths = np.array([prompt_counts, counts], int).T.ravel()
    return Batch(
        **_trajectory_columns(trajectories),
        **_turn_columns(turns),
        **_tool_columns(turns),
        turn_start=offsets([len(trajectory.turns) for trajectory in trajectories]),
        token_start=offsets(np.add(prompt_counts, counts)),
        sample_start=offsets(counts),
        token=_join(parts),
        sampled=np.repeat(np.arange(2 * len(turns)) % 2 == 1, lengths),
        logprob=_join_floats([logprobs for _, logprobs in samples]),
        columns=span | _rewards(turns) | _lift(trajectories, turns, counts, (*KNOWN_COLUMNS, *columns)),
        span_roles=roles,
        turn_details=tuple(map(_turn_detail, turns)),
        trajectory_details=tuple(map(_trajectory_detail, trajectories)),
    )


class _TrajectoryColumns(TypedDict):
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


class _TurnColumns(TypedDict):
    reward: Floats
    kind: NDArray[np.int8]
    valid: Bools
    spoofed: Bools
    fresh: Bools
    observation_key: Keys
    state_key: Keys
    policy_version: Ints
    role: Texts


class _ToolColumns(TypedDict):
    tool_calls: Ints
    tool_errors: Ints
    tool_cost: Floats
    tool_seconds: Floats


def _trajectory_columns(items: Sequence[Trajectory]) -> _TrajectoryColumns:
    rows: dict[str, int] = {}
    for row, item in enumerate(items):
        rows.setdefault(item.id, row)
    parents = [-1 if item.parent is None else rows.get(item.parent, -1) for item in items]
    return _TrajectoryColumns(
        group=keys_of([item.group for item in items]).astype(np.int32),
        member=_ints("member", [item.member for item in items]),
        success=np.array([-1 if item.success is None else int(item.success) for item in items], np.int8),
        stop=np.array([_STOP_NUMBER[item.stop] for item in items], np.int8),
        parent=np.array(parents, np.int32),
        branch_turn=_ints("branch_turn", [-1 if i.branch_turn is None else i.branch_turn for i in items]),
        hint_level=_ints("hint_level", [item.hint_level for item in items]),
        task=_texts("task", [item.task for item in items]),
        domain=_texts("domain", [item.domain for item in items]),
        final_observation_key=_keys("final_observation_key", [item.final_observation_key for item in items]),
        final_state_key=_keys("final_state_key", [item.final_state_key for item in items]),
    )


def _turn_columns(turns: Sequence[Turn]) -> _TurnColumns:
    return _TurnColumns(
        reward=_floats([turn.reward for turn in turns]),
        kind=np.array([_KIND_NUMBER[turn.kind] for turn in turns], np.int8),
        valid=np.array([turn.valid for turn in turns], np.bool_),
        spoofed=np.array([turn.spoofed for turn in turns], np.bool_),
        fresh=np.array([turn.fresh for turn in turns], np.bool_),
        observation_key=_keys("observation_key", [turn.observation_key for turn in turns]),
        state_key=_keys("state_key", [turn.state_key for turn in turns]),
        policy_version=_ints("policy_version", [turn.policy_version for turn in turns]),
        role=_texts("role", [turn.role for turn in turns]),
    )


def _tool_columns(turns: Sequence[Turn]) -> _ToolColumns:
    calls = [turn.tool_calls for turn in turns]
    return _ToolColumns(
        tool_calls=np.array([len(made) for made in calls], np.int32),
        tool_errors=np.array([sum([call.error is not None for call in made]) for made in calls], np.int32),
        tool_cost=_floats([sum([call.cost for call in made]) for made in calls]),
        tool_seconds=_floats([sum([call.seconds for call in made]) for made in calls]),
    )


_STOP_NUMBER = {stop: number for number, stop in enumerate(STOPS)}
_KIND_NUMBER = {kind: number for number, kind in enumerate(KINDS)}


def _check(trajectories: Sequence[Trajectory]) -> None:
    for trajectory in trajectories:
        if isinstance(trajectory, Invalid):
            raise BatchError(
                f"a batch never holds invalid rollouts; got one of task {trajectory.task!r} "
                f"({trajectory.reason}). "
                "Drop them first: [item for item in results if isinstance(item, Trajectory)]."
            )
        for index, turn in enumerate(trajectory.turns):
            _check_turn(turn, f"turn {index} of trajectory {trajectory.id!r}")


def _check_turn(turn: Turn, where: str) -> None:
    if turn.tokens is None or turn.logprobs is None:
        raise BatchError(
            f"{where} has {'text only' if turn.tokens is None else 'no log-probabilities'}, so it "
            "cannot be trained on; "
            "collect it with a policy that returns token ids and log-probabilities (an "
            "OpenAI-compatible server "
            "needs logprobs and return_token_ids), or only evaluate it."
        )
    size = len(turn.tokens)
    if len(turn.logprobs) != size:
        raise BatchError(
            f"{where} has {size} tokens but {len(turn.logprobs)} log-probabilities; give one per token."
        )
    for span in turn.spans:
        if not 0 <= span.start <= span.end <= size:
            raise BatchError(
                f"{where} has a {span.role!r} span from {span.start} to {span.end} over {size} sampled "
                "tokens; "
                "a span must lie within them."
            )


def _sampled(turn: Turn) -> tuple[IntArray, FloatArray]:
    assert turn.tokens is not None and turn.logprobs is not None  # noqa: S101, PT018  narrows what _check_turn saw
    return turn.tokens, turn.logprobs


def _spans(turns: Sequence[Turn], start: Ints) -> tuple[dict[Column, NDArray[np.generic]], tuple[str, ...]]:
    """Return the column of role numbers and the roles in order of first appearance; a later span wins."""
    numbers: dict[str, int] = {}
    values = np.full(int(start[-1]), NO_SPAN, np.int32)
    for turn, begin in zip(turns, start.tolist(), strict=False):
        for span in turn.spans:
            values[begin + span.start : begin + span.end] = numbers.setdefault(span.role, len(numbers))
    return ({SPAN: values} if numbers else {}), tuple(numbers)


def _rewards(turns: Sequence[Turn]) -> dict[Column, NDArray[np.generic]]:
    names = dict.fromkeys(name for turn in turns for name in turn.rewards)
    return {
        reward_component(name): _floats([turn.rewards.get(name, 0.0) for turn in turns]) for name in names
    }


def _lift(
    trajectories: Sequence[Trajectory], turns: Sequence[Turn], counts: Sequence[int], wanted: Iterable[Column]
) -> dict[Column, NDArray[np.generic]]:
    lifted: dict[Column, NDArray[np.generic]] = {}
    for column in wanted:
        name = column.name
        if column.axis == "N" and turns and all(name in turn.token_measures for turn in turns):
            arrays = [turn.token_measures[name] for turn in turns]
            _check_measure(name, arrays, counts)
            lifted[column] = _join_floats(arrays)
        elif column.axis == "S" and turns and all(name in turn.measures for turn in turns):
            lifted[column] = _floats([turn.measures[name] for turn in turns])
        elif column.axis == "E" and trajectories and all(name in item.metrics for item in trajectories):
            lifted[column] = _floats([item.metrics[name] for item in trajectories])
    return lifted


def _check_measure(name: str, arrays: Sequence[FloatArray], counts: Sequence[int]) -> None:
    for turn, (values, count) in enumerate(zip(arrays, counts, strict=True)):
        if len(values) != count:
            raise BatchError(
                f"token measure {name!r} has {len(values)} entries in turn {turn} of the batch, which "
                f"sampled {count} "
                "tokens; give one entry per sampled token."
            )


def _floats(values: list[float]) -> Floats:
    with np.errstate(over="ignore"):
        return np.array(values, np.float32)


def _ints(name: str, values: list[int]) -> Ints:
    try:
        return np.array(values, np.int32)
    except OverflowError as error:
        raise BatchError(f"{name!r} must fit 32 bits; {error}.") from error


def _keys(name: str, values: list[int | None]) -> Keys:
    if any(value is not None and not 0 <= value < 2**63 for value in values):
        raise BatchError(
            f"{name!r} must be a number from 0 to 2**63 - 1, or None; make keys with agentrl.digest(...)."
        )
    return np.array([NO_KEY if value is None else value for value in values], np.int64)


def _texts(name: str, values: list[str]) -> Texts:
    if any(value.endswith("\0") for value in values):
        raise BatchError(
            f"{name!r} must not end with a NUL character, which a text column cannot hold; strip it."
        )
    return np.array(values, np.str_)


def _join(parts: Sequence[IntArray]) -> Ints:
    return np.concatenate([np.zeros(0, np.int32), *parts]).astype(np.int32, copy=False)


def _join_floats(parts: Sequence[FloatArray]) -> Floats:
    return np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float32, copy=False)


def _turn_detail(turn: Turn) -> TurnDetail:
    return TurnDetail(
        turn.observation,
        turn.text,
        turn.action,
        turn.reward,
        turn.rewards,
        turn.tool_calls,
        turn.spans,
        turn.finish,
        turn.generate_seconds,
        turn.environment_seconds,
        turn.snapshot,
        turn.loss_prompt_tokens,
        turn.measures,
        turn.token_measures,
    )


def _trajectory_detail(trajectory: Trajectory) -> TrajectoryDetail:
    return TrajectoryDetail(
        id=trajectory.id,
        environment=trajectory.environment,
        group=trajectory.group,
        parent=trajectory.parent,
        seed=trajectory.seed,
        step=trajectory.step,
        final_observation=trajectory.final_observation,
        task_type=trajectory.task_type,
        policy=trajectory.policy,
        sandbox_tier=trajectory.sandbox_tier,
        metrics=trajectory.metrics,
        gold=trajectory.gold,
        system=trajectory.system,
    )

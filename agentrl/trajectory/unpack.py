"""The way back from a batch to trajectories; see `agentrl.trajectory.pack`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from agentrl.errors import BatchError
from agentrl.trajectory.columns import KINDS, NO_KEY, SPAN, STOPS, Floats, is_reward_component
from agentrl.trajectory.turn import Trajectory, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

Scalar = TypeVar("Scalar", bound=np.generic)


def unpack(batch: Batch) -> list[Trajectory]:
    """Return the trajectories that a batch was packed from, exactly; the inverse of `pack`.

    A column added since (by a probe) becomes a measure of the turns or a metric of the trajectories, so that
    packing again gives it back.

    Raises:
        BatchError: the batch holds no texts and records, as one of `Batch.from_arrays`, or an added column
            runs over prompt tokens.
    """
    if len(batch.trajectory_details) != batch.num_trajectories or len(batch.turn_details) != batch.num_turns:
        raise BatchError(
            "this batch was built from plain arrays and holds no texts, so there are no trajectories to "
            "give back; "
            "unpack only batches that come from pack(trajectories)."
        )
    columns = _Columns.of(batch)
    turns = _turns(batch, columns)
    start = batch.turn_start.tolist()
    return [
        _trajectory(batch, columns, e, tuple(turns[start[e] : start[e + 1]])) for e in range(len(start) - 1)
    ]


@dataclass(frozen=True, slots=True)
class _Columns:
    """Added columns by axis and name."""

    metrics: Mapping[str, list[float]]
    measures: Mapping[str, list[float]]
    token_measures: Mapping[str, Floats]

    @classmethod
    def of(cls, batch: Batch) -> _Columns:
        added = [column for column in batch.columns if column != SPAN and not is_reward_component(column)]
        for column in added:
            if column.axis == "T":
                raise BatchError(
                    f"column {column.name!r} runs over all tokens and has no place in a turn; drop it "
                    "before unpack."
                )
        return cls(
            metrics={column.name: batch[column].tolist() for column in added if column.axis == "E"},
            measures={column.name: batch[column].tolist() for column in added if column.axis == "S"},
            token_measures={column.name: batch[column] for column in added if column.axis == "N"},
        )


def _turns(batch: Batch, columns: _Columns) -> list[Turn]:
    sizes = np.diff(batch.sample_start)
    prompts = _slices(batch.token[~batch.sampled], np.diff(batch.token_start) - sizes)
    sampled = _slices(batch.token[batch.sampled], sizes)
    logprobs = _slices(batch.logprob, sizes)
    arrays = {name: _slices(values, sizes) for name, values in columns.token_measures.items()}
    turns: list[Turn] = []
    for s, detail in enumerate(batch.turn_details):
        turns.append(
            Turn(
                prompt_tokens=prompts[s],
                tokens=sampled[s],
                logprobs=logprobs[s],
                observation=detail.observation,
                text=detail.text,
                action=detail.action,
                reward=_precise(detail.reward, float(batch.reward[s])),
                rewards=detail.rewards,
                kind=KINDS[int(batch.kind[s])],
                valid=bool(batch.valid[s]),
                spoofed=bool(batch.spoofed[s]),
                fresh=bool(batch.fresh[s]),
                observation_key=_key(int(batch.observation_key[s])),
                state_key=_key(int(batch.state_key[s])),
                tool_calls=detail.tool_calls,
                spans=detail.spans,
                role=str(batch.role[s]),
                finish=detail.finish,
                policy_version=int(batch.policy_version[s]),
                generate_seconds=detail.generate_seconds,
                environment_seconds=detail.environment_seconds,
                snapshot=detail.snapshot,
                loss_prompt_tokens=detail.loss_prompt_tokens,
                measures=_fold(detail.measures, columns.measures, s),
                token_measures={
                    **detail.token_measures,
                    **{name: values[s] for name, values in arrays.items()},
                },
            )
        )
    return turns


def _trajectory(batch: Batch, columns: _Columns, e: int, turns: tuple[Turn, ...]) -> Trajectory:
    detail = batch.trajectory_details[e]
    success, branch_turn = int(batch.success[e]), int(batch.branch_turn[e])
    return Trajectory(
        id=detail.id,
        environment=detail.environment,
        task=str(batch.task[e]),
        group=detail.group,
        turns=turns,
        stop=STOPS[int(batch.stop[e])],
        member=int(batch.member[e]),
        seed=detail.seed,
        step=detail.step,
        success=None if success < 0 else bool(success),
        final_observation=detail.final_observation,
        final_observation_key=_key(int(batch.final_observation_key[e])),
        final_state_key=_key(int(batch.final_state_key[e])),
        parent=detail.parent,
        branch_turn=None if branch_turn < 0 else branch_turn,
        domain=str(batch.domain[e]),
        task_type=detail.task_type,
        hint_level=int(batch.hint_level[e]),
        policy=detail.policy,
        sandbox_tier=detail.sandbox_tier,
        metrics=_fold(detail.metrics, columns.metrics, e),
        gold=detail.gold,
        system=detail.system,
    )


def _slices(values: NDArray[Scalar], counts: NDArray[np.integer]) -> list[NDArray[Scalar]]:
    """Return one copy per segment, so that a kept turn does not keep the whole batch alive."""
    ends = np.cumsum(counts).tolist()
    return (
        [values[begin:end].copy() for begin, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []
    )


def _key(value: int) -> int | None:
    return None if value == NO_KEY else value


def _precise(exact: float, column: float) -> float:
    """Return the full-precision value that the column was rounded from, or the column if it was replaced."""
    with np.errstate(over="ignore"):
        rounded = float(np.float32(exact))
    return exact if rounded == column or (math.isnan(rounded) and math.isnan(column)) else column


def _fold(exact: Mapping[str, float], columns: Mapping[str, list[float]], row: int) -> Mapping[str, float]:
    if not columns:
        return exact
    return {
        **exact,
        **{name: _precise(exact.get(name, math.nan), values[row]) for name, values in columns.items()},
    }

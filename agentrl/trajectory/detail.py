"""Records of a batch that no estimator reads: what `unpack` needs to give the objects back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentrl.trajectory.turn import FloatArray, IntArray, Span, ToolCall


@dataclass(frozen=True, slots=True)
class TurnDetail:
    """What a turn holds besides its columns; see `Turn`. `reward` is the column in full precision."""

    observation: str
    text: str
    action: str
    reward: float
    rewards: Mapping[str, float]
    tool_calls: tuple[ToolCall, ...]
    spans: tuple[Span, ...]
    finish: str
    generate_seconds: float
    environment_seconds: float
    snapshot: str | None
    loss_prompt_tokens: IntArray | None
    measures: Mapping[str, float]
    token_measures: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class TrajectoryDetail:
    """What a trajectory holds besides its columns; see `Trajectory`."""

    id: str
    environment: str
    group: str
    parent: str | None
    seed: int
    step: int
    final_observation: str
    task_type: str
    policy: str
    sandbox_tier: str
    metrics: Mapping[str, float]
    gold: str | None
    system: str

"""What happened: turns and trajectories (objects), batches (columns), files."""

from agentrl.trajectory.turn import (
    FloatArray,
    IntArray,
    Invalid,
    InvalidReason,
    Span,
    StopReason,
    ToolCall,
    Trajectory,
    Turn,
    TurnKind,
    digest,
    no_tokens,
    same,
)

__all__ = [
    "FloatArray",
    "IntArray",
    "Invalid",
    "InvalidReason",
    "Span",
    "StopReason",
    "ToolCall",
    "Trajectory",
    "Turn",
    "TurnKind",
    "digest",
    "no_tokens",
    "same",
]

"""Hypothesis strategies for trajectories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agentrl.trajectory import Invalid, InvalidReason, Span, StopReason, ToolCall, Trajectory, Turn, TurnKind

if TYPE_CHECKING:
    from agentrl.trajectory import FloatArray, IntArray

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.sampled_from(["a", "b", "task-ü", ""])
SCALARS = st.dictionaries(
    st.sampled_from(["gold_logprob", "gold_logprob_final", "judge"]), st.floats(), max_size=2
)
KEYS = st.none() | st.integers(0, 2**63 - 1)
COUNTS = st.integers(0, 2**31 - 1)
SECONDS = st.floats(0, 1e6)


def _ids(size: int) -> st.SearchStrategy[IntArray]:
    return arrays(np.int32, size)


def _numbers(size: int) -> st.SearchStrategy[FloatArray]:
    return arrays(np.float32, size)


@st.composite
def _ranges(draw: st.DrawFn, size: int) -> tuple[int, int]:
    start = draw(st.integers(0, size))
    return start, draw(st.integers(start, size))


@st.composite
def _spans(draw: st.DrawFn, size: int) -> Span:
    return Span(draw(st.sampled_from(["think", "tool_call", "answer"])), *draw(_ranges(size)))


@st.composite
def _calls(draw: st.DrawFn, size: int) -> ToolCall:
    start, end = draw(_ranges(size))
    return ToolCall(
        draw(TEXTS),
        "{}",
        "ok",
        draw(st.none() | TEXTS),
        start=start,
        end=end,
        seconds=draw(SECONDS),
        cost=draw(SECONDS),
    )


@st.composite
def turns(draw: st.DrawFn, *, text_only: bool = False) -> Turn:
    """One turn with any contents; without tokens when `text_only`."""
    size = 0 if text_only else draw(st.integers(0, 4))
    token_measures = st.dictionaries(st.sampled_from(["entropy", "mine"]), _numbers(size), max_size=2)
    return draw(
        st.builds(
            Turn,
            prompt_tokens=st.integers(0, 4).flatmap(_ids),
            tokens=st.none() if text_only else _ids(size),
            logprobs=st.none() if text_only else _numbers(size),
            observation=TEXTS, text=TEXTS, action=TEXTS, reward=st.floats(),
            rewards=st.dictionaries(NAMES, st.floats(), max_size=2),
            kind=st.sampled_from(TurnKind), valid=st.booleans(), spoofed=st.booleans(), fresh=st.booleans(),
            observation_key=KEYS, state_key=KEYS,
            tool_calls=st.lists(_calls(size), max_size=2).map(tuple),
            spans=st.lists(_spans(size), max_size=2).map(tuple),
            role=NAMES, finish=TEXTS, policy_version=COUNTS, generate_seconds=SECONDS,
            environment_seconds=SECONDS,
            snapshot=st.none() | TEXTS, loss_prompt_tokens=st.none() | _ids(2), measures=SCALARS,
            token_measures=token_measures,
        )
    )  # fmt: skip


def trajectories(*, text_only: bool = False) -> st.SearchStrategy[Trajectory]:
    """One trajectory of up to three turns."""
    return st.builds(
        Trajectory,
        id=NAMES, environment=TEXTS, task=NAMES, group=NAMES,
        turns=st.lists(turns(text_only=text_only), max_size=3).map(tuple),
        stop=st.sampled_from(StopReason), member=COUNTS, seed=COUNTS, step=COUNTS,
        success=st.none() | st.booleans(), final_observation=TEXTS, final_observation_key=KEYS,
        final_state_key=KEYS,
        parent=st.none() | NAMES, branch_turn=st.none() | COUNTS, domain=NAMES, task_type=TEXTS,
        hint_level=COUNTS,
        policy=TEXTS, sandbox_tier=TEXTS, metrics=SCALARS, gold=st.none() | TEXTS, system=TEXTS,
    )  # fmt: skip


def invalids() -> st.SearchStrategy[Invalid]:
    """One invalid rollout."""
    return st.builds(
        Invalid, reason=st.sampled_from(InvalidReason), detail=TEXTS, environment=TEXTS, task=NAMES,
        group=NAMES,
        member=COUNTS, step=COUNTS, turns_done=COUNTS,
    )  # fmt: skip

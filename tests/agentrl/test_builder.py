"""`TrajectoryBuilder`: exact tokens, finishing and branching."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agentrl.errors import BatchError, RolloutError, TemplateError
from agentrl.trajectory import Span, StopReason, ToolCall, Turn, same
from agentrl.trajectory.builder import TrajectoryBuilder, sampled_mask, stream_tokens


def ids(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(values, np.int32)


def turn(prompt: tuple[int, ...], sampled: tuple[int, ...]) -> Turn:
    return Turn(ids(*prompt), ids(*sampled), np.zeros(len(sampled), np.float32), "see", "say", "do")


def builder() -> TrajectoryBuilder:
    made = TrajectoryBuilder(id="a", environment="e", task="t", group="g", seed=3, domain="d")
    made.add_turn(turn((1, 2), (3,)), ids(1, 2))
    made.add_turn(turn((4,), (5, 6)), ids(1, 2, 3, 4))
    return made


def test_a_stream_is_the_concatenation_of_what_turns_add() -> None:
    made = builder()
    made.add_turn(replace(turn((7, 8), (9,)), fresh=True), ids(7, 8))
    assert made.stream_tokens(0).tolist() == [1, 2, 3, 4, 5, 6]
    assert made.stream_tokens().tolist() == [7, 8, 9]
    finished = made.finish(StopReason.TERMINATED)
    assert [stream.tolist() for stream in stream_tokens(finished)] == [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
    assert [mask.astype(int).tolist() for mask in sampled_mask(finished)] == [[0, 0, 1, 0, 1, 1], [0, 0, 1]]


def test_added_is_what_a_prompt_adds() -> None:
    assert builder().added(ids(1, 2, 3, 4, 5, 6, 7)).tolist() == [7]
    assert TrajectoryBuilder(id="a", environment="e", task="t", group="g").added(ids(1)).tolist() == [1]


@pytest.mark.parametrize(("prompt", "place"), [(ids(1, 2, 9, 4, 5, 6, 7), 2), (ids(1, 2, 3), 3)])
def test_a_prompt_that_rewrites_history_is_refused(
    prompt: np.ndarray[tuple[int], np.dtype[np.int32]], place: int
) -> None:
    with pytest.raises(
        TemplateError, match=rf"turn 2 of trajectory 'a' rewrites history.*token {place} of 6"
    ):
        builder().added(prompt)


def test_a_turn_must_store_what_its_prompt_adds() -> None:
    with pytest.raises(TemplateError, match="stores 1 prompt tokens that are not the 2 that its prompt adds"):
        builder().add_turn(turn((7,), (9,)), ids(1, 2, 3, 4, 5, 6, 7, 8))
    with pytest.raises(TemplateError, match="stores 1 prompt tokens"):
        builder().add_turn(replace(turn((7,), (9,)), fresh=True), ids(8))


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (
            replace(turn((1,), (2,)), logprobs=np.zeros(2, np.float32)),
            "sampled 1 tokens but logprobs has 2 entries",
        ),
        (
            replace(turn((1,), (2,)), token_measures={"entropy": np.zeros(0, np.float32)}),
            "'entropy' has 0 entries",
        ),
        (replace(turn((1,), (2,)), spans=(Span("think", 0, 2),)), "span 'think' runs from 0 to 2"),
        (replace(turn((1,), (2,)), tool_calls=(ToolCall("go", "{}", start=1, end=0),)), "call of 'go' runs"),
        (replace(turn((1,), (2,)), tokens=None), "mixes text-only and token turns"),
    ],
)
def test_a_turn_whose_parts_do_not_fit_is_refused(bad: Turn, sentence: str) -> None:
    with pytest.raises(RolloutError, match=sentence):
        builder().add_turn(bad)


def test_finish_freezes() -> None:
    made = builder()
    finished = made.finish(StopReason.MAX_TURNS, success=False, final_observation="end", metrics={"x": 1.0})
    assert (finished.seed, finished.domain, finished.success, finished.metrics) == (3, "d", False, {"x": 1.0})
    assert len(finished.turns) == 2
    with pytest.raises(RolloutError, match="'a' is finished"):
        made.add_turn(turn((7,), (8,)))
    with pytest.raises(RolloutError, match="'a' is finished"):
        made.finish(StopReason.MAX_TURNS)


def test_text_only_turns_have_no_stream() -> None:
    made = TrajectoryBuilder(id="a", environment="e", task="t", group="g")
    made.add_turn(replace(turn((), ()), tokens=None, logprobs=None))
    with pytest.raises(BatchError, match="text-only turns"):
        stream_tokens(made.finish(StopReason.TERMINATED))


@pytest.mark.parametrize("finished", [True, False])
def test_a_branch_shares_the_first_turns(finished: bool) -> None:
    source = builder().finish(StopReason.TERMINATED) if finished else builder()
    made = TrajectoryBuilder.branch(source, 1, id="b", member=4)
    made.add_turn(turn((4,), (7,)), ids(1, 2, 3, 4))
    child = made.finish(StopReason.TERMINATED)
    assert (child.parent, child.branch_turn, child.member, child.group, child.seed) == ("a", 1, 4, "g", 3)
    assert same(child.turns[0], source.turns[0])
    assert len(source.turns) == 2
    assert stream_tokens(child)[0].tolist() == [1, 2, 3, 4, 7]


def test_a_branch_outside_its_parent_is_refused() -> None:
    with pytest.raises(RolloutError, match="cannot branch 'a' at turn 3: it has 2 turns"):
        TrajectoryBuilder.branch(builder(), 3, id="b", member=0)

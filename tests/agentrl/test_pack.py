"""`pack` and `unpack`: the only crossing between trajectories and a batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from agentrl.errors import BatchError, MissingColumnError
from agentrl.testing.make import make_trajectories
from agentrl.trajectory import Invalid, InvalidReason, Span, StopReason, ToolCall, Trajectory, Turn, same
from agentrl.trajectory.batch import (
    ENTROPY,
    GOLD_LOGPROB,
    GOLD_LOGPROB_FINAL,
    NO_KEY,
    REFERENCE_LOGPROB,
    SPAN,
    Batch,
    Column,
    reward_component,
)
from agentrl.trajectory.pack import pack, unpack


def ids(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(values, np.int32)


def turn(prompt: int = 1, sampled: int = 2) -> Turn:
    return Turn(
        ids(*range(prompt)),
        ids(*range(10, 10 + sampled)),
        np.full(sampled, -0.5, np.float32),
        "see",
        "say",
        "do",
    )


def trajectory(*turns: Turn, name: str = "a", group: str = "g") -> Trajectory:
    return Trajectory(name, "e", "t", group, turns, StopReason.TERMINATED)


def test_tokens_of_a_turn_are_its_prompt_then_its_sample() -> None:
    batch = pack(
        [trajectory(turn(prompt=2, sampled=1), turn(prompt=1, sampled=2)), trajectory(turn(0, 1), name="b")]
    )
    assert batch.token.tolist() == [0, 1, 10, 0, 10, 11, 10]
    assert batch.sampled.tolist() == [False, False, True, False, True, True, True]
    assert batch.turn_start.tolist() == [0, 2, 3]
    assert batch.token_start.tolist() == [0, 3, 6, 7]
    assert batch.sample_start.tolist() == [0, 1, 3, 4]


def test_groups_are_numbered_in_order_of_first_appearance() -> None:
    names = ["z", "a", "z", "m"]
    batch = pack([trajectory(turn(), name=str(row), group=group) for row, group in enumerate(names)])
    assert batch.group.tolist() == [0, 1, 0, 2]


def test_parent_is_the_row_of_its_id_and_minus_one_outside() -> None:
    child = replace(trajectory(turn(), name="child"), parent="root", branch_turn=0)
    orphan = replace(trajectory(turn(), name="orphan"), parent="gone", branch_turn=1)
    batch = pack([child, orphan, trajectory(turn(), name="root")])
    assert batch.parent.tolist() == [2, -1, -1]
    assert batch.branch_turn.tolist() == [0, 1, -1]
    assert [item.parent for item in unpack(batch)] == ["root", "gone", None]


def test_spans_become_role_numbers_and_a_later_span_wins() -> None:
    spanned = replace(turn(sampled=4), spans=(Span("think", 0, 3), Span("answer", 2, 3)))
    batch = pack([trajectory(turn(sampled=1), spanned)])
    assert batch.span_roles == ("think", "answer")
    assert batch[SPAN].tolist() == [-1, 0, 0, 1, -1]
    assert batch.in_span("think").tolist() == [False, True, True, False, False]
    assert not batch.in_span("tool_call").any()


def test_a_measure_is_a_column_when_every_turn_has_it() -> None:
    full = replace(
        turn(), measures={"gold_logprob": -1.5}, token_measures={"entropy": np.array([1, 2], np.float32)}
    )
    batch = pack([replace(trajectory(full, full), metrics={"gold_logprob_final": -0.5})])
    assert batch[GOLD_LOGPROB].tolist() == [-1.5, -1.5]
    assert batch[ENTROPY].tolist() == [1, 2, 1, 2]
    assert batch[GOLD_LOGPROB_FINAL].tolist() == [-0.5]
    with pytest.raises(MissingColumnError, match=r"agentrl\.learn\.probes\.entropy"):
        pack([trajectory(full, turn())])[ENTROPY]


def test_own_measures_are_lifted_on_request() -> None:
    judge = Column("judge", "S", "my.judge")
    item = trajectory(replace(turn(), measures={"judge": 0.25}))
    assert judge not in pack([item])
    assert pack([item], [judge])[judge].tolist() == [0.25]


def test_reward_components_are_columns_with_zero_where_absent() -> None:
    batch = pack([trajectory(replace(turn(), rewards={"format": 0.5}), turn())])
    assert batch[reward_component("format")].tolist() == [0.5, 0.0]


def test_tool_columns_count_and_sum() -> None:
    calls = (
        ToolCall("a", "{}", cost=1.0, seconds=2.0),
        ToolCall("b", "{}", error="no", cost=0.5, seconds=0.25),
    )
    batch = pack([trajectory(replace(turn(), tool_calls=calls), turn())])
    assert batch.tool_calls.tolist() == [2, 0]
    assert batch.tool_errors.tolist() == [1, 0]
    assert batch.tool_cost.tolist() == [1.5, 0.0]
    assert batch.tool_seconds.tolist() == [2.25, 0.0]


def test_absent_keys_are_no_key() -> None:
    batch = pack([trajectory(turn(), replace(turn(), observation_key=0))])
    assert batch.observation_key.tolist() == [NO_KEY, 0]
    assert [item.observation_key for item in unpack(batch)[0].turns] == [None, 0]


@pytest.mark.parametrize(
    "items", [[], [trajectory()], [trajectory(), trajectory(turn(), name="b"), trajectory(name="c")]]
)
def test_empty_batches_and_trajectories_without_turns(items: list[Trajectory]) -> None:
    batch = pack(items)
    assert batch.turns_per_trajectory.tolist() == [len(item.turns) for item in items]
    assert same(unpack(batch), items)


def test_rewards_keep_full_precision_unless_the_column_is_replaced() -> None:
    batch = pack([trajectory(replace(turn(), reward=0.1))])
    assert unpack(batch)[0].turns[0].reward == 0.1
    assert unpack(replace(batch, reward=np.array([0.75], np.float32)))[0].turns[0].reward == 0.75


def test_nan_and_overflowing_rewards_survive() -> None:
    items = [trajectory(replace(turn(), reward=math.nan), replace(turn(), reward=1e300))]
    assert same(unpack(pack(items)), items)


def test_a_probe_column_survives_unpack_and_pack() -> None:
    batch = pack(make_trajectories())
    values = np.linspace(-1, 0, batch.num_sampled, dtype=np.float32)
    again = pack(unpack(batch.with_column(REFERENCE_LOGPROB, values)))
    assert np.array_equal(again[REFERENCE_LOGPROB], values)


def test_unpacked_arrays_are_copies() -> None:
    batch = pack([trajectory(turn())])
    unpack(batch)[0].turns[0].prompt_tokens[0] = 99
    assert batch.token[0] == 0


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (replace(turn(), tokens=None), r"turn 0 of trajectory 'a' has text only.*returns token ids"),
        (replace(turn(), logprobs=None), "has no log-probabilities"),
        (replace(turn(), logprobs=np.zeros(3, np.float32)), "has 2 tokens but 3 log-probabilities"),
        (replace(turn(), spans=(Span("think", 1, 3),)), "a 'think' span from 1 to 3 over 2 sampled tokens"),
        (replace(turn(), observation_key=-1), r"'observation_key' must be a number from 0 to 2\*\*63 - 1"),
        (replace(turn(), state_key=2**63), "'state_key' must be a number"),
        (replace(turn(), policy_version=2**40), "'policy_version' must fit 32 bits"),
        (replace(turn(), role="agent\0"), "'role' must not end with a NUL"),
        (
            replace(turn(), token_measures={"entropy": np.zeros(1, np.float32)}),
            "'entropy' has 1 entries in turn 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(bad: Turn, sentence: str) -> None:
    with pytest.raises(BatchError, match=sentence):
        pack([trajectory(bad)])


def test_invalid_rollouts_are_refused() -> None:
    invalid = cast("Trajectory", Invalid(InvalidReason.WALL_CLOCK, "slow", "e", "task-7", "g"))
    with pytest.raises(BatchError, match=r"task 'task-7'.*Drop them first"):
        pack([invalid])


def test_unpack_refuses_plain_arrays_and_columns_over_prompt_tokens() -> None:
    with pytest.raises(BatchError, match="built from plain arrays"):
        unpack(Batch.from_arrays(group=[0], turns_per_trajectory=[1], reward=[1]))
    batch = pack([trajectory(turn())])
    with pytest.raises(BatchError, match="runs over all tokens"):
        unpack(batch.with_column(Column("x", "T", "me"), np.zeros(batch.num_tokens)))

"""`Batch`: offsets, selection, optional columns and the door for plain arrays."""

from __future__ import annotations

import numpy as np
import pytest

from agentrl.errors import BatchError, MissingColumnError
from agentrl.testing.make import make_trajectories
from agentrl.trajectory import same
from agentrl.trajectory.batch import ENTROPY, GOLD_LOGPROB, KNOWN_COLUMNS, NO_KEY, Batch, Column
from agentrl.trajectory.pack import pack, unpack


def small(**columns: object) -> Batch:
    """Two trajectories of two turns and one; three, one and two sampled tokens."""
    return Batch.from_arrays(
        group=["g", "g"],
        turns_per_trajectory=[2, 1],
        reward=[0.5, 1, 2],
        tokens_per_turn=[3, 1, 2],
        **columns,
    )


def test_indices() -> None:
    batch = small(fresh=[False, True, False])
    assert (batch.num_trajectories, batch.num_turns, batch.num_tokens, batch.num_sampled) == (2, 3, 6, 6)
    assert batch.trajectory_of_turn.tolist() == [0, 0, 1]
    assert batch.turn_of_sample.tolist() == batch.turn_of_token.tolist() == [0, 0, 0, 1, 2, 2]
    assert batch.trajectory_of_sample.tolist() == [0, 0, 0, 0, 1, 1]
    assert batch.turn_index.tolist() == [0, 1, 0]
    assert batch.group_of_turn.tolist() == [0, 0, 0]
    assert batch.stream_turn_start.tolist() == [0, 1, 2, 3]
    assert batch.episode_reward.tolist() == [1.5, 2.0]
    assert batch.truncated.tolist() == [False, False]


def test_from_arrays_numbers_labels_and_fills_neutral_values() -> None:
    batch = small(observation_key=["x", None, "x"])
    assert batch.group.tolist() == [0, 0]
    assert batch.observation_key.tolist() == [0, NO_KEY, 0]
    assert batch.state_key.tolist() == [NO_KEY] * 3
    assert batch.success.tolist() == [-1, -1]
    assert batch.valid.all()


def test_zero_trajectories() -> None:
    batch = Batch.from_arrays(group=[], turns_per_trajectory=[], reward=[])
    assert batch.episode_reward.shape == batch.stream_turn_start[1:].shape == (0,)
    assert batch.select([]).num_tokens == 0


@pytest.mark.parametrize("column", KNOWN_COLUMNS, ids=lambda column: column.name)
def test_a_missing_column_names_its_probe(column: Column) -> None:
    with pytest.raises(MissingColumnError) as caught:
        small()[column]
    assert column.probe in str(caught.value)
    assert repr(column.name) in str(caught.value)


def test_columns_are_given_by_name_or_by_key() -> None:
    mine = Column("mine", "E", "me")
    batch = small(columns={"entropy": np.arange(6)})
    assert batch[ENTROPY].tolist() == [0, 1, 2, 3, 4, 5]
    assert mine not in batch
    assert batch.with_column(mine, np.array([1.0, 2.0]))[mine].tolist() == [1, 2]


def test_a_column_of_ones_own_is_selected_along_its_axis_when_lengths_agree() -> None:
    by_turn, by_token = Column("a", "S", "me"), Column("b", "N", "me")
    batch = Batch.from_arrays(
        group=[0, 1], turns_per_trajectory=[1, 1], reward=[0, 0], tokens_per_turn=[0, 2]
    )
    batch = batch.with_column(by_turn, np.array([1.0, 2.0])).with_column(by_token, np.array([3.0, 4.0]))
    picked = batch.select([1])
    assert (picked[by_turn].tolist(), picked[by_token].tolist()) == ([2], [3, 4])


def test_select_picks_repeats_and_reorders() -> None:
    batch = small(parent=[-1, 0], columns={"gold_logprob": [1, 2, 3]})
    picked = batch.select([1, 0])
    assert picked.reward.tolist() == [2, 0.5, 1]
    assert picked.parent.tolist() == [1, -1]
    assert picked[GOLD_LOGPROB].tolist() == [3, 1, 2]
    assert picked.sample_start.tolist() == [0, 2, 5, 6]
    assert batch.select([1]).parent.tolist() == [-1]
    assert batch.select([0, 0]).num_turns == 4


def test_select_keeps_the_records_of_the_trajectories() -> None:
    made = make_trajectories()
    assert same(unpack(pack(made).select([2, 0])), [made[2], made[0]])


def test_select_refuses_rows_outside() -> None:
    with pytest.raises(BatchError, match="'trajectories' has entries from 0 to 2; expected 0 to 1"):
        small().select([0, 2])


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"colour": [1]}, "Batch has no column 'colour'; it takes"),
        ({"valid": [True]}, r"'valid' has shape \(1,\); expected \(3,\)"),
        ({"logprob": [0.0] * 5}, "'sample_start' must hold 4 non-decreasing offsets from 0 to 5"),
        ({"member": ["x", "y"]}, "'member' must be a flat array of int32 values"),
        ({"member": [[1, 2], [3, 4]]}, r"'member' has shape \(2, 2\); expected one axis"),
        ({"observation_key": [[1], [2], [3]]}, "labels must be a flat sequence of hashable values"),
        ({"kind": [0, 0, 9]}, "'kind' has entries from 0 to 9; expected 0 to 3"),
        ({"stop": [0, 7]}, "'stop' has entries"),
        ({"success": [0, 2]}, "'success' has entries"),
        ({"parent": [2, -1]}, "'parent' has entries"),
        ({"sampled": [True] * 5 + [False]}, "sampled marks 5 tokens but logprob has 6 entries"),
        ({"columns": {"entropi": np.zeros(6)}}, "no known optional column 'entropi'. Did you mean 'entropy'"),
        ({"columns": {"entropy": np.zeros(3)}}, r"'entropy' has shape \(3,\); expected \(6,\)"),
    ],
)
def test_from_arrays_errors(columns: dict[str, object], sentence: str) -> None:
    with pytest.raises(BatchError, match=sentence):
        small(**columns)


@pytest.mark.parametrize(
    ("turns", "reward", "tokens", "sentence"),
    [
        (
            [2, 2],
            [0, 1, 2],
            None,
            "'turn_start' must hold 3 non-decreasing offsets from 0 to 3; .* from 0 to 4",
        ),
        ([3], [0, 1, 2], None, "'turn_start' must hold 3"),
        ([4, -1], [0, 1, 2], None, "'turn_start' must hold 3 non-decreasing"),
        ([2, 1], [0, 1, 2], [1, 1], "'token_start' must hold 4"),
        ([2, 1], ["a", "b", "c"], None, "'reward' must be a flat array of float32"),
        ([2, 1], [[0], [1], [2]], None, r"'reward' has shape \(3, 1\)"),
    ],
)
def test_from_arrays_shape_errors(
    turns: list[int], reward: list[float], tokens: list[int] | None, sentence: str
) -> None:
    with pytest.raises(BatchError, match=sentence):
        Batch.from_arrays(group=[0, 0], turns_per_trajectory=turns, reward=reward, tokens_per_turn=tokens)


def test_sampled_tokens_must_lie_in_their_own_turn() -> None:
    with pytest.raises(BatchError, match="turn 0 marks other tokens"):
        Batch.from_arrays(
            group=[0], turns_per_trajectory=[2], reward=[0, 0],
            token_start=[0, 2, 4], sample_start=[0, 1, 2], token=[1, 2, 3, 4], logprob=[0, 0],
            sampled=[True, True, False, False],
        )  # fmt: skip


def test_from_arrays_takes_prompt_tokens() -> None:
    batch = Batch.from_arrays(
        group=[0], turns_per_trajectory=[2], reward=[0, 0],
        token_start=[0, 2, 4], sample_start=[0, 1, 2], token=[1, 2, 3, 4], sampled=[False, True, False, True],
    )  # fmt: skip
    assert (batch.num_tokens, batch.num_sampled) == (4, 2)
    assert batch.token[batch.sampled].tolist() == [2, 4]

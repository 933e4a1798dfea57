"""`Batch`: offsets, selection, optional columns and the door for plain arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agentrl.errors import BatchError, MissingColumnError
from agentrl.recipes import get
from agentrl.testing.make import make_trajectories
from agentrl.trajectory import same
from agentrl.trajectory.batch import ENTROPY, GOLD_LOGPROB, KNOWN_COLUMNS, NO_KEY, Batch, Column
from agentrl.trajectory.pack import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def test_keys_before_a_turn_and_final_keys_are_numbered_together() -> None:
    batch = small(
        observation_key=["a", "a", "b"], final_observation_key=["b", "c"],
        state_key=["x", "y", "x"], final_state_key=["y", None],
    )  # fmt: skip
    assert (batch.observation_key.tolist(), batch.final_observation_key.tolist()) == ([0, 0, 1], [1, 2])
    assert (batch.state_key.tolist(), batch.final_state_key.tolist()) == ([0, 1, 0], [1, NO_KEY])


def test_salt_finds_the_edge_that_leads_to_the_end() -> None:
    # The one turn of the first trajectory and the first turn of the second are one edge, a to b by one token:
    # its rewards, 0 and 1, meet at 0. Only the last turn, b to c, keeps 1 / (2 / sqrt 2).
    batch = Batch.from_arrays(
        group=[0, 0], turns_per_trajectory=[1, 2], reward=[0, 0, 1],
        observation_key=["a", "a", "b"], final_observation_key=["b", "c"],
    )  # fmt: skip
    assert np.allclose(get("SALT").credit(batch).advantage, [0, 0, 0.5**0.5], atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        ([1, "1", 1], [0, 1, 0]),
        ([("t", 1), ("t", 1), ("u",)], [0, 0, 1]),
        (np.array(["b", "a", "b"]), [0, 1, 0]),
        ([np.int64(7), 7, np.array(8)], [0, 0, 1]),
        ([-1, 0, -1], [0, 1, 0]),
    ],
)
def test_groups_are_compared_as_python_objects(labels: Sequence[object], numbers: list[int]) -> None:
    assert (
        Batch.from_arrays(group=labels, turns_per_trajectory=[1] * 3, reward=[0] * 3).group.tolist()
        == numbers
    )


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_trajectory_without_a_group_is_refused(missing: float | None) -> None:
    with pytest.raises(BatchError, match=r"trajectory 1 has group (None|nan), which is no label"):
        Batch.from_arrays(group=["x", missing], turns_per_trajectory=[1, 1], reward=[0, 0])
    with pytest.raises(BatchError, match="'group' has entries from -1 to 0"):
        replace(small(), group=np.array([0, -1], np.int32))


@pytest.mark.parametrize(
    "keys", [[None, "a", "b"], [-1, 0, 1], [-1.0, 2, 3], [float("nan"), -2, 1], np.array([-1, 5, 6])]
)
def test_no_key_makes_no_anchor(keys: Sequence[object]) -> None:
    batch = small(observation_key=keys)
    assert batch.observation_key.tolist() == [NO_KEY, 0, 1]
    assert small(observation_key=batch.observation_key).observation_key.tolist() == [NO_KEY, 0, 1]


def test_a_parent_is_of_the_same_group() -> None:
    with pytest.raises(BatchError, match="trajectory 1 has its parent, 0, in another group"):
        Batch.from_arrays(
            group=["a", "b"], turns_per_trajectory=[1, 1], reward=[0, 0], parent=[-1, 0], branch_turn=[-1, 0]
        )


def test_a_long_line_of_branches_is_no_circle() -> None:
    parent = np.arange(-1, 8)
    batch = Batch.from_arrays(
        group=[0] * 9, turns_per_trajectory=[1] * 9, reward=[0] * 9, parent=parent, branch_turn=[0] * 9
    )
    assert batch.parent.tolist() == parent.tolist()


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
    batch = small(parent=[-1, 0], branch_turn=[-1, 1], columns={"gold_logprob": [1, 2, 3]})
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
        ({"logprob": [0.0] * 5}, r"'logprob' has shape \(5,\); expected \(6,\)"),
        ({"member": ["x", "y"]}, "'member' must be a flat array of int32 values"),
        ({"member": [[1, 2], [3, 4]]}, r"'member' has shape \(2, 2\); expected one axis"),
        ({"member": [0, 1.5]}, "'member' has 1.5 at entry 1; expected whole numbers that fit int32"),
        ({"token": np.array([0, 1, 2, 3, 4, 2**32])}, "'token' has 4294967296 at entry 5"),
        ({"observation_key": [[1], [2], [3]]}, "'observation_key' must hold hashable labels; .*Use tuples"),
        (
            {"observation_key": np.zeros((3, 2))},
            r"'observation_key' must be a flat sequence .* shape \(3, 2\)",
        ),
        ({"state_key": "abc"}, "'state_key' must be a flat sequence of labels; got 'abc'"),
        ({"turn_start": [0, 2, 3]}, "Batch has no column 'turn_start'"),
        ({"kind": [0, 0, 9]}, "'kind' has entries from 0 to 9; expected 0 to 3"),
        ({"stop": [0, 7]}, "'stop' has entries"),
        ({"success": [0, 2]}, "'success' has entries"),
        ({"parent": [2, -1]}, "'parent' has entries"),
        ({"parent": [1, 0]}, "parents of trajectory 0 run in a circle"),
        ({"parent": [-1, 1]}, "parents of trajectory 1 run in a circle"),
        ({"parent": [-1, 0]}, "trajectory 1 leaves its parent, 0, at branch_turn -1; expected .* 0 to 1"),
        ({"parent": [-1, 0], "branch_turn": [-1, 2]}, "at branch_turn 2; expected .* 0 to 1"),
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
            "turns_per_trajectory counts 4 turns but reward has 3 entries",
        ),
        ([3], [0, 1, 2], None, "turns_per_trajectory has 1 entries, .* for each trajectory, 2 of them"),
        ([4, -1], [0, 1, 2], None, "turns_per_trajectory has 2 entries, the smallest -1"),
        ([1.7, 1.3], [0, 1], None, "'turns_per_trajectory' has 1.7 at entry 0; expected whole numbers"),
        ([2, 1], [0, 1, 2], [1, 1], "tokens_per_turn has 2 entries, .* for each turn, 3 of them"),
        ([2, 1], ["a", "b", "c"], None, "'reward' must be a flat array of float32"),
        ([2, 1], [[0], [1], [2]], None, r"'reward' has shape \(3, 1\)"),
    ],
)
def test_from_arrays_shape_errors(
    turns: list[float], reward: list[float], tokens: list[int] | None, sentence: str
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

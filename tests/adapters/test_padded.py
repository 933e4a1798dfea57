"""Padded rows become turns and come back; numpy alone is enough for it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose

from agentrl.adapters.padded import PaddedRows
from agentrl.errors import BatchError
from agentrl.recipes import get
from agentrl.trajectory.batch import NO_KEY

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Row 0: two turns; row 1: padding before, one turn; row 2: nothing sampled.
MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])


def test_runs_of_the_mask_are_turns() -> None:
    rows = PaddedRows.of(["a", "a", "b"], MASK, [3.0, 1.0, 9.0], logprob=-np.ones((3, 5)))
    assert rows.batch.turns_per_trajectory.tolist() == [2, 1, 1]
    assert np.diff(rows.batch.sample_start).tolist() == [2, 1, 2, 0]
    assert rows.batch.reward.tolist() == [0, 3, 1, 9]
    credit = get("GRPO").credit(rows.batch)
    half = 1 / np.sqrt(2)  # two members, n - 1
    expected = [[half, half, 0, half, 0], [0, -half, -half, 0, 0], [0] * 5]
    assert_allclose(rows.spread(credit), expected, atol=1e-5)


@pytest.mark.parametrize("reward", [[1.0, 0, 0], [[1.0, 0], [0, 0], [0, 0]]])
def test_a_row_that_sampled_nothing_counts_in_the_mean(reward: ArrayLike) -> None:
    rows = PaddedRows.of(["a"] * 3, [[1, 0], [1, 0], [0, 0]], reward, keys=[["s"], ["s"], []])
    assert rows.batch.observation_key.tolist() == [0, 0, NO_KEY]
    found = rows.spread(get("DR_GRPO").credit(rows.batch))
    expected = np.array([[2 / 3, 0.0], [-1 / 3, 0.0], [0.0, 0.0]])
    assert_allclose(found, expected, atol=1e-6)  # about the mean of 1, 0 and 0


def test_token_rewards_go_to_the_turn_they_stand_in_or_follow() -> None:
    reward = np.array([[0, 1, 2, 4, 8], [16, 0, 0, 0, 32], [64, 0, 0, 0, 0]])
    rows = PaddedRows.of([0, 0, 0], MASK, reward)
    assert rows.batch.reward.tolist() == [1 + 2, 4 + 8, 16 + 32, 64]


def test_step_credit_over_keys() -> None:
    rows = PaddedRows.of([0, 0], [[1, 0, 1], [1, 0, 1]], [1.0, 0.0], keys=[["s", "a"], ["s", "b"]])
    found = rows.spread(get("GIGPO").credit(rows.batch))
    assert_allclose(found, [[0.975, 0, 0.5], [-0.975, 0, -0.5]], atol=1e-6)  # 1/2, and 0.95 / 2 in "s"


def test_shapes_are_checked() -> None:
    with pytest.raises(BatchError, match=r"give \(B, L\)"):
        PaddedRows.of([0], MASK, [1.0])
    with pytest.raises(BatchError, match="like the mask"):
        PaddedRows.of([0, 0, 0], MASK, np.zeros((3, 4)))
    with pytest.raises(BatchError, match="row 0 has 2 turns and 1 keys"):
        PaddedRows.of([0, 0, 0], MASK, [1.0, 0, 0], keys=[["s"], ["s"], []])
    with pytest.raises(BatchError, match="3 rows and keys for 4"):
        PaddedRows.of([0, 0, 0], MASK, [1.0, 0, 0], keys=[["s", "t"], ["s"], [], []])
    with pytest.raises(BatchError, match=r"the logprob has shape \(3, 4\); give \(3, 5\)"):
        PaddedRows.of([0, 0, 0], MASK, [1.0, 0, 0], logprob=np.zeros((3, 4)))


def test_credit_needs_no_torch() -> None:
    """In a process in which torch cannot be imported: arrays in, every recipe's advantage out."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from agentrl.adapters.padded import PaddedRows\n"
        "from agentrl.recipes import GIGPO, names, get\n"
        "from agentrl.trajectory.batch import Batch\n"
        "batch = Batch.from_arrays(group=[0, 0], turns_per_trajectory=[2, 2], reward=[0, 1, 0, 0],\n"
        "                          state_key=['a', 'b', 'a', 'c'])\n"
        "assert np.allclose(GIGPO.credit(batch).advantage, [0.975, 0.5, -0.975, -0.5])\n"
        "rows = PaddedRows.of(['x', 'x'], [[1, 0, 1], [1, 1, 0]], [1, 0])\n"
        "assert rows.spread(get('GRPO').credit(rows.batch)).shape == (2, 3)\n"
        "assert all(repr(get(name)) for name in names())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

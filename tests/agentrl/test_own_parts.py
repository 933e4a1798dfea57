"""What one's own credit parts are told when they give the wrong thing, and batches with nothing in them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from agentrl.credit.advantage import Relative
from agentrl.credit.keep import Kept
from agentrl.credit.reward import environment_reward
from agentrl.errors import AlgorithmError, ConfigError
from agentrl.recipes import GRPO, get
from agentrl.trajectory.batch import Batch

if TYPE_CHECKING:
    from agentrl.credit.advantage import Center, Scale, Target
    from agentrl.credit.compose import Advantage
    from agentrl.credit.keep import Keep
    from agentrl.credit.peers import Peers
    from agentrl.credit.reward import Reward
    from agentrl.learn.algorithm import Algorithm

BATCH = Batch.from_arrays(group=[0, 0], turns_per_trajectory=[2, 1], reward=[0, 1, 0])


def seven(*_: object) -> np.ndarray:
    """A figure for each of seven turns, of which there are three."""
    return np.zeros(7)


def listed(*_: object) -> list[float]:
    return [0.0, 1.0, 0.0]


def wide(batch: Batch, _: object) -> Kept:
    """One mask too long."""
    return Kept(np.ones(batch.num_turns, np.bool_), np.ones(3, np.bool_))


@pytest.mark.parametrize(
    "algorithm",
    [
        replace(GRPO, reward=seven),
        replace(GRPO, reward=environment_reward + seven),
        replace(GRPO, advantage=cast("Advantage", seven)),
        replace(GRPO, advantage=Relative() + cast("Advantage", seven)),
        replace(GRPO, advantage=Relative(target=cast("Target", seven))),
        replace(GRPO, advantage=Relative(peers=cast("Peers", seven))),
        replace(GRPO, advantage=Relative(center=cast("Center", seven))),
        replace(GRPO, advantage=Relative(scale=cast("Scale", seven))),
    ],
    ids=["reward", "sum of rewards", "advantage", "sum", "target", "peers", "center", "scale"],
)
def test_a_wrong_shape_names_the_part(algorithm: Algorithm) -> None:
    with pytest.raises(AlgorithmError, match=r"seven gave shape \(7,\); expected .* per turn, \(3,\)"):
        algorithm.credit(BATCH)


def test_a_list_names_the_part() -> None:
    with pytest.raises(AlgorithmError, match="listed gave a list; expected an array of one figure per turn"):
        replace(GRPO, reward=cast("Reward", listed)).credit(BATCH)


def test_a_filter_gives_two_masks() -> None:
    with pytest.raises(AlgorithmError, match=r"listed gave a list; expected Kept"):
        replace(GRPO, keep=cast("Keep", listed)).credit(BATCH)
    with pytest.raises(AlgorithmError, match=r"wide gave masks .* \(3,\) and \(3,\); expected .* \(2,\)"):
        replace(GRPO, keep=wide).credit(BATCH)


@pytest.mark.parametrize("turns", [[], [0], [1]])
def test_an_empty_batch_says_so(turns: list[int]) -> None:
    size = sum(turns)
    batch = Batch.from_arrays(
        group=turns, turns_per_trajectory=turns, reward=[1] * size, tokens_per_turn=[0] * size
    )
    expected = f"the batch is empty: no sampled token in {size} turns of {len(turns)} trajectories"
    with pytest.raises(AlgorithmError, match=expected):
        GRPO.credit(batch)
    assert replace(GRPO, on_empty="skip").credit(batch).empty


@pytest.mark.parametrize("name", [None, GRPO, 3])
def test_a_recipe_is_named_by_a_text(name: object) -> None:
    with pytest.raises(ConfigError, match="a recipe is named by a text such as 'gigpo'"):
        get(cast("str", name))

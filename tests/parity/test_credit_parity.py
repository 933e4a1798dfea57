"""Columns against plain loops on random ragged batches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from agentrl import recipes
from agentrl.credit.advantage import Relative, Return, Std, one, others_mean
from agentrl.credit.peers import same_observation, same_turn
from agentrl.trajectory.batch import NO_KEY, Batch
from tests.parity.credit_loops import Row, Rule, gigpo, relative, returns, totals

if TYPE_CHECKING:
    from agentrl.learn.algorithm import Algorithm


@st.composite
def ragged(draw: st.DrawFn) -> list[Row]:
    """Rows of up to three groups of five trajectories of six turns; few keys, so that they meet."""
    rows = []
    trajectory = 0
    for group in range(draw(st.integers(1, 3))):
        for _ in range(draw(st.integers(1, 5))):
            for _ in range(draw(st.integers(1, 6))):
                reward = draw(st.sampled_from([0.0, 0.0, 1.0, -0.5, 10.0]))
                rows.append(Row(group, trajectory, draw(st.integers(-1, 3)), reward, draw(st.booleans())))
            trajectory += 1
    return rows


def columns(rows: list[Row]) -> Batch:
    counts = np.bincount([row.trajectory for row in rows])
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    keys = [None if row.key < 0 else row.key for row in rows]
    return Batch.from_arrays(
        group=[rows[i].group for i in first], turns_per_trajectory=counts,
        reward=[row.reward for row in rows],
        valid=[row.valid for row in rows], observation_key=keys, state_key=keys,
    )  # fmt: skip


@given(ragged())
def test_verl_agent_setting(rows: list[Row]) -> None:
    expected = gigpo(
        rows, gamma=0.95, weight=1.0, penalty=0.1,
        episode=Rule(per_turn=True, lone_raw=True), step=Rule(per_turn=True),
    )  # fmt: skip
    assert_allclose(recipes.GIGPO_VERL_AGENT.credit(columns(rows)).advantage, expected, atol=1e-6)


@given(ragged())
@pytest.mark.parametrize("recipe", [recipes.GIGPO, recipes.GIGPO_OBSERVATION])
def test_gigpo_over_trajectories(recipe: Algorithm, rows: list[Row]) -> None:
    expected = gigpo(
        rows, gamma=0.95, weight=1.0, penalty=0.0,
        episode=Rule(ddof_std=False), step=Rule(ddof_std=False, per_turn=True),
    )  # fmt: skip
    assert_allclose(recipe.credit(columns(rows)).advantage, expected, atol=1e-6)


@given(ragged())
@pytest.mark.parametrize(
    ("part", "rule"),
    [
        (Relative(), Rule()),
        (Relative(scale=one), Rule(ddof_std=False)),
        (Relative(per="turn"), Rule(per_turn=True)),
        (Relative(lone="raw"), Rule(lone_raw=True)),
        (Relative(center=others_mean, scale=one), Rule(ddof_std=False, leave_one_out=True)),
        (Relative(center=others_mean, per="turn"), Rule(leave_one_out=True, per_turn=True)),
    ],
)
def test_episode_credit(part: Relative, rule: Rule, rows: list[Row]) -> None:
    expected = relative(rows, totals(rows), [row.group for row in rows], rule)
    algorithm = replace(recipes.GRPO, advantage=part)
    assert_allclose(algorithm.credit(columns(rows)).advantage, expected, atol=1e-6)


@given(ragged(), st.floats(0.0, 1.0))
@pytest.mark.parametrize("per_turn", [False, True])
def test_step_credit(per_turn: bool, rows: list[Row], gamma: float) -> None:
    part = Relative(Return(gamma), same_observation, scale=Std(), per="turn" if per_turn else "trajectory")
    anchors: list[object] = [None if row.key < 0 else (row.group, row.key) for row in rows]
    expected = relative(rows, returns(rows, gamma), anchors, Rule(per_turn=per_turn))
    algorithm = replace(recipes.GRPO, advantage=part)
    assert_allclose(algorithm.credit(columns(rows)).advantage, expected, atol=1e-6)


@given(ragged())
def test_credit_by_turn(rows: list[Row]) -> None:
    batch = columns(rows)
    places = [
        (row.group, sum(other.trajectory == row.trajectory for other in rows[:i]))
        for i, row in enumerate(rows)
    ]
    expected = relative(rows, returns(rows, 1.0), list(places), Rule(ddof_std=False))
    algorithm = replace(recipes.GRPO, advantage=Relative(Return(), same_turn, scale=one))
    assert_allclose(algorithm.credit(batch).advantage, expected, atol=1e-6)
    assert NO_KEY not in same_turn(batch)

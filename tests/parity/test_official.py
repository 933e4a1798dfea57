"""Against the authors' own functions: figures that they gave on our random batches (`record_official.py`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose

from agentrl.credit.advantage import PlusRow, Relative, Return, Scale, Std, episode_total, one
from agentrl.credit.history import NestedHistory
from agentrl.credit.keep import Kept, keep_all
from agentrl.credit.peers import SimilarObservation, same_observation
from agentrl.credit.reward import InvalidPenalty
from tests.parity.record_official import PENALTY, SHAPES, TABLE
from tests.recipe_batches import make_batch

if TYPE_CHECKING:
    from agentrl.credit.compose import Advantage

FIGURES: dict[str, list[float]] = json.loads(TABLE.read_text())
SCALES: dict[str, Scale] = {"mean_norm": one, "mean_std_norm": Std()}
EACH = pytest.mark.parametrize("shape", SHAPES)
MODES = pytest.mark.parametrize("mode", SCALES)
LOWERED = PlusRow(Return(0.95), InvalidPenalty(PENALTY))


def agree(part: Advantage, shape: tuple[int, int, int], name: str) -> None:
    batch = make_batch(*shape)
    reward = batch.reward.astype(np.float64)
    found = part(batch, reward, keep_all(batch, reward))
    assert_allclose(found, FIGURES[f"{name} {'-'.join(map(str, shape))}"], atol=2e-5)


def episode(mode: str) -> Relative:
    total = PlusRow(episode_total, InvalidPenalty(PENALTY))
    return Relative(total, scale=SCALES[mode], per="turn", lone="raw")


@EACH
@MODES
def test_gigpo(mode: str, shape: tuple[int, int, int]) -> None:
    step = Relative(LOWERED, same_observation, scale=SCALES[mode], per="turn")
    agree(episode(mode) + 1.0 * step, shape, f"gigpo {mode}")


@EACH
@MODES
def test_gigpo_similar(mode: str, shape: tuple[int, int, int]) -> None:
    step = Relative(LOWERED, SimilarObservation(0.9), scale=SCALES[mode], per="turn")
    agree(episode(mode) + 1.0 * step, shape, f"gigpo similar {mode}")


@EACH
@MODES
@pytest.mark.parametrize("base", [False, True])
def test_hgpo(mode: str, base: bool, shape: tuple[int, int, int]) -> None:
    scale = one if mode == "mean_norm" else Std(ddof=0)
    part = NestedHistory(LOWERED, scale=scale, base=episode(mode) if base else None)
    agree(part, shape, f"hgpo {'base ' if base else ''}{mode}")


@EACH
def test_simple_tir_with_excluded_rows(shape: tuple[int, int, int]) -> None:
    batch = make_batch(*shape)
    inside = batch.member != 2
    kept = Kept(inside[batch.trajectory_of_turn], inside)
    found = Relative(lone="raw")(batch, batch.reward.astype(np.float64), kept)
    expected = np.array(FIGURES[f"simpletir {'-'.join(map(str, shape))}"])
    assert_allclose(np.where(kept.loss, found, 0.0), expected[batch.trajectory_of_turn], atol=2e-5)

"""Against verl's own functions, run beside ours on random padded rows; skipped where it is not installed."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from agentrl.adapters.padded import PaddedRows
from agentrl.credit.advantage import Relative, Std, one
from agentrl.learn.average import FixedLength, trajectory_mean
from agentrl.learn.loss import policy_loss, prepare
from agentrl.learn.surrogate import Clip, StopClip
from agentrl.recipes import GRPO, GSPO, RLOO, SAPO

if TYPE_CHECKING:
    from agentrl.learn.algorithm import Algorithm

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("verl") is None,
        reason="verl is not installed; `pip install --no-deps verl==0.9.1` and what it imports",
    ),
    pytest.mark.filterwarnings("ignore"),  # importing verl and ray warns of their dependencies
]

B, L, G = 12, 9, 4


class Rows:
    """Random rows: groups of four, prefix masks as in single answers, binary rewards at the last token."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.uid = np.array([f"g{row // G}" for row in range(B)], dtype=object)
        length = random.integers(1, L + 1, B)
        self.mask = torch.from_numpy((np.arange(L)[None] < length[:, None]).astype(np.float32))
        self.reward = torch.zeros(B, L)
        self.reward[torch.arange(B), torch.from_numpy(length) - 1] = torch.from_numpy(
            random.choice([0.0, 1.0, 0.3], B).astype(np.float32)
        )
        self.old = torch.from_numpy(-np.abs(random.normal(1, 0.5, (B, L))).astype(np.float32))
        self.now = self.old + torch.from_numpy(random.normal(0, 0.3, (B, L)).astype(np.float32))
        self.ours = PaddedRows.of(self.uid, self.mask, self.reward.numpy(), logprob=self.old)


@pytest.fixture(scope="module")
def core() -> Any:
    return importlib.import_module("verl.trainer.ppo.core_algos")


@pytest.fixture(params=[1, 2, 3])
def rows(request: pytest.FixtureRequest) -> Rows:
    return Rows(int(request.param))


def credit_of(algorithm: Algorithm, rows: Rows) -> np.ndarray:
    return rows.ours.spread(algorithm.credit(rows.ours.batch))


@pytest.mark.parametrize("divide", [True, False])
def test_grpo(core: Any, rows: Rows, divide: bool) -> None:
    theirs, _ = core.compute_grpo_outcome_advantage(
        rows.reward, rows.mask, rows.uid, norm_adv_by_std_in_grpo=divide
    )
    ours = replace(GRPO, advantage=Relative(scale=Std() if divide else one))
    assert_allclose(credit_of(ours, rows), theirs.numpy(), atol=2e-5)


def test_rloo(core: Any, rows: Rows) -> None:
    theirs, _ = core.compute_rloo_outcome_advantage(rows.reward, rows.mask, rows.uid)
    assert_allclose(credit_of(RLOO, rows), theirs.numpy(), atol=2e-5)


def loss_of(algorithm: Algorithm, rows: Rows) -> tuple[float, np.ndarray]:
    batch = rows.ours.batch
    inputs = prepare(algorithm, batch, algorithm.credit(batch))
    now = rows.now[rows.mask.bool()].clone().requires_grad_()
    loss = policy_loss(algorithm, inputs, now).total
    (gradient,) = torch.autograd.grad(loss, now)
    return loss.item(), gradient.numpy()


DUAL = replace(GRPO, surrogate=Clip(0.2, 0.28, dual=3.0))
CASES = {
    "token": ("vanilla", "token-mean", DUAL, (0.2, 0.28)),
    "sequence": ("vanilla", "seq-mean-token-mean", replace(DUAL, average=trajectory_mean), (0.2, 0.28)),
    "constant": ("vanilla", "seq-mean-token-sum-norm", replace(DUAL, average=FixedLength(L)), (0.2, 0.28)),
    "gspo": ("gspo", "seq-mean-token-mean", GSPO, (3e-4, 4e-4)),
    "sapo": ("sapo", "seq-mean-token-mean", SAPO, (0.2, 0.2)),
    "cispo": ("cispo", "token-mean", replace(GRPO, surrogate=StopClip(0.2, 0.28)), (0.2, 0.28)),
}
"""verl's loss, its averaging, ours, and the window."""


@pytest.mark.parametrize("case", CASES)
def test_losses(core: Any, rows: Rows, case: str) -> None:
    name, mode, algorithm, (low, high) = CASES[case]
    actor: Any = importlib.import_module("verl.workers.config").ActorConfig
    config = actor(
        strategy="fsdp", rollout_n=1, use_dynamic_bsz=True, clip_ratio_low=low, clip_ratio_high=high
    )
    advantage = torch.from_numpy(credit_of(algorithm, rows)).float()
    now = rows.now.clone().requires_grad_()
    loss, _ = core.get_policy_loss_fn(name)(rows.old, now, advantage, rows.mask, mode, config)
    (theirs,) = torch.autograd.grad(loss, now)
    value, ours = loss_of(algorithm, rows)
    assert value == pytest.approx(loss.item(), abs=2e-5)
    assert_allclose(ours, theirs[rows.mask.bool()].numpy(), atol=2e-5)

"""Against verl's own functions, run beside ours on random padded rows; skipped where it is not installed."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose

from agentrl.credit.advantage import Relative, Std, one
from agentrl.learn.average import FixedLength, trajectory_mean
from agentrl.learn.surrogate import Clip, StopClip
from agentrl.recipes import GRPO, GSPO, RLOO, SAPO
from tests.parity.padded_rows import L, Rows, credit_of, loss_of

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("verl") is None,
        reason="verl is not installed; `pip install --no-deps verl==0.9.1` and what it imports",
    ),
    pytest.mark.filterwarnings("ignore"),  # importing verl and ray warns of their dependencies
]


@pytest.fixture(scope="module")
def core() -> Any:
    return importlib.import_module("verl.trainer.ppo.core_algos")


@pytest.fixture(params=[1, 2, 3])
def rows(request: pytest.FixtureRequest) -> Rows:
    return Rows(int(request.param))


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

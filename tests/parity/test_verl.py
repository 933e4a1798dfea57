"""Against verl's own functions, run beside ours on random padded rows; skipped where it is not installed."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose

from agentrl.credit.advantage import Relative, Std, nothing, one, over_past_mean
from agentrl.credit.critic import TokenGae
from agentrl.credit.keep import keep_all
from agentrl.credit.ledger import PAST_MEAN
from agentrl.credit.peers import everyone
from agentrl.learn.average import FixedLength, trajectory_mean
from agentrl.learn.penalty import KlToOld, KlToReference
from agentrl.learn.ratio import HolderRatio
from agentrl.learn.surrogate import Clip, StopClip, importance, reinforce
from agentrl.recipes import (
    CISPO,
    GRPO,
    GSPO,
    HOLDER_PO,
    REINFORCE,
    REINFORCE_PP,
    REINFORCE_PP_BASELINE,
    RLOO,
    SAPO,
)
from agentrl.trajectory.batch import VALUE
from tests.parity.padded_rows import B, L, Rows, credit_of, loss_of

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("verl") is None,
        reason="verl is not installed; `make trainers` makes an environment with it",
    ),
    pytest.mark.filterwarnings("ignore"),  # importing verl and ray warns of their dependencies
]


@pytest.fixture(scope="module")
def core() -> Any:
    return importlib.import_module("verl.trainer.ppo.core_algos")


@pytest.fixture(params=[(1, False), (2, False), (3, True), (4, True)], ids=lambda given: f"rows {given}")
def rows(request: pytest.FixtureRequest) -> Rows:
    seed, turns = request.param
    return Rows(seed, turns=turns)


@pytest.mark.parametrize("divide", [True, False])
@pytest.mark.parametrize("name", ["grpo", "grpo_vectorized"])
def test_grpo(core: Any, rows: Rows, name: str, divide: bool) -> None:
    theirs, _ = core.get_adv_estimator_fn(name)(
        rows.reward, rows.mask, rows.uid, norm_adv_by_std_in_grpo=divide
    )
    ours = replace(GRPO, advantage=Relative(scale=Std() if divide else one))
    assert_allclose(credit_of(ours, rows), theirs.numpy(), atol=2e-5)


@pytest.mark.parametrize("name", ["rloo", "rloo_vectorized"])
def test_rloo(core: Any, rows: Rows, name: str) -> None:
    theirs, _ = core.get_adv_estimator_fn(name)(rows.reward, rows.mask, rows.uid)
    assert_allclose(credit_of(RLOO, rows), theirs.numpy(), atol=2e-5)


def test_remax(core: Any, rows: Rows) -> None:
    """A baseline of each row from outside: theirs is the greedy answer's reward, ours any column.

    Theirs has figures at a tool's tokens, too, which its loss then masks.
    """
    baseline = torch.linspace(0, 1, B)
    theirs, _ = core.get_adv_estimator_fn("remax")(rows.reward, baseline, rows.mask)
    batch = rows.ours.batch.with_column(PAST_MEAN, baseline.double().numpy())
    ours = replace(REINFORCE, advantage=Relative(over_past_mean, everyone, nothing, one, lone="raw"))
    assert_allclose(rows.ours.spread(ours.credit(batch)), (theirs * rows.mask).numpy(), atol=2e-5)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (0.99, 1.0)])
def test_gae(core: Any, rows: Rows, gamma: float, lam: float) -> None:
    """Before whitening, which is another part of ours: their returns minus the values."""
    sampled = rows.mask.bool()
    value = torch.from_numpy(rows.random.normal(0, 1, (B, L)).astype("float32"))
    _, returns = core.compute_gae_advantage_return(rows.reward, value, rows.mask, gamma, lam)
    batch = rows.ours.batch.with_column(VALUE, value[sampled].numpy())
    reward, part = batch.reward.astype(float), TokenGae(within=gamma, across=gamma, lam=lam)
    kept = keep_all(batch, reward)
    assert_allclose(part.of_tokens(batch, reward, kept), (returns - value)[sampled].numpy(), atol=2e-5)
    assert_allclose(part.returns(batch, reward, kept), returns[sampled].numpy(), atol=2e-5)


@pytest.mark.parametrize("seed", [1, 2])
def test_reinforce_plus_plus(core: Any, seed: int) -> None:
    """Theirs counts tokens and ours rows, which is declared: the same on rows of one length but for n - 1."""
    rows = Rows(seed, full=True)
    factor = (B / (B - 1) / (B * L / (B * L - 1))) ** 0.5
    plain, _ = core.get_adv_estimator_fn("reinforce_plus_plus")(
        rows.reward, rows.mask, config=SimpleNamespace(gamma=1.0)
    )
    based, _ = core.get_adv_estimator_fn("reinforce_plus_plus_baseline")(rows.reward, rows.mask, rows.uid)
    assert_allclose(factor * credit_of(REINFORCE_PP, rows), plain.numpy(), atol=2e-5)
    assert_allclose(factor * credit_of(REINFORCE_PP_BASELINE, rows), based.numpy(), atol=2e-5)


DUAL = replace(GRPO, surrogate=Clip(0.2, 0.28, dual=3.0))
BETA = 0.3
WIDE = 30.0  # a window that nothing leaves
CASES = {
    "token": ("vanilla", "token-mean", DUAL, (0.2, 0.28)),
    "sequence": ("vanilla", "seq-mean-token-mean", replace(DUAL, average=trajectory_mean), (0.2, 0.28)),
    "constant": ("vanilla", "seq-mean-token-sum-norm", replace(DUAL, average=FixedLength(L)), (0.2, 0.28)),
    "sum": ("vanilla", "seq-mean-token-sum", replace(DUAL, average=FixedLength(1)), (0.2, 0.28)),
    "gspo": ("gspo", "seq-mean-token-mean", GSPO, (3e-4, 4e-4)),
    "sapo": ("sapo", "seq-mean-token-mean", SAPO, (0.2, 0.2)),
    "cispo": ("cispo", "token-mean", CISPO, (1.0, 0.28)),
    "cispo, both": ("cispo", "token-mean", replace(GRPO, surrogate=StopClip(0.2, 0.28)), (0.2, 0.28)),
    "gpg": ("gpg", "token-mean", replace(GRPO, surrogate=reinforce), (0.2, 0.2)),
    "dro": (
        "dro", "token-mean",
        replace(GRPO, surrogate=reinforce, penalties=(KlToOld(BETA, "k2"),)), (0.2, 0.2),
    ),
    "gmpo without its window": (
        "geo_mean", "token-mean",
        replace(HOLDER_PO, ratio=HolderRatio(0.0), surrogate=importance), (WIDE, WIDE),
    ),
}  # fmt: skip
"""verl's loss, its averaging, ours, and the window."""


def their_loss(core: Any, rows: Rows, now: torch.Tensor, advantage: torch.Tensor, case: str) -> torch.Tensor:
    name, mode, _, (low, high) = CASES[case]
    module: Any = importlib.import_module("verl.workers.config")
    config = module.ActorConfig(
        strategy="fsdp", rollout_n=1, use_dynamic_bsz=True, clip_ratio_low=low, clip_ratio_high=high,
        policy_loss=module.PolicyLossConfig(loss_mode=name, dro_beta=BETA),
    )  # fmt: skip
    loss: torch.Tensor
    loss, _ = core.get_policy_loss_fn(name)(rows.old, now, advantage, rows.mask, mode, config)
    return loss


@pytest.mark.parametrize("case", CASES)
def test_losses(core: Any, rows: Rows, case: str) -> None:
    algorithm = CASES[case][2]
    advantage = torch.from_numpy(credit_of(algorithm, rows)).float()
    now = rows.now.clone().requires_grad_()
    loss = their_loss(core, rows, now, advantage, case)
    (theirs,) = torch.autograd.grad(loss, now)
    value, ours = loss_of(algorithm, rows)
    assert value == pytest.approx(loss.item(), abs=2e-5)
    assert_allclose(ours, theirs[rows.mask.bool()].numpy(), atol=2e-5)


@pytest.mark.parametrize(("ours", "theirs"), [("k1", "kl"), ("k2", "mse"), ("k3", "low_var_kl")])
def test_kl_to_a_reference(core: Any, rows: Rows, ours: Any, theirs: str) -> None:
    algorithm = replace(DUAL, penalties=(KlToReference(0.04, ours),))
    advantage = torch.from_numpy(credit_of(algorithm, rows)).float()
    now = rows.now.clone().requires_grad_()
    apart = core.kl_penalty(now, rows.reference, theirs)
    loss = their_loss(core, rows, now, advantage, "token") + 0.04 * core.agg_loss(
        apart, rows.mask, "token-mean"
    )
    (gradient,) = torch.autograd.grad(loss, now)
    value, found = loss_of(algorithm, rows)
    assert value == pytest.approx(loss.item(), abs=2e-5)
    assert_allclose(found, gradient[rows.mask.bool()].numpy(), atol=2e-5)

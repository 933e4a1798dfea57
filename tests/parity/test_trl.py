"""Against the loss of TRL's GRPOTrainer, run beside ours on random padded rows; else skipped."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from numpy.testing import assert_allclose

from agentrl.learn.average import FixedLength, trajectory_mean
from agentrl.learn.penalty import KlToReference
from agentrl.learn.surrogate import Clip, StopClip
from agentrl.recipes import GRPO, GSPO, LUSPO, SAPO, TOP_ENTROPY, VESPO
from tests.parity.padded_rows import L, Rows, credit_of, loss_of

if TYPE_CHECKING:
    from agentrl.learn.algorithm import Algorithm

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("trl") is None,
        reason="TRL is not installed; `make trainers` makes an environment with it",
    ),
    pytest.mark.filterwarnings("ignore"),  # importing it warns of its dependencies
]


class OneProcess:
    """What the loss asks of an accelerator."""

    num_processes = 1

    def reduce(self, figures: torch.Tensor, reduction: str) -> torch.Tensor:
        return figures

    def gather(self, figures: torch.Tensor) -> torch.Tensor:
        return figures

    def pad_across_processes(self, figures: torch.Tensor, **_: object) -> torch.Tensor:
        return figures


@pytest.fixture(scope="module")
def trainer() -> Any:
    return importlib.import_module("trl").GRPOTrainer


def their_loss(trainer: Any, rows: Rows, advantage: torch.Tensor, settings: dict[str, Any]) -> torch.Tensor:
    """TRL's own `_compute_loss`, unchanged, on a trainer that has only what it reads."""

    def said(*_: object, **__: object) -> tuple[torch.Tensor, torch.Tensor, None]:
        return rows.now, rows.entropy, None

    args = SimpleNamespace(
        use_bias_correction_kl=False, delta=settings.get("delta"), sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.05, vespo_k_pos=2.0, vespo_lambda_pos=3.0, vespo_k_neg=3.0,
        vespo_lambda_neg=2.0, steps_per_generation=1,
    )  # fmt: skip
    made: Any = SimpleNamespace(
        args=args, accelerator=OneProcess(), model=torch.nn.Identity(), aux_loss_enabled=False,
        top_entropy_quantile=settings.get("top_entropy_quantile", 1.0), off_policy_mask_threshold=None,
        importance_sampling_level=settings.get("level", "token"), beta=settings.get("beta", 0.0),
        loss_type=settings["loss_type"], epsilon_low=settings.get("low", 0.2),
        epsilon_high=settings.get("high", 0.2), use_vllm=False, vllm_importance_sampling_correction=False,
        current_gradient_accumulation_steps=1, max_completion_length=L, _entropy_bonus_enabled=False,
        _metrics=defaultdict(functools.partial(defaultdict, list)),
        _get_per_token_logps_and_entropies=said, get_gamma_weights=trainer.get_gamma_weights,
    )  # fmt: skip
    made.get_high_entropy_mask = functools.partial(trainer.get_high_entropy_mask, made)
    prompt = torch.ones(len(rows.mask), 1, dtype=torch.int64)
    inputs = {
        "prompt_ids": prompt, "prompt_mask": prompt, "completion_ids": rows.mask.long(),
        "completion_mask": rows.padding, "tool_mask": rows.mask, "advantages": advantage,
        "old_per_token_logps": rows.old, "ref_per_token_logps": rows.reference,
        "num_items_in_batch": rows.mask.sum(),
    }  # fmt: skip
    loss: torch.Tensor = trainer._compute_loss(made, None, inputs)
    return loss


KL = (KlToReference(0.04, "k3"),)
CASES: dict[str, tuple[dict[str, Any], Algorithm]] = {
    "grpo": ({"loss_type": "grpo"}, replace(GRPO, average=trajectory_mean)),
    "grpo, kl": ({"loss_type": "grpo", "beta": 0.04}, replace(GRPO, average=trajectory_mean, penalties=KL)),
    "bnpo": ({"loss_type": "bnpo"}, GRPO),
    "dr_grpo": ({"loss_type": "dr_grpo"}, replace(GRPO, average=FixedLength(L))),
    "dapo": ({"loss_type": "dapo", "high": 0.28}, replace(GRPO, surrogate=Clip(0.2, 0.28))),
    "dapo, kl": ({"loss_type": "dapo", "beta": 0.04}, replace(GRPO, penalties=KL)),
    "two-sided": ({"loss_type": "dapo", "delta": 1.3}, replace(GRPO, surrogate=Clip(0.2, 0.2, dual=1.3))),
    "top entropy": (
        {"loss_type": "dapo", "high": 0.28, "top_entropy_quantile": 0.2}, TOP_ENTROPY,
    ),
    "cispo": ({"loss_type": "cispo", "high": 1.1}, replace(GRPO, surrogate=StopClip(1.0, 0.1))),
    "sapo": ({"loss_type": "sapo"}, SAPO),
    "gspo": ({"loss_type": "grpo", "level": "sequence", "low": 3e-4, "high": 4e-4}, GSPO),
    "luspo": ({"loss_type": "luspo", "level": "sequence"}, LUSPO),
    "vespo": ({"loss_type": "vespo"}, VESPO),
}  # fmt: skip
"""TRL's settings and ours."""


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_losses(trainer: Any, case: str, turns: bool) -> None:
    settings, algorithm = CASES[case]
    for seed in (1, 2):
        rows = Rows(seed, turns=turns)
        rows.now.requires_grad_()
        advantage = torch.from_numpy(credit_of(algorithm, rows)).float()
        loss = their_loss(trainer, rows, advantage, settings)
        (theirs,) = torch.autograd.grad(loss, rows.now)
        rows.now.requires_grad_(False)
        value, ours = loss_of(algorithm, rows)
        assert value == pytest.approx(loss.item(), abs=2e-5)
        assert_allclose(ours, theirs[rows.mask.bool()].numpy(), atol=2e-5)
        assert (theirs[~rows.mask.bool()] == 0).all()

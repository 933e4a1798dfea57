"""Random padded rows for functions of other trainers, and what ours say of the same tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from agentrl.adapters.padded import PaddedRows
from agentrl.learn.loss import policy_loss, prepare
from agentrl.trajectory.batch import ENTROPY, REFERENCE_LOGPROB

if TYPE_CHECKING:
    from agentrl.learn.algorithm import Algorithm

B, L, G = 12, 9, 4


class Rows:
    """Random rows: groups of four, rewards at the last token.

    Masks are prefixes as in single answers, all of the row where it is `full`, or with `turns` rows with a
    tool's answer inside.
    """

    def __init__(self, seed: int, *, turns: bool = False, full: bool = False) -> None:
        self.random = random = np.random.default_rng(seed)
        self.uid = np.array([f"g{row // G}" for row in range(B)], dtype=object)
        length = np.full(B, L) if full else random.integers(1, L + 1, B)
        self.padding = torch.from_numpy((np.arange(L)[None] < length[:, None]).astype(np.float32))
        self.mask = self.padding.clone()
        if turns:
            self.mask[:, 2:4] = torch.where(self.mask[:, 4:5] > 0, 0.0, self.mask[:, 2:4])
        self.reward = torch.zeros(B, L)
        self.reward[torch.arange(B), torch.from_numpy(length) - 1] = torch.from_numpy(
            random.choice([0.0, 1.0, 0.3], B).astype(np.float32)
        )
        self.old = torch.from_numpy(-np.abs(random.normal(1, 0.5, (B, L))).astype(np.float32))
        self.now = self.old + torch.from_numpy(random.normal(0, 0.3, (B, L)).astype(np.float32))
        self.ours = PaddedRows.of(self.uid, self.mask, self.reward.numpy(), logprob=self.old)
        self.reference = self.old + torch.from_numpy(random.normal(0, 0.3, (B, L)).astype(np.float32))
        self.entropy = torch.from_numpy(random.uniform(0, 2, (B, L)).astype(np.float32))


def credit_of(algorithm: Algorithm, rows: Rows) -> np.ndarray:
    """(B, L) our advantage."""
    return rows.ours.spread(algorithm.credit(rows.ours.batch))


def loss_of(algorithm: Algorithm, rows: Rows) -> tuple[float, np.ndarray]:
    """Our loss, and its gradient at the sampled tokens, row after row."""
    sampled = rows.mask.bool()
    batch = rows.ours.batch.with_column(REFERENCE_LOGPROB, rows.reference[sampled].numpy())
    batch = batch.with_column(ENTROPY, rows.entropy[sampled].numpy())
    inputs = prepare(algorithm, batch, algorithm.credit(batch))
    now = rows.now[sampled].clone().requires_grad_()
    loss = policy_loss(algorithm, inputs, now).total
    (gradient,) = torch.autograd.grad(loss, now)
    return loss.item(), gradient.numpy()

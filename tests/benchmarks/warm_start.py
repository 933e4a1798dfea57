"""A starting point for benchmarks: a small model after a short warm start, kept in a temporary folder.

Only the weights are kept: whatever else a benchmark needs it makes again, and the name of the kept file
depends on everything that the training read.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from agentrl.learn.gradient import flat_weights, load_flat, supervised_gradient
from agentrl.learn.learner import Learner
from agentrl.learn.optimizer import AdamW, Muon
from agentrl.learn.schedule import WarmupLinear
from agentrl.learn.supervised import epochs_of, total_weight
from agentrl.policy.build import ModelShape, build_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agentrl.learn.supervised import Example


@dataclass(frozen=True)
class WarmStart:
    """How long the warm start takes; enough to write calls and commands, not enough to play well."""

    steps: int = 80
    batch: int = 8
    seed: int = 1

    def __call__(
        self, tokenizer: PreTrainedTokenizerBase, shape: ModelShape, examples: Sequence[Example]
    ) -> PreTrainedModel:
        """Return the model, trained now or by an earlier run."""
        torch.manual_seed(self.seed)
        model = build_model(tokenizer, shape, seed=self.seed)
        kept = _folder() / f"{self._digest(shape, examples)}.pt"
        if kept.exists():
            load_flat(model, torch.load(kept, weights_only=True))
            return model
        self._train(model, examples)
        aside = kept.with_suffix(f".{os.getpid()}")
        torch.save(flat_weights(model), aside)
        aside.replace(kept)
        return model

    def _train(self, model: PreTrainedModel, examples: Sequence[Example]) -> None:
        adamw = AdamW(lr=WarmupLinear(3e-3, 0.03, 1e-4), betas=(0.9, 0.95), weight_decay=0.0)
        learner = Learner(model, Muon(lr=WarmupLinear(0.02, 0.03, 0.001), weight_decay=0.0, adamw=adamw))
        order = epochs_of(len(examples), batch=self.batch, seed=self.seed, steps=self.steps)
        for step in range(self.steps):
            chosen = [examples[index] for index in order[step]]
            part = supervised_gradient(model, chosen, total_weight=total_weight(chosen))
            learner.step(part.gradient, step / self.steps)

    def _digest(self, shape: ModelShape, examples: Sequence[Example]) -> str:
        digest = hashlib.blake2b(f"{self} {shape} {torch.__version__}".encode(), digest_size=12)
        for example in examples:
            digest.update(example.tokens.tobytes())
            digest.update(example.weight.tobytes())
        return digest.hexdigest()


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"agentrl-benchmarks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder

"""Optimizers and schedules as values."""

from __future__ import annotations

import pytest
import torch

from agentrl.errors import AlgorithmError
from agentrl.learn.muon import BatchedMuon
from agentrl.learn.optimizer import AdamW, Lion, Muon, Optimizer, is_hidden_matrix
from agentrl.learn.schedule import Constant, Cosine, Linear, Schedule, WarmupLinear

torch.set_num_threads(1)


def network() -> torch.nn.Module:
    return torch.nn.ModuleDict(
        {
            "embed_tokens": torch.nn.Embedding(5, 4),
            "layer": torch.nn.Linear(4, 4),
            "norm": torch.nn.LayerNorm(4),
            "lm_head": torch.nn.Linear(4, 5, bias=False),
        }
    )


def test_adamw_decays_matrices_only() -> None:
    (optimizer,) = AdamW(lr=0.1, weight_decay=0.5).build(network().named_parameters())
    matrices, vectors = optimizer.param_groups
    assert [p.ndim for p in matrices["params"]] == [2, 2, 2]
    assert all(p.ndim == 1 for p in vectors["params"])
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.5, 0.0)


def test_muon_takes_hidden_matrices_and_leaves_the_rest_to_adamw() -> None:
    model = network()
    muon, adamw = Muon().build(model.named_parameters())
    assert isinstance(muon, BatchedMuon)
    assert isinstance(adamw, torch.optim.AdamW)
    assert [p.shape for p in muon.param_groups[0]["params"]] == [(4, 4)]
    stepped = sum(len(group["params"]) for optimizer in (muon, adamw) for group in optimizer.param_groups)
    assert stepped == len(list(model.parameters()))
    assert is_hidden_matrix("layer.weight", torch.zeros(2, 2))
    assert not is_hidden_matrix("model.embed_tokens.weight", torch.zeros(2, 2))


@pytest.mark.parametrize("spec", [AdamW(lr=0.01), Muon(lr=0.01, adamw=AdamW(lr=0.01)), Lion(lr=0.01)])
def test_a_step_lowers_a_loss(spec: Optimizer) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    inputs, targets = torch.randn(16, 4), torch.randn(16, 1)
    optimizers = spec.build(model.named_parameters())
    losses = []
    for _ in range(20):
        loss = (model(inputs) - targets).square().mean()
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_lion_steps_by_signs() -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    (optimizer,) = Lion(lr=Linear(0.1, 0.0), betas=(0.9, 0.5), weight_decay=0.5).build([("w", weight)])
    for gradient in ([3.0, -1.0], [-0.1, 0.5]):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
    # First the signs of the gradient: 1 * .95 - .1 and -2 * .95 + .1. The momentum is then [1.5, -.5], and
    # .9 m + .1 g = [1.34, -.4]: the same signs again.
    torch.testing.assert_close(weight.data, torch.tensor([[0.85 * 0.95 - 0.1, -1.8 * 0.95 + 0.1]]))
    Lion(lr=Linear(0.1, 0.0)).set_progress([optimizer], 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.05}


def test_scheduled_rates_are_put_in() -> None:
    spec = Muon(lr=Linear(1.0, 0.0), adamw=AdamW(lr=Linear(0.5, 0.0)))
    muon, adamw = optimizers = spec.build(network().named_parameters())
    assert (muon.param_groups[0]["lr"], adamw.param_groups[0]["lr"]) == (1.0, 0.5)
    spec.set_progress(optimizers, 0.75)
    assert {group["lr"] for group in muon.param_groups} == {0.25}
    assert {group["lr"] for group in adamw.param_groups} == {0.125}


def test_only_vectors_or_only_matrices() -> None:
    norm = torch.nn.LayerNorm(4)
    assert len(Muon().build(norm.named_parameters())) == 1
    assert len(Muon().build([("layer.weight", torch.nn.Parameter(torch.zeros(2, 2)))])) == 1


def test_frozen_network_is_refused() -> None:
    model = network().requires_grad_(False)
    for spec in (AdamW(), Muon(), Lion()):
        with pytest.raises(AlgorithmError, match="unfreeze"):
            spec.build(model.named_parameters())


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(3.0), [3.0, 3.0, 3.0]),
        (Linear(2.0, 4.0), [2.0, 3.0, 4.0]),
        (Cosine(2.0, 0.0), [2.0, 1.0, 0.0]),
        (WarmupLinear(1.0, warmup=0.5), [0.0, 1.0, 0.0]),
        (WarmupLinear(1.0, warmup=0.0, end=0.5), [1.0, 0.75, 0.5]),
        (WarmupLinear(1.0, warmup=1.0), [0.0, 0.5, 1.0]),
    ],
)
def test_schedules(schedule: Schedule, values: list[float]) -> None:
    assert [schedule(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx(values)
    assert [schedule(progress) for progress in (-1.0, 2.0)] == pytest.approx([values[0], values[2]])

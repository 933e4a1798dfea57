"""Our credit as an estimator of verl's, and inside of the compute_advantage of its trainer."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from agentrl.adapters.verl import register
from agentrl.errors import ConfigError

INSTALLED = importlib.util.find_spec("verl") is not None
with_verl = pytest.mark.skipif(
    not INSTALLED, reason="verl is not installed; `make trainers` makes an environment with it"
)
# Importing verl and ray warns of their own dependencies.
quiet = pytest.mark.filterwarnings("ignore")

UID = np.array(["a", "a", "b", "b"], dtype=object)
MASK = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]])


def rewards() -> torch.Tensor:
    given = torch.zeros(4, 4)
    given[0, 3], given[3, 3] = 1.0, 0.5
    return given


@with_verl
@quiet
def test_verl_finds_it_and_grpo_agrees_with_its_own() -> None:
    core: Any = importlib.import_module("verl.trainer.ppo.core_algos")
    register("agentrl_grpo_test", "GRPO")
    found = core.get_adv_estimator_fn("agentrl_grpo_test")  # as compute_advantage of its trainer does
    advantage, _ = found(token_level_rewards=rewards(), response_mask=MASK, config=None, index=UID)
    theirs, _ = core.compute_grpo_outcome_advantage(rewards(), MASK.float(), UID)
    assert_allclose(advantage.numpy(), theirs.numpy(), atol=2e-5)


@with_verl
@quiet
def test_turns_and_keys_are_told_apart() -> None:
    estimator = register("agentrl_gigpo_test", "GIGPO")
    assert register("agentrl_gigpo_test", "GIGPO") == estimator  # the same again is no error
    keys = [["s", "t"], ["s"], ["u"], ["u", "v"]]
    advantage, returns = estimator(rewards(), MASK, index=UID, turn_keys=keys)
    assert_allclose(advantage[0].numpy(), [0.975, 0.975, 0, 0.5], atol=1e-6)
    assert (advantage == returns).all()
    assert (advantage[MASK == 0] == 0).all()
    with pytest.raises(ConfigError, match="'uid'"):
        estimator(rewards(), MASK)


@with_verl
@quiet
def test_its_trainer_takes_our_advantage() -> None:
    """The very function that its trainer calls, with what its trainer holds."""
    trainer: Any = importlib.import_module("verl.trainer.ppo.ray_trainer")
    protocol: Any = importlib.import_module("verl.protocol")
    data = protocol.DataProto.from_dict(
        tensors={"token_level_rewards": rewards(), "response_mask": MASK}, non_tensors={"uid": UID}
    )
    register("agentrl_trainer_test", "GIGPO")
    found = trainer.compute_advantage(data, "agentrl_trainer_test").batch
    # It hands on no keys, so the episode term is all: 1 and 0 about 1/2, 0 and 0.5 about 1/4.
    expected = torch.tensor([0.5, -0.5, -0.25, 0.25])[:, None] * MASK
    assert_allclose(found["advantages"].numpy(), expected.numpy(), atol=1e-6)
    assert (found["returns"] == found["advantages"]).all()


@pytest.mark.skipif(INSTALLED, reason="verl is installed")
def test_without_verl_it_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match="pip install verl"):
        register("never")

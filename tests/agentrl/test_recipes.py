"""One grid over all recipes: they are values, they are documented, and each gives a sane gradient."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from agentrl import recipes
from agentrl.credit.advantage import Relative
from agentrl.credit.compose import Advantage, Composable
from agentrl.credit.critic import returns_of
from agentrl.credit.keep import All, Kept, NoVoid, no_valid_action
from agentrl.errors import AlgorithmError, ConfigError
from agentrl.learn.algorithm import Algorithm, describe, from_description
from agentrl.learn.loss import LossInputs, policy_loss, prepare
from agentrl.learn.optimizer import AdamW, Lion
from agentrl.learn.penalty import KlToOld, KlToReference
from agentrl.learn.schedule import Linear
from agentrl.trajectory.batch import CURRENT_LOGPROB, Batch
from tests.recipe_batches import make_batch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

torch.set_num_threads(1)

Array: TypeAlias = NDArray[np.float64]

TELL_FAILURES_APART = {
    "IGPO", "IGPO_JOINT",  # by how much each turn told
    "TURN_PPO", "BI_LEVEL_GAE", "POAD", "POISE",  # by what the critic expected
    "GDPO_REWARDS", "GIGPO_REFUSED",  # by refused actions
    "NGRPO",  # from an imagined success
    "UFO",  # by repeated actions
    "REINFORCE", "GIGPO_VERL_AGENT", "HGPO", "MARS", "REINFORCE_PP",  # see below
    "SPO_STREAM",  # from the task's past
}  # fmt: skip
"""Recipes that learn from groups of equal outcomes, if all failed."""

TELL_SUCCESSES_APART = TELL_FAILURES_APART | {
    "GIGPO", "GIGPO_BY_TRAJECTORY", "GIGPO_OBSERVATION", "GIGPO_SIMILAR", "GIGPO_SAPO",  # by how soon
    "MT_GRPO", "STEP_GRPO",  # by when the reward came
    "CENTERED", "RAE",  # from no baseline or a running one
    "OTC", "UNLIKELINESS", "GRPO_LAMBDA", "FAPO", "ADA_GRPO",  # by calls, likelihood, length, flaws, format
}  # fmt: skip
"""And if all succeeded."""

COMPARE_BEYOND_THE_GROUP = {
    "REINFORCE", "GIGPO_VERL_AGENT", "GIGPO", "GIGPO_BY_TRAJECTORY", "GIGPO_REFUSED", "GIGPO_OBSERVATION",
    "GIGPO_SIMILAR", "GIGPO_SAPO", "HGPO", "IGPO", "IGPO_JOINT", "TURN_PPO", "BI_LEVEL_GAE", "POAD", "POISE",
    "MARS", "REINFORCE_PP", "CENTERED", "RAE", "SPO_STREAM",
}  # fmt: skip

ALL = pytest.mark.parametrize("name", recipes.names())


@ALL
def test_recipe_is_a_value(name: str) -> None:
    algorithm = recipes.get(name)
    assert pickle.loads(pickle.dumps(algorithm)) == algorithm
    assert hash(algorithm) == hash(recipes.get(name.lower().replace("_", "-")))
    assert "0x" not in repr(algorithm)
    scheduled = name in {"SCALING_INTER", "ADA_GRPO"}
    assert (algorithm.at(0.5) == algorithm) is not scheduled


@ALL
def test_run_card_round_trip(name: str) -> None:
    algorithm = recipes.get(name)
    card = json.dumps(describe(algorithm), sort_keys=True)
    assert from_description(json.loads(card)) == algorithm
    assert json.dumps(describe(from_description(json.loads(card))), sort_keys=True) == card
    assert "0x" not in card


@ALL
def test_recipe_is_documented(name: str) -> None:
    about = recipes.ABOUT[name]
    assert all((about.title, about.paper, about.equations, about.departures, about.checked))


@ALL
def test_departures_begin_with_what_the_algorithm_is(name: str) -> None:
    algorithm, told = recipes.get(name), recipes.ABOUT[name].departures
    kl = [term for term in algorithm.penalties if isinstance(term, KlToReference | KlToOld)]
    assert ("no KL term" in told) is not bool(kl)
    assert all(repr(term) in told for term in kl)
    assert isinstance(algorithm.optimizer, AdamW | Lion)
    assert f"{type(algorithm.optimizer).__name__} at {algorithm.optimizer.lr}" in told


def test_only_what_compares_speaks_of_lone_members() -> None:
    told = {name: about.departures for name, about in recipes.ABOUT.items()}
    assert "; a lone member gets 0." in told["RLOO"]
    assert "; a lone member gets 0." in told["DR_GRPO"]
    assert "; a lone member keeps its undivided figure." in told["REINFORCE"]
    assert "lone" not in told["TURN_PPO"]


def test_every_algorithm_is_in_the_table() -> None:
    named = {name for name, value in vars(recipes).items() if isinstance(value, Algorithm)}
    assert named == set(recipes.names())
    assert len({recipes.get(name) for name in named}) == len(named)


def moved(inputs: LossInputs) -> torch.Tensor:
    """Return a policy away from the one that drew the tokens, the same for a token wherever it stands."""
    return inputs.old_logprob + 0.1 * torch.sin(37 * inputs.old_logprob)


def gradient_of(algorithm: Algorithm, batch: Batch) -> Array:
    """(N,) the gradient of the loss at each sampled token; finite, with finite figures."""
    algorithm = algorithm.at(0.5)
    inputs = prepare(algorithm, batch, algorithm.credit(batch), dtype=torch.float64)
    logprob = moved(inputs).requires_grad_()
    loss = policy_loss(algorithm, inputs, logprob, entropy=-logprob)
    assert loss.total.isfinite()
    assert all(np.isfinite(value) for value in loss.health.figures().values())
    if not loss.total.requires_grad:
        return np.zeros(batch.num_sampled)
    (gradient,) = torch.autograd.grad(loss.total, logprob)
    assert gradient.isfinite().all()
    return gradient.numpy()


@ALL
def test_gradient_is_finite_and_not_zero(name: str) -> None:
    assert np.abs(gradient_of(recipes.get(name), make_batch())).sum() > 0


COMPOSED: dict[str, Callable[[Composable], Advantage]] = {
    "1.0 * part": lambda part: 1.0 * part,
    "half and half": lambda part: 0.5 * part + 0.5 * part,
    "part + 0 * Relative()": lambda part: part + 0 * Relative(),
    "Relative() + part - Relative()": lambda part: Relative() + part - Relative(),
    "-1 times -part": lambda part: -1 * -part,
    "of a schedule": lambda part: Linear(0.0, 2.0) * part,  # 1 in the middle
}


@ALL
def test_a_composed_advantage_declares_and_gives_what_its_part_does(name: str) -> None:
    plain = replace(recipes.get(name), on_empty="skip")
    part, batch = plain.advantage, make_batch()
    assert isinstance(part, Composable)
    now = batch.logprob + 0.2 * np.sin(29 * batch.logprob)
    batch = batch.with_column(CURRENT_LOGPROB, now.astype(np.float32))
    wanted, slope = plain.at(0.5).credit(batch), gradient_of(plain, batch)
    for what, compose in COMPOSED.items():
        composed = replace(plain, advantage=compose(part))
        found = composed.at(0.5).credit(batch)
        assert composed.needs == plain.needs
        assert composed.reads_current is plain.reads_current
        assert returns_of(composed.advantage) == returns_of(part)
        assert_allclose(found.advantage, wanted.advantage, rtol=0, atol=1e-9, err_msg=what)
        assert_allclose(
            found.advantage_of_sample, wanted.advantage_of_sample, rtol=0, atol=1e-9, err_msg=what
        )
        assert_allclose(gradient_of(composed, batch), slope, rtol=0, atol=1e-9, err_msg=what)
        assert from_description(describe(composed)) == composed


@ALL
def test_void_turns_receive_no_gradient(name: str) -> None:
    batch, algorithm = make_batch(), recipes.get(name)
    tight = replace(algorithm, keep=All((algorithm.keep, NoVoid(no_valid_action, "turn"))), on_empty="skip")
    gradient, void = gradient_of(tight, batch), ~batch.valid[batch.turn_of_sample]
    assert void.any()
    assert_allclose(gradient[void], 0.0, atol=0)
    assert np.abs(gradient[~void]).sum() > 0


@ALL
def test_tokens_that_were_not_sampled_receive_no_gradient(name: str) -> None:
    algorithm, batch = recipes.get(name).at(0.5), make_batch()
    inputs = prepare(algorithm, batch, algorithm.credit(batch))
    logits = torch.linspace(-1, 1, batch.num_tokens * 9).sin().reshape(-1, 9).requires_grad_()
    drawn = torch.from_numpy(batch.token.astype(np.int64))[:, None]
    logprob = logits.log_softmax(-1).gather(1, drawn).squeeze(1)[torch.from_numpy(batch.sampled)]
    spread = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
    entropy = spread[torch.from_numpy(batch.sampled)]
    (gradient,) = torch.autograd.grad(policy_loss(algorithm, inputs, logprob, entropy).total, logits)
    assert (~batch.sampled).any()
    assert (gradient[torch.from_numpy(~batch.sampled)] == 0).all()
    assert gradient.abs().sum() > 0


@ALL
def test_order_of_trajectories_does_not_matter(name: str) -> None:
    algorithm, batch = recipes.get(name).at(0.5), make_batch()
    order = np.random.default_rng(0).permutation(batch.num_trajectories)
    plain = batch.with_column(CURRENT_LOGPROB, np.arange(batch.num_sampled, dtype=np.float32))
    place = plain.select(order)[CURRENT_LOGPROB].astype(int)
    assert_allclose(
        gradient_of(algorithm, batch.select(order)), gradient_of(algorithm, batch)[place], atol=1e-12
    )


@ALL
def test_pieces_add_up_to_the_batch(name: str) -> None:
    """Micro-batches of whole streams: what is padded with what, and in which order, changes nothing."""
    algorithm, batch = recipes.get(name).at(0.5), make_batch()
    inputs = prepare(algorithm, batch, algorithm.credit(batch), dtype=torch.float64)
    logprob, streams = moved(inputs), inputs.spans.stream
    pieces = [(streams % 3 == rest).nonzero().squeeze(1) for rest in (2, 0, 1)]
    whole = policy_loss(algorithm, inputs, logprob, -logprob).total.item()
    found = [policy_loss(algorithm, inputs.take(p), logprob[p], -logprob[p]).total.item() for p in pieces]
    assert sum(found) == pytest.approx(whole, abs=1e-12)


@ALL
@pytest.mark.parametrize("won", [True, False])
def test_zero_spread_gives_no_advantage(name: str, won: bool) -> None:
    algorithm, batch = replace(recipes.get(name).at(0.5), on_empty="skip"), make_batch(won=won)
    gradient_of(algorithm, batch)
    if name not in (TELL_SUCCESSES_APART if won else TELL_FAILURES_APART):
        assert_allclose(algorithm.credit(batch).advantage_of_sample, 0.0, atol=1e-9)


def keep_nothing(batch: Batch, reward: Array, /) -> Kept:
    return Kept(np.zeros(batch.num_turns, np.bool_), np.zeros(batch.num_trajectories, np.bool_))


@ALL
def test_a_filter_that_keeps_nothing(name: str) -> None:
    algorithm, batch = replace(recipes.get(name).at(0.5), keep=keep_nothing), make_batch()
    assert_allclose(gradient_of(replace(algorithm, on_empty="skip"), batch), 0.0, atol=0)
    with pytest.raises(AlgorithmError, match="nothing to learn from"):
        replace(algorithm, on_empty="raise").credit(batch)


@ALL
def test_a_saved_recipe_has_the_same_gradient(name: str, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_text(json.dumps(describe(recipes.get(name))))
    loaded, batch = from_description(json.loads(card.read_text())), make_batch()
    assert_allclose(gradient_of(loaded, batch), gradient_of(recipes.get(name), batch), atol=0)


@ALL
def test_groups_of_one_are_finite(name: str) -> None:
    algorithm, batch = replace(recipes.get(name).at(0.5), on_empty="skip"), make_batch(members=1, groups=3)
    gradient_of(algorithm, batch)
    advantage = algorithm.credit(batch).advantage
    if name not in COMPARE_BEYOND_THE_GROUP:
        assert_allclose(advantage, 0.0)


def test_get_corrects_spelling_and_takes_dotted_paths() -> None:
    assert recipes.get("dr-grpo") is recipes.DR_GRPO
    assert recipes.get("agentrl.recipes:GSPO") is recipes.GSPO
    with pytest.raises(ConfigError, match=r"Did you mean 'GIGPO'"):
        recipes.get("gigpoo")
    with pytest.raises(ConfigError, match="not an agentrl Algorithm"):
        recipes.get("agentrl.recipes:ABOUT")
    with pytest.raises(AlgorithmError, match="Did you mean 'DAPO'"):
        recipes.get("agentrl.recipes:DAPOO")
    for path in ("no_such_module:GRPO", "no.such.module:GRPO", ":GRPO"):
        with pytest.raises(AlgorithmError, match="there is no module"):
            recipes.get(path)


def test_a_run_card_of_something_else_is_refused() -> None:
    with pytest.raises(AlgorithmError, match="not an Algorithm"):
        from_description({"function": "agentrl.credit.peers:everyone"})


def test_recipes_print_compare_and_pickle_without_torch() -> None:
    code = (
        "import sys, pickle, agentrl.recipes as r\n"
        "from agentrl.learn.algorithm import describe, from_description\n"
        "import agentrl.learn.loss, agentrl.learn.penalty\n"
        "for n in r.names():\n"
        "    a = r.get(n)\n"
        "    assert pickle.loads(pickle.dumps(a)) == a == from_description(describe(a)) and repr(a)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

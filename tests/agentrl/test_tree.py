"""Shared prefixes: a tree of tokens gives the losses and gradients of the padded batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from agentrl.learn import attention, layout
from agentrl.learn.attention import FLEX, IN_CHUNKS
from agentrl.learn.forward import Layout, predict, rows_of
from agentrl.learn.gradient import flat_gradient
from agentrl.learn.layout import Packed, lay_out, packed_of, reads_trees
from agentrl.learn.tree import alphabetical, cut, deal, tree_of

if TYPE_CHECKING:
    from collections.abc import Callable

torch.set_num_threads(1)
WORDS = 64
SIZE = {
    "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
Sequences = list[NDArray[np.int64]]


def model_of(kind: str, **changes: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZE, **changes})
    built: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    built.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(3.0)
    return built


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return model_of("qwen2")


def group(random: np.random.Generator, members: int = 4, prefix: int = 20) -> Sequences:
    """Members of a group: one prompt, then each its own way."""
    stem = random.integers(0, WORDS, prefix)
    return [np.append(stem, random.integers(0, WORDS, random.integers(3, 30))) for _ in range(members)]


def branches(random: np.random.Generator) -> Sequences:
    """A trunk, branches of it, a branch of a branch, one that stops where another goes on, and a repeat."""
    trunk = random.integers(0, WORDS, 40)
    first = np.append(trunk[:17], random.integers(0, WORDS, 15))
    second = np.append(first[:25], random.integers(0, WORDS, 3))
    return [trunk, first, second, trunk[:9], first.copy(), np.append(trunk, 3)]


def turns(random: np.random.Generator) -> Sequences:
    """Each turn a sample of its own with the whole history before it."""
    whole = random.integers(0, WORDS, 60)
    return [whole[: 12 * turn] for turn in range(1, 6)]


CASES: dict[str, Callable[[np.random.Generator], Sequences]] = {
    "groups": lambda random: group(random) + group(random),
    "branches": branches,
    "turns": turns,
    "nothing shared": lambda random: [random.integers(0, WORDS, n) for n in (1, 9, 2, 30)],
}


def targets_of(sequences: Sequences, random: np.random.Generator) -> list[NDArray[np.int64]]:
    """Some positions of each; those of a shared prefix are targets of several rows, as sampled tokens are."""
    return [np.flatnonzero(random.random(len(each) - 1) < 0.6) + 1 for each in sequences]


def gradient(model: PreTrainedModel, rows: Layout, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    said = predict(model, rows, temperature=1.3, entropy="differentiable")
    assert said.entropy is not None
    (weight * (said.logprob + 0.1 * said.entropy)).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return torch.stack([said.logprob, said.entropy]).detach(), flat_gradient(model)


@pytest.mark.parametrize("case", CASES)
def test_log_probabilities_and_gradients_are_those_of_padded_rows(case: str, model: PreTrainedModel) -> None:
    random = np.random.default_rng(5)
    sequences = CASES[case](random)
    targets = targets_of(sequences, random)
    count = sum(map(len, targets))
    # A loss of order one, as an average over tokens is.
    weight = torch.from_numpy(random.normal(size=count).astype(np.float32)) / count
    said, expected = gradient(model, rows_of(sequences, targets), weight)
    found, gradients = gradient(model, packed_of(sequences, targets), weight)
    assert_allclose(found, said, atol=2e-5)
    assert float(((found - said)[0] * weight).sum().abs()) < 1e-6
    assert_allclose(gradients, expected, atol=1e-6)
    assert float(expected.abs().max()) > 1e-3


@pytest.mark.filterwarnings("ignore:flex_attention called without")  # unfused is right, and slow
@pytest.mark.parametrize("case", CASES)
def test_flex_attention_says_the_same(case: str, model: PreTrainedModel) -> None:
    random = np.random.default_rng(5)
    sequences = CASES[case](random)
    targets = targets_of(sequences, random)
    with torch.no_grad():  # its backward needs a GPU
        found = predict(model, packed_of(sequences, targets, attention=FLEX)).logprob
        expected = predict(model, rows_of(sequences, targets)).logprob
    assert_allclose(found, expected, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_log_probabilities_and_gradients_are_those_of_padded_rows(
    case: str, model: PreTrainedModel
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    random, device = np.random.default_rng(5), torch.device("cuda")
    sequences = CASES[case](random)
    targets = targets_of(sequences, random)
    count = sum(map(len, targets))
    weight = (torch.from_numpy(random.normal(size=count).astype(np.float32)) / count).to(device)
    there = model_of("qwen2")
    there.to(device)  # type: ignore[arg-type]  # transformers wraps it untyped
    packed = packed_of(sequences, targets, device)
    assert packed.attention == FLEX
    said, expected = gradient(there, rows_of(sequences, targets, device), weight)
    found, gradients = gradient(there, packed, weight)
    assert_allclose(found.cpu(), said.cpu(), atol=1e-4)
    assert_allclose(gradients.cpu(), expected.cpu(), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "changes", "reads"),
    [
        ("llama", {}, True),
        ("qwen3", {"head_dim": 8}, True),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, None),
        ("mistral", {"sliding_window": 4}, False),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}, False),
    ],
)
def test_other_models_share_prefixes_where_they_can_and_never_err(
    kind: str, changes: dict[str, object], reads: bool | None
) -> None:
    other = model_of(kind, **changes)
    assert reads is None or reads_trees(other) is reads
    random = np.random.default_rng(2)
    sequences = CASES["groups"](random)
    targets = targets_of(sequences, random)
    with torch.no_grad():
        for rows, piece in lay_out(other, sequences, targets, tokens=200):
            own = rows_of([sequences[r] for r in rows], [targets[r] for r in rows])
            assert_allclose(predict(other, piece).logprob, predict(other, own).logprob, atol=5e-5)


def test_a_tree_is_taken_where_it_saves_tokens(model: PreTrainedModel) -> None:
    random = np.random.default_rng(2)

    def kinds(sequences: Sequences) -> set[bool]:
        made = lay_out(model, sequences, [np.array([1])] * len(sequences), tokens=10_000)
        return {isinstance(piece, Packed) for _, piece in made}

    assert kinds(group(random, members=8, prefix=40)) == {True}
    assert kinds([random.integers(0, WORDS, 30) for _ in range(8)]) == {False}
    ragged = [random.integers(0, WORDS, n) for n in (10, 20, 30, 40)]
    assert kinds(ragged) == {True}  # nothing is shared, and nothing is padded
    assert list(lay_out(model, [], [], tokens=100)) == []


def test_a_model_that_errs_on_a_tree_reads_padded_rows_and_says_so(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def blind(*args: object, **kwargs: object) -> attention.Plan:
        plan = attention.chunk_plan(*args, **kwargs)  # type: ignore[arg-type]  # passed on
        assert plan.place is not None
        return attention.Plan(plan.batches, plan.place.flip(0))

    monkeypatch.setattr(layout, "chunk_plan", blind)
    monkeypatch.setattr(layout, "_READS", type(layout._READS)())
    assert not reads_trees(model)
    assert "would differ by" in caplog.text


def test_a_model_attends_as_before_afterwards(model: PreTrainedModel) -> None:
    before = model.config._attn_implementation
    sequences = CASES["branches"](np.random.default_rng(0))
    packed = packed_of(sequences, [np.array([1])] * len(sequences))
    assert packed.attention == IN_CHUNKS
    predict(model, packed)
    assert model.config._attn_implementation == before


TOKENS = st.lists(st.lists(st.integers(0, 2), max_size=7), max_size=9)


@settings(max_examples=150, deadline=None)
@given(TOKENS, st.integers(1, 12))
def test_a_tree_holds_every_sequence_once(lists: list[list[int]], most: int) -> None:
    sequences = [np.array(each, np.int64) for each in lists]
    tree = tree_of(sequences)
    prefixes = {tuple(each[:end]) for each in lists for end in range(1, len(each) + 1)}
    assert len(tree) == len(prefixes)
    for sequence, path in zip(sequences, tree.path, strict=True):
        assert tree.token[path].tolist() == sequence.tolist()
        assert tree.depth[path].tolist() == list(range(len(sequence)))
        assert (np.diff(path) > 0).all()  # a node stands behind its parent
    # One node lies below another exactly where the walk enters it between entering and leaving the other.
    below = np.zeros((len(tree), len(tree)), bool)
    for path in tree.path:
        for depth, node in enumerate(path):
            below[node, path[: depth + 1]] = True
    entered, left = tree.entered, tree.left
    assert ((entered[None] <= entered[:, None]) & (entered[:, None] < left[None]) == below).all()
    pieces = cut(sequences, tokens=most)
    assert sorted(row for piece in pieces for row in piece.rows) == list(range(len(lists)))
    for piece in pieces:
        assert len(tree_of([sequences[row] for row in piece.rows])) == piece.nodes
        assert piece.nodes <= most or len(piece.rows) == 1
    shares = deal(sequences, 3)
    assert [row for share in shares for row in share] == alphabetical(sequences)


def test_shares_are_equally_heavy_and_keep_groups_together() -> None:
    random = np.random.default_rng(1)
    sequences = [each for _ in range(6) for each in group(random, members=8, prefix=50)]
    sizes = [len(tree_of([sequences[row] for row in share])) for share in deal(sequences, 3)]
    assert max(sizes) < 1.2 * min(sizes)
    split = [len({row // 8 for row in share}) for share in deal(sequences, 3)]
    assert sum(split) <= 6 + 2  # at most one group is cut at each border

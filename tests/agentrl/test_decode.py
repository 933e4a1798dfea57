"""The decode engine: exact log-probabilities, keyed noise, slots, stops and limits, on all three backends."""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from agentrl.errors import PolicyError
from agentrl.policy.base import Sampling
from agentrl.policy.decode import (
    Chunks,
    Decoded,
    DecodeEngine,
    DecodeRequest,
    FusedBackend,
    RereadBackend,
    TransformersCacheBackend,
    make_engine,
)
from agentrl.policy.decode.sampling import draw, uniforms
from tests.agentrl.decoding import (
    BACKENDS,
    CONTEXT,
    EXACT,
    MODELS,
    VOCABULARY,
    ask,
    bloom,
    engine_of,
    full_logprobs,
    gpt2,
    mistral,
    play,
    qwen2,
    qwen3,
    row,
    same,
    scattered,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from transformers import (
        PreTrainedModel,
    )

LOCKED = [0.005456234660006776, 0.3931434948837085, 0.515537209539765]
torch.set_num_threads(1)


@pytest.fixture(params=list(BACKENDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Every backend."""
    return str(request.param)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    """A shared tiny Qwen2; tests that change weights build their own."""
    return qwen2()


@pytest.mark.parametrize("name", MODELS)
def test_logprobs_are_those_of_a_full_forward(name: str, kind: str) -> None:
    model = MODELS[name]()
    played = play(engine_of(kind, model, 4), range(6), Sampling(max_tokens=5))
    for turns in played.values():
        sampled = np.concatenate([decoded.logprobs for _, decoded in turns])
        assert sampled.shape == (15,)
        np.testing.assert_allclose(sampled, full_logprobs(model, turns), atol=EXACT)


def test_on_sharp_weights_the_engine_is_as_exact_as_the_models_own_forward(kind: str) -> None:
    # Trained weights are large and attention is sharp: float32 rounds the scores that the softmax compares,
    # and two float32 programs differ by more than EXACT. By float64, the engine is no worse than the model.
    model = qwen2()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj.weight" in name or "embed" in name:
                parameter.mul_(4.0 if "embed" in name else 3.0)
    played = play(engine_of(kind, model, 4), range(16), Sampling(max_tokens=8))
    precise = deepcopy(model).double()
    engine, forward = 0.0, 0.0
    for turns in played.values():
        truth = full_logprobs(precise, turns)
        sampled = np.concatenate([decoded.logprobs for _, decoded in turns])
        engine = max(engine, float(np.abs(sampled - truth).max()))
        forward = max(forward, float(np.abs(full_logprobs(model, turns) - truth).max()))
    assert forward > EXACT  # 2.0e-5: no float32 program can promise EXACT here
    assert engine < 2 * forward  # 1.5e-5 to 2.0e-5


@pytest.mark.parametrize("name", MODELS)
def test_the_three_engines_agree(name: str) -> None:
    model = MODELS[name]()
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=8, stop_strings=("ab",))
    played = [play(engine_of(kind, model, 3), range(7), sampling, stop=(3, 4, 5)) for kind in BACKENDS]
    same(played[0], played[1])
    same(played[0], played[2])


def test_a_stream_does_not_depend_on_its_company(model: PreTrainedModel, kind: str) -> None:
    sampling, stop = Sampling(max_tokens=6), tuple(range(0, VOCABULARY, 6))
    together = play(engine_of(kind, model, 8), range(8), sampling, stop=stop)
    for name in (0, 5):
        same({str(name): together[str(name)]}, play(engine_of(kind, model, 1), [name], sampling, stop=stop))


def test_fewer_slots_than_streams_and_small_steps_change_nothing(model: PreTrainedModel, kind: str) -> None:
    sampling = Sampling(max_tokens=4)
    wide = play(engine_of(kind, model, 9), range(9), sampling)
    same(wide, play(engine_of(kind, model, 2), range(9), sampling))
    same(wide, play(engine_of(kind, model, 2, tokens_per_step=3), range(9), sampling))


def test_a_waiting_stream_enters_when_one_is_released(model: PreTrainedModel) -> None:
    engine = engine_of("fused", model, 1)
    ask(engine, Sampling(max_tokens=1), 1, stream="first")
    engine.submit(DecodeRequest("second", row(2), Sampling(max_tokens=1), (0,)))
    assert engine.step() == []
    assert not engine.idle
    engine.release("first")
    assert len(engine.step()) == 1
    assert engine.idle


def test_releasing_a_stream_forgets_its_request(model: PreTrainedModel) -> None:
    engine = engine_of("fused", model, 1)
    engine.submit(DecodeRequest("a", row(1), Sampling(), (0,)))
    engine.submit(DecodeRequest("b", row(1), Sampling(), (0,)))
    engine.step()
    engine.release("a")
    engine.release("b")
    engine.release("never seen")
    assert engine.idle
    assert engine.step() == []


def test_the_stop_token_is_kept_and_read_before_the_next_turn(model: PreTrainedModel, kind: str) -> None:
    everything = tuple(range(VOCABULARY))
    backend = BACKENDS[kind](model, 1)
    engine = DecodeEngine(backend, slots=1, context=CONTEXT, decode=text, stop_tokens=everything)
    turns: list[tuple[NDArray[np.int32], Decoded]] = []
    for turn in range(3):
        decoded = ask(engine, Sampling(), 7, 8, 9, seed=turn)
        assert decoded.finish == "stop"
        assert len(decoded.tokens) == 1
        turns.append((row(7, 8, 9), decoded))
    logprobs = np.concatenate([decoded.logprobs for _, decoded in turns])
    np.testing.assert_allclose(logprobs, full_logprobs(model, turns), atol=EXACT)


def test_a_turn_may_continue_without_new_tokens(model: PreTrainedModel, kind: str) -> None:
    engine = engine_of(kind, model, 1)
    first = ask(engine, Sampling(max_tokens=3), 1, 2)
    second = ask(engine, Sampling(max_tokens=3), seed=1)
    turns = [(row(1, 2), first), (row(), second)]
    logprobs = np.concatenate([first.logprobs, second.logprobs])
    np.testing.assert_allclose(logprobs, full_logprobs(model, turns), atol=EXACT)


def test_stop_strings_end_at_the_token_that_completes_them(model: PreTrainedModel, kind: str) -> None:
    ends = 0
    for seed in range(20):
        sampling = Sampling(max_tokens=40, stop_strings=("abc", "dd"))
        decoded = ask(engine_of(kind, model, 1), sampling, 5, seed=seed)
        written = text(decoded.tokens.tolist())
        if decoded.finish == "stop":
            ends += 1
            assert written.endswith(("abc", "dd"))
            written = written[:-1]
        assert "abc" not in written
        assert "dd" not in written
    assert ends > 10


def test_a_stop_string_is_not_completed_by_the_observation(model: PreTrainedModel) -> None:
    # The prompt ends in "d"; only two sampled letters "d" may end the turn.
    for seed in range(20):
        decoded = ask(
            engine_of("reread", model, 1), Sampling(max_tokens=8, stop_strings=("dd",)), 3, seed=seed
        )
        assert text(decoded.tokens.tolist()) != "d"


def test_top_p_keeps_the_nucleus_and_renormalises() -> None:
    # Kept mass: .5 + .3 reaches .7; so .5/.8 and .3/.8. The order of the tokens is not that of their mass.
    logits = torch.log(torch.tensor([[0.05, 0.5, 0.15, 0.3]])).repeat(1000, 1)
    count = len(logits)
    noise, ones = (np.arange(count) + 0.5) / count, np.ones(count)
    drawn = draw(logits, noise, ones, 0.7 * ones)
    tokens, logprobs = drawn.tokens, drawn.logprobs
    assert drawn.finite.all()
    assert set(tokens.tolist()) == {1, 3}
    assert (tokens == 1).sum() == 625
    expected = np.where(tokens == 1, np.log(0.625), np.log(0.375))
    np.testing.assert_allclose(logprobs, expected, atol=1e-6)


def test_temperature_divides_the_logits() -> None:
    # Probabilities (.2, .8) at temperature .5 are squared: (.04, .64) / .68.
    logits = torch.log(torch.tensor([[0.2, 0.8], [0.2, 0.8]]))
    drawn = draw(logits, np.array([0.05, 0.06]), np.array([0.5, 0.5]), np.ones(2))
    assert drawn.tokens.tolist() == [0, 1]
    np.testing.assert_allclose(np.exp(drawn.logprobs), [0.04 / 0.68, 0.64 / 0.68], atol=1e-6)


def test_impossible_tokens_are_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]] * 2)
    drawn = draw(logits, uniforms((1,), 2) * 0 + [0.0, 1.0 - 2.0**-40], np.ones(2), np.ones(2))
    assert drawn.tokens.tolist() == [1, 1]
    assert drawn.logprobs.tolist() == [0.0, 0.0]
    assert drawn.finite.all()


def test_greedy_takes_the_likeliest_token(model: PreTrainedModel, kind: str) -> None:
    decoded = ask(engine_of(kind, model, 1), Sampling(temperature=0.0, max_tokens=6), 11, 12)
    stream = [11, 12]
    for token in decoded.tokens.tolist():
        with torch.no_grad():
            assert token == int(model(input_ids=torch.tensor([stream])).logits[0, -1].argmax())
        stream.append(token)
    assert decoded.logprobs.tolist() == [0.0] * 6


def test_samples_follow_the_distribution(model: PreTrainedModel) -> None:
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[4, 2]])).logits[0, -1].softmax(-1).numpy()
    engine, count, counts = engine_of("fused", model, 64), 2048, np.zeros(VOCABULARY)
    for index in range(count):
        engine.submit(DecodeRequest(str(index), row(4, 2), Sampling(max_tokens=1), (index,)))
    while not engine.idle:
        for ticket, decoded in engine.step():
            counts[decoded.tokens[0]] += 1
            engine.release(str(ticket - 1))
    # Total variation of an empirical distribution is about sqrt(V / (2 pi n)) = .09 at most.
    assert np.abs(counts / count - expected).sum() / 2 < 0.12


def test_the_context_limit_ends_the_turn(model: PreTrainedModel, kind: str) -> None:
    engine = engine_of(kind, model, 1)
    decoded = ask(engine, Sampling(max_tokens=50), *range(CONTEXT - 4))
    assert decoded.finish == "context"
    assert len(decoded.tokens) == 4
    again = ask(engine, Sampling(max_tokens=1), 1)
    assert again.finish == "context"
    assert again.tokens.shape == again.logprobs.shape == (0,)
    engine.release("s")
    long = ask(engine, Sampling(max_tokens=1), *([1] * CONTEXT))
    assert long.finish == "context"
    engine.release("s")
    exact = ask(engine, Sampling(max_tokens=4), *range(CONTEXT - 4))
    assert exact.finish == "length"


def test_a_chunk_that_does_not_fit_leaves_the_stream_as_it_was(model: PreTrainedModel) -> None:
    engine = engine_of("fused", model, 1)
    first = ask(engine, Sampling(max_tokens=2), 1, 2)
    assert ask(engine, Sampling(), *([1] * CONTEXT)).finish == "context"
    second = ask(engine, Sampling(max_tokens=2), 3)
    turns = [(row(1, 2), first), (row(3), second)]
    logprobs = np.concatenate([first.logprobs, second.logprobs])
    np.testing.assert_allclose(logprobs, full_logprobs(model, turns), atol=EXACT)


def test_a_model_of_nan_ends_as_invalid_and_heals(kind: str) -> None:
    model = qwen2()
    engine = engine_of(kind, model, 2)
    before = ask(engine, Sampling(max_tokens=3), 1, 2, stream="healthy")
    weight = model.get_parameter("model.layers.0.mlp.down_proj.weight")
    saved = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    engine.refresh()
    decoded = ask(engine, Sampling(max_tokens=3), 1, 2, stream="ill")
    assert decoded.finish == "invalid"
    assert decoded.tokens.shape == (0,)
    engine.release("ill")
    with torch.no_grad():
        weight.copy_(saved)
    engine.refresh()
    assert ask(engine, Sampling(max_tokens=3), 1, 2, stream="new").finish == "length"
    after = ask(engine, Sampling(max_tokens=3), stream="healthy")
    turns = [(row(1, 2), before), (row(), after)]
    np.testing.assert_allclose(
        np.concatenate([before.logprobs, after.logprobs]), full_logprobs(model, turns), atol=EXACT
    )


def test_one_ill_row_does_not_touch_the_others(kind: str) -> None:
    model = qwen2(tied=False)
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight")[50] = float("inf")
    engine = engine_of(kind, model, 2)
    engine.submit(DecodeRequest("ill", row(1, 50), Sampling(max_tokens=3), (0,)))
    sampling = Sampling(max_tokens=3, top_p=0.999999)
    healthy = engine.submit(DecodeRequest("healthy", row(1, 2), sampling, (0,)))
    results: dict[int, Decoded] = {}
    while not engine.idle:
        results.update(engine.step())
    assert {ticket: decoded.finish for ticket, decoded in results.items()} == {
        healthy - 1: "invalid",
        healthy: "length",
    }
    engine.release("ill")
    alone = ask(engine, sampling, 1, 2, stream="fresh")
    np.testing.assert_array_equal(alone.tokens, results[healthy].tokens)


def test_refresh_reads_living_streams_again_with_the_new_weights(kind: str) -> None:
    model = qwen2()
    engine = engine_of(kind, model, 1)
    first = ask(engine, Sampling(max_tokens=3), 1, 2, 3)
    scattered(model, seed=9)
    engine.refresh()
    second = ask(engine, Sampling(max_tokens=3), 4)
    full = full_logprobs(model, [(row(1, 2, 3), first), (row(4), second)])
    np.testing.assert_allclose(second.logprobs, full[3:], atol=EXACT)
    assert np.abs(first.logprobs - full[:3]).max() > 0.01


def test_noise_is_keyed() -> None:
    np.testing.assert_array_equal(uniforms((1, 2, 3), 4), uniforms((1, 2, 3), 9)[:4])
    assert not np.array_equal(uniforms((1, 2, 3), 4), uniforms((1, 23), 4))
    # Semantics lock: recorded runs replay only while these numbers stand; not without a decision.
    np.testing.assert_allclose(uniforms((0, 1), 3), LOCKED, rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "expected", "warns"),
    [
        (qwen2, FusedBackend, False),
        (qwen3, FusedBackend, False),
        (gpt2, TransformersCacheBackend, True),
        (bloom, RereadBackend, True),
        (lambda: mistral(None), FusedBackend, False),
        (lambda: mistral(8), RereadBackend, True),
    ],
)
def test_the_engine_is_chosen_by_looking(
    build: Callable[[], PreTrainedModel], expected: type, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = build()
    with caplog.at_level(logging.WARNING, logger="agentrl.policy.decode"):
        engine = make_engine(model, slots=3, context=CONTEXT, decode=text)
    assert type(engine.backend) is expected
    assert bool(caplog.records) == warns
    played = play(engine, range(5), Sampling(max_tokens=4))
    same(played, play(engine_of("reread", model, 5), range(5), Sampling(max_tokens=4)))


def test_a_model_that_only_looks_like_llama_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    model = qwen2()
    model.get_submodule("model.norm").register_forward_hook(_doubled)
    with caplog.at_level(logging.WARNING, logger="agentrl.policy.decode"):
        engine = make_engine(model, slots=2, context=CONTEXT, decode=text)
    assert isinstance(engine.backend, TransformersCacheBackend)
    assert "differ" in caplog.text


def _doubled(
    _module: torch.nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor
) -> torch.Tensor:
    return output * 2


def test_bfloat16_is_close(model: PreTrainedModel) -> None:
    engine = make_engine(model, slots=2, context=CONTEXT, decode=text, dtype=torch.bfloat16)
    decoded = ask(engine, Sampling(max_tokens=5), 1, 2, 3)
    np.testing.assert_allclose(decoded.logprobs, full_logprobs(model, [(row(1, 2, 3), decoded)]), atol=0.3)


def test_training_mode_is_left_as_it_was(kind: str) -> None:
    model = qwen2().train()
    ask(engine_of(kind, model, 1), Sampling(max_tokens=1), 1)
    assert model.training


def test_mistakes_are_answered_with_a_sentence(model: PreTrainedModel) -> None:
    engine = engine_of("fused", model, 1)
    request = DecodeRequest("a", row(1), Sampling(), (0,))
    with pytest.raises(PolicyError, match="give at least one to start from"):
        engine.submit(DecodeRequest("a", row(), Sampling(), (0,)))
    with pytest.raises(PolicyError, match="the model knows 0 to 96"):
        engine.submit(DecodeRequest("a", row(97), Sampling(), (0,)))
    with pytest.raises(PolicyError, match="one-dimensional"):
        engine.submit(DecodeRequest("a", row(1)[None], Sampling(), (0,)))
    engine.submit(request)
    with pytest.raises(PolicyError, match="already has a request"):
        engine.submit(request)
    with pytest.raises(PolicyError, match="smaller context"):
        make_engine(model, slots=1, context=CONTEXT + 1, decode=text)
    for wrong in (
        Sampling(temperature=-1.0),
        Sampling(top_p=0.0),
        Sampling(max_tokens=0),
        Sampling(stop_strings=("",)),
    ):
        with pytest.raises(PolicyError, match=r"give|remove"):
            engine.submit(DecodeRequest("b", row(1), wrong, (0,)))


def test_an_ill_model_still_gets_an_engine() -> None:
    model = qwen2()
    with torch.no_grad():
        model.get_parameter("model.norm.weight").fill_(float("nan"))
    engine = make_engine(model, slots=1, context=CONTEXT, decode=text)
    assert isinstance(engine.backend, FusedBackend)
    assert ask(engine, Sampling(), 1).finish == "invalid"


def fed_by(engine: DecodeEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens that the backend reads from now on, one entry for each step."""
    fed: list[int] = []
    read = engine.backend.read

    def counted(chunks: Chunks) -> torch.Tensor:
        fed.append(int((chunks.ends - chunks.starts).sum()))
        return read(chunks)

    monkeypatch.setattr(engine.backend, "read", counted)
    return fed


def branch(engine: DecodeEngine, stream: str, tokens: list[int]) -> Decoded:
    asked = DecodeRequest(stream, row(*tokens), Sampling(max_tokens=4), (7,), inherited=len(tokens))
    ticket = engine.submit(asked)
    while True:
        for found, decoded in engine.step():
            if found == ticket:
                return decoded


@pytest.mark.parametrize("released", [True, False])
def test_a_branch_reads_only_what_no_stream_has_read(
    kind: str, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, released: bool
) -> None:
    engine = engine_of(kind, model, 4)
    stem = list(range(3, 15))
    grown = [*stem, *ask(engine, Sampling(max_tokens=6), *stem, stream="parent").tokens.tolist()]
    if released:
        engine.release("parent")
    fed = fed_by(engine, monkeypatch)
    # Two branches that leave the parent after 14 tokens: one may take its slot over, the other copies.
    # The parent's last token was sampled and never read.
    for name, new in (("one", [40, 41]), ("two", [50])):
        whole = [*grown[:14], *new]
        fed.clear()
        decoded = branch(engine, name, whole)
        assert fed[0] == len(new)
        expected = full_logprobs(model, [(row(*whole), decoded)])
        np.testing.assert_allclose(decoded.logprobs, expected, atol=EXACT)


def test_new_weights_are_not_mixed_with_what_old_ones_read(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = qwen2()
    engine = engine_of(kind, model, 2)
    stem = list(range(3, 15))
    ask(engine, Sampling(max_tokens=2), *stem, stream="parent")
    engine.release("parent")
    scattered(model, seed=5)
    engine.refresh()
    fed = fed_by(engine, monkeypatch)
    decoded = branch(engine, "branch", stem)
    assert fed[0] == len(stem)
    np.testing.assert_allclose(decoded.logprobs, full_logprobs(model, [(row(*stem), decoded)]), atol=EXACT)


def test_a_stream_that_inherits_nothing_begins_anew(model: PreTrainedModel, kind: str) -> None:
    engine = engine_of(kind, model, 1)
    ask(engine, Sampling(max_tokens=2), *range(3, 15), stream="parent")
    engine.release("parent")
    decoded = ask(engine, Sampling(max_tokens=3), 60, 61, stream="other")
    np.testing.assert_allclose(decoded.logprobs, full_logprobs(model, [(row(60, 61), decoded)]), atol=EXACT)

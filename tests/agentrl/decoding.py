"""What the tests of decoding share: tiny models of several families, engines, and whole plays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from agentrl.policy.decode import (
    Backend,
    Decoded,
    DecodeEngine,
    DecodeRequest,
    FusedBackend,
    RereadBackend,
    TransformersCacheBackend,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentrl.policy.base import Sampling

VOCABULARY, CONTEXT, EXACT = 97, 96, 1e-5


def text(tokens: Sequence[int]) -> str:
    """Token n is the letter n modulo 4: short strings are met often."""
    return "".join("abcd"[token % 4] for token in tokens)


def scattered(model: PreTrainedModel, seed: int = 1) -> PreTrainedModel:
    """Weights, biases and gains far enough from their defaults that no mistake in one goes unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.15 * noise if parameter.ndim > 1 else 1.0 + 0.2 * noise)
    model.train(mode=False)
    return model


def qwen2(*, tied: bool = True) -> PreTrainedModel:
    """A tiny Qwen2: biases on q, k, v; two query heads share a key head."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
    )
    return scattered(Qwen2ForCausalLM(config))


def llama() -> PreTrainedModel:
    """A tiny Llama with biases and the scaled rotary embedding of Llama 3."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 1000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 24,
        },
    )
    return scattered(LlamaForCausalLM(config))


def qwen3() -> PreTrainedModel:
    """A tiny Qwen3: norms on queries and keys, heads wider than the hidden size suggests."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return scattered(Qwen3ForCausalLM(config))


def mistral(window: int | None) -> PreTrainedModel:
    """A tiny Mistral, with or without a sliding window."""
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        sliding_window=window,
    )
    return scattered(MistralForCausalLM(config))


def gpt2() -> PreTrainedModel:
    """A tiny GPT-2: learned positions, layer norms."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=CONTEXT,
        bos_token_id=0,
        eos_token_id=0,
    )
    return scattered(GPT2LMHeadModel(config))


def bloom() -> PreTrainedModel:
    """A tiny Bloom: no explicit positions at all."""
    return scattered(
        BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4))
    )


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen2 tied": qwen2,
    "qwen2 untied": lambda: qwen2(tied=False),
    "llama": llama,
    "qwen3": qwen3,
    "mistral": lambda: mistral(None),
}
BACKENDS: dict[str, Callable[[PreTrainedModel, int], Backend]] = {
    "fused": lambda model, slots: FusedBackend(model, slots=slots, context=CONTEXT),
    "cache": lambda model, slots: TransformersCacheBackend(model, slots=slots, context=CONTEXT),
    "reread": lambda model, _: RereadBackend(model),
}


def engine_of(kind: str, model: PreTrainedModel, slots: int, tokens_per_step: int = 8192) -> DecodeEngine:
    """An engine over one backend."""
    backend = BACKENDS[kind](model, slots)
    return DecodeEngine(backend, slots=slots, context=CONTEXT, decode=text, tokens_per_step=tokens_per_step)


def row(*tokens: int) -> NDArray[np.int32]:
    """A request's tokens."""
    return np.array(tokens, np.int32)


def ask(engine: DecodeEngine, sampling: Sampling, *tokens: int, stream: str = "s", seed: int = 0) -> Decoded:
    """Send one request to an otherwise idle engine and wait."""
    ticket = engine.submit(DecodeRequest(stream, row(*tokens), sampling, (seed,)))
    while True:
        for found, decoded in engine.step():
            if found == ticket:
                return decoded
        assert not engine.idle


Played = dict[str, list[tuple[NDArray[np.int32], Decoded]]]


def play(
    engine: DecodeEngine,
    names: Sequence[int],
    sampling: Sampling,
    *,
    turns: int = 3,
    stop: tuple[int, ...] = (),
) -> Played:
    """Each stream plays some turns with observations of its own, and is released after the last."""
    played: Played = {str(name): [] for name in names}
    sent: dict[int, tuple[int, NDArray[np.int32]]] = {}

    def send(name: int) -> None:
        turn = len(played[str(name)])
        rng = np.random.default_rng([name, turn])
        tokens = rng.integers(0, VOCABULARY, int(rng.integers(1, 14))).astype(np.int32)
        request = DecodeRequest(str(name), tokens, sampling, (name, turn), stop)
        sent[engine.submit(request)] = (name, tokens)

    for name in names:
        send(name)
    while not engine.idle:
        for ticket, decoded in engine.step():
            name, tokens = sent.pop(ticket)
            played[str(name)].append((tokens, decoded))
            if len(played[str(name)]) < turns:
                send(name)
            else:
                engine.release(str(name))
    return played


def full_logprobs(
    model: PreTrainedModel, turns: list[tuple[NDArray[np.int32], Decoded]]
) -> NDArray[np.float32]:
    """Log-probabilities of the sampled tokens from one forward over the whole stream."""
    pieces: list[NDArray[np.int32]] = []
    positions: list[NDArray[np.int64]] = []
    length = 0
    for tokens, decoded in turns:
        begin = length + len(tokens)
        length = begin + len(decoded.tokens)
        pieces += [tokens, decoded.tokens]
        positions.append(np.arange(begin, length))
    stream = torch.from_numpy(np.concatenate(pieces).astype(np.int64))
    position = torch.from_numpy(np.concatenate(positions))
    with torch.no_grad():
        logprob = model(input_ids=stream[None]).logits[0].log_softmax(-1)
    found: NDArray[np.float32] = logprob[position - 1, stream[position]].numpy()
    return found


def same(left: Played, right: Played) -> None:
    """Equal tokens and finishes, log-probabilities within rounding."""
    assert left.keys() == right.keys()
    for name in left:
        for (_, one), (_, other) in zip(left[name], right[name], strict=True):
            np.testing.assert_array_equal(one.tokens, other.tokens)
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=EXACT)
            assert one.finish == other.finish

"""What a rollout costs: our loop, a kept transformers cache, `generate` re-reading every turn.

64 episodes with scripted observations and scripted turn lengths (so that every path does the same work), one
process, one thread, the same weights. `generate` runs the episodes turn by turn and, as with an end token,
each turn lasts as long as its longest row. Each path's log-probabilities are first compared with one full
forward.

    python tests/benchmarks/bench_decode.py [--repeats 3] [--slots 64] [--bfloat16]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import GenerationMixin, Qwen2Config, Qwen2ForCausalLM

from agentrl.policy.base import Sampling
from agentrl.policy.decode import (
    DecodeEngine,
    DecodeRequest,
    Engine,
    FusedBackend,
    TransformersCacheBackend,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from transformers.generation.utils import GenerateDecoderOnlyOutput

EPISODES, VOCABULARY, CONTEXT, PROMPT = 64, 1024, 640, 60


@dataclass(frozen=True)
class Episode:
    """What the environment says, and how many tokens the agent samples, turn by turn."""

    observations: tuple[NDArray[np.int32], ...]
    lengths: tuple[int, ...]


@dataclass
class Record:
    """One episode as played: every token, and (position, log-probability) of the sampled ones."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def add(self, tokens: list[int], logprobs: list[float]) -> None:
        """Append sampled tokens."""
        self.positions.extend(range(len(self.tokens), len(self.tokens) + len(tokens)))
        self.tokens.extend(tokens)
        self.logprobs.extend(logprobs)


def script(seed: int = 0) -> list[Episode]:
    """About 13 turns of 10 to 30 observation tokens and 2 to 6 sampled ones, after a first prompt."""
    rng = np.random.default_rng(seed)
    episodes: list[Episode] = []
    for _ in range(EPISODES):
        turns = int(rng.integers(8, 19))
        sizes = rng.integers(10, 31, turns)
        sizes[0] = PROMPT
        observations = tuple(rng.integers(0, VOCABULARY, size).astype(np.int32) for size in sizes)
        episodes.append(Episode(observations, tuple(int(n) for n in rng.integers(2, 7, turns))))
    return episodes


def build() -> Qwen2ForCausalLM:
    """The small model of the learning benchmark: d 128, 2 layers, 0.5 million parameters."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    model.train(mode=False)
    return model


def play(engine: Engine, episodes: list[Episode]) -> list[Record]:
    """Run all episodes through an engine; a finished turn is answered before the next step."""
    records = [Record() for _ in episodes]
    turn = [0] * len(episodes)
    owner: dict[int, int] = {}

    def send(index: int) -> None:
        episode, step = episodes[index], turn[index]
        observation = episode.observations[step]
        records[index].tokens.extend(observation.tolist())
        sampling = Sampling(max_tokens=episode.lengths[step])
        owner[engine.submit(DecodeRequest(str(index), observation, sampling, (index, step)))] = index

    for index in range(len(episodes)):
        send(index)
    while not engine.idle:
        for ticket, decoded in engine.step():
            index = owner.pop(ticket)
            records[index].add(decoded.tokens.tolist(), decoded.logprobs.tolist())
            turn[index] += 1
            if turn[index] < len(episodes[index].lengths):
                send(index)
            else:
                engine.release(str(index))
    return records


def reread(model: Qwen2ForCausalLM, episodes: list[Episode], *, scores: bool) -> list[Record]:
    """Turn by turn with `generate`, left-padded, over the full history."""
    records = [Record() for _ in episodes]
    for turn in range(max(len(episode.lengths) for episode in episodes)):
        live = [index for index, episode in enumerate(episodes) if turn < len(episode.lengths)]
        for index in live:
            records[index].tokens.extend(episodes[index].observations[turn].tolist())
        width = max(len(records[index].tokens) for index in live)
        tokens = torch.zeros(len(live), width, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, index in enumerate(live):
            history = records[index].tokens
            tokens[row, width - len(history) :] = torch.tensor(history)
            mask[row, width - len(history) :] = 1
        generate: Callable[..., GenerateDecoderOnlyOutput] = vars(GenerationMixin)["generate"]
        output = generate(
            model,
            tokens,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            max_new_tokens=max(episodes[index].lengths[turn] for index in live),
            pad_token_id=0,
            output_logits=scores,
            return_dict_in_generate=True,
        )
        sampled = output.sequences[:, width:]
        logprob = torch.zeros(sampled.shape)
        if output.logits is not None:
            logits: tuple[torch.Tensor, ...] = tuple(output.logits)
            logprob = torch.stack(logits, 1).log_softmax(-1).gather(2, sampled[..., None])[..., 0]
        for row, index in enumerate(live):
            count = episodes[index].lengths[turn]
            records[index].add(sampled[row, :count].tolist(), logprob[row, :count].tolist())
    return records


def deviation(model: Qwen2ForCausalLM, records: list[Record]) -> float:
    """Largest difference between recorded log-probabilities and one full forward per episode."""
    worst = 0.0
    with torch.inference_mode():
        for record in records:
            tokens = torch.tensor([record.tokens])
            logprob = model(input_ids=tokens).logits[0].log_softmax(-1)
            position = torch.tensor(record.positions)
            full = logprob[position - 1, tokens[0, position]]
            worst = max(worst, float((full - torch.tensor(record.logprobs)).abs().max()))
    return worst


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Smallest CPU time of several runs."""
    times: list[float] = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return min(times)


def main() -> None:
    """Compare, then time, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slots", type=int, default=EPISODES)
    parser.add_argument(
        "--bfloat16", action="store_true", help="also time it (slow without AMX or avx512_bf16)"
    )
    options = parser.parse_args()
    slots: int = options.slots
    torch.set_num_threads(1)
    model, episodes = build(), script()

    def engine(backend: FusedBackend | TransformersCacheBackend) -> DecodeEngine:
        return DecodeEngine(backend, slots=slots, context=CONTEXT, decode=str)

    own = engine(FusedBackend(model, slots=slots, context=CONTEXT))
    kept = engine(TransformersCacheBackend(model, slots=slots, context=CONTEXT))
    paths: dict[str, Callable[[], list[Record]]] = {
        "own loop": lambda: play(own, episodes),
        "transformers cache kept across turns": lambda: play(kept, episodes),
        "generate, history re-read every turn": lambda: reread(model, episodes, scores=False),
    }
    for name in ("own loop", "transformers cache kept across turns"):
        worst = deviation(model, paths[name]())
        assert worst < 1e-5, f"{name}: log-probabilities differ by {worst:.1e}"
    if options.bfloat16:
        half = engine(FusedBackend(model, slots=slots, context=CONTEXT, dtype=torch.bfloat16))
        paths["own loop, bfloat16"] = lambda: play(half, episodes)
    assert deviation(model, reread(model, episodes, scores=True)) < 1e-5
    spent = {name: seconds(run, options.repeats) for name, run in paths.items()}
    turns = sum(len(episode.lengths) for episode in episodes)
    sampled = sum(sum(episode.lengths) for episode in episodes)
    read = sum(sum(map(len, episode.observations)) for episode in episodes)
    print(f"{EPISODES} episodes, {turns} turns, {read} tokens observed, {sampled} sampled; {slots} slots")
    print(f"{'path':40s} {'CPU-s':>7s} {'turns/s':>8s} {'tokens/s':>9s} {'cost':>6s}")
    for name, cost in spent.items():
        ratio = cost / spent["own loop"]
        print(f"{name:40s} {cost:7.3f} {turns / cost:8.0f} {sampled / cost:9.0f} {ratio:5.2f}x")


if __name__ == "__main__":
    main()

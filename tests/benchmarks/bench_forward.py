"""What shared prefixes save: a tree of tokens next to the padded batch, one pass next to one for each turn.

Run `python -m tests.benchmarks.bench_forward`. Equality of losses and gradients is asserted before anything
is timed. The sides take turns in one process with one thread; times are CPU-seconds, the least of several.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from agentrl.learn.forward import predict, rows_of
from agentrl.learn.gradient import flat_gradient
from agentrl.learn.layout import lay_out
from agentrl.learn.tree import tree_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    Tokens = NDArray[np.int64]

WORDS = 1000
MEMBERS, LENGTH = 8, 384
OBSERVED, ACTED = 64, 32
ANSWER = 16
EPISODES = 4


def build(hidden: int = 256, layers: int = 4) -> PreTrainedModel:
    """A Qwen2 model of random weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=WORDS, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    return model


@dataclass(frozen=True)
class Work:
    """Sequences, the positions that carry loss, and a weight for each."""

    sequences: list[Tokens]
    targets: list[Tokens]
    weight: torch.Tensor

    @classmethod
    def of(cls, sequences: list[Tokens], targets: list[Tokens]) -> Work:
        """Weigh the targets as an average over tokens does."""
        count = sum(map(len, targets))
        weight = np.random.default_rng(1).normal(size=count).astype(np.float32) / count
        return cls(sequences, targets, torch.from_numpy(weight))

    def update(self, model: PreTrainedModel, *, shared: bool) -> tuple[float, torch.Tensor]:
        """Loss and gradient, through the learner's own layout or through one padded batch."""
        model.zero_grad(set_to_none=True)
        start = np.concatenate([[0], np.cumsum([len(each) for each in self.targets])])
        every = np.arange(len(self.sequences))
        pieces = (
            lay_out(model, self.sequences, self.targets, tokens=1 << 30)
            if shared
            else [(every, rows_of(self.sequences, self.targets))]
        )
        total = 0.0
        for rows, piece in pieces:
            place = np.concatenate([np.arange(start[row], start[row + 1]) for row in rows])
            loss = (predict(model, piece).logprob * self.weight[place]).sum()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total += float(loss.detach())
        return total, flat_gradient(model)

    def check(self, model: PreTrainedModel) -> None:
        """Assert that both ways agree."""
        (loss, gradient), (padded, expected) = (self.update(model, shared=each) for each in (True, False))
        assert abs(loss - padded) < 1e-6, abs(loss - padded)
        assert float((gradient - expected).abs().max()) < 1e-6


def least(repeats: int, *sides: Callable[[], object]) -> list[float]:
    """The least CPU-seconds of each side, the sides taking turns."""
    found = [float("inf")] * len(sides)
    for _ in range(repeats):
        for number, side in enumerate(sides):
            begin = time.process_time()
            side()
            found[number] = min(found[number], time.process_time() - begin)
    return found


def groups(model: PreTrainedModel, repeats: int, count: int = 2) -> None:
    """Groups of eight members at several shares of a common prompt."""
    random = np.random.default_rng(0)
    for share in (0.0, 0.25, 0.5, 0.75, 0.9):
        stem = int(share * LENGTH)
        sequences: list[Tokens] = []
        for _ in range(count):
            prompt = random.integers(0, WORDS, stem)
            sequences += [np.append(prompt, random.integers(0, WORDS, LENGTH - stem)) for _ in range(MEMBERS)]
        work = Work.of(sequences, [np.arange(max(stem, 1), LENGTH)] * len(sequences))
        work.check(model)
        ways = [partial(work.update, model, shared=shared) for shared in (False, True)]
        padded, shared = least(repeats, *ways)
        limit = sum(map(len, sequences)) / len(tree_of(sequences))
        print(f"prefix share {share:4.2f}: padded {padded:6.3f} s, shared {shared:6.3f} s, "
              f"{padded / shared:4.2f}x of {limit:4.2f}x, {padded / shared / limit:4.0%}")  # fmt: skip


def turn_samples(model: PreTrainedModel, repeats: int) -> None:
    """Each turn a sample with its growing history, as trainers of single turns have it."""
    random = np.random.default_rng(0)
    for turns in (4, 8):
        ends = [(turn + 1) * (OBSERVED + ACTED) for turn in range(turns)]
        wholes = [random.integers(0, WORDS, ends[-1]) for _ in range(EPISODES)]
        own = [np.arange(end - ACTED, end) for end in ends]
        work = Work.of([whole[:end] for whole in wholes for end in ends], own * EPISODES)
        work.check(model)
        ways = [partial(work.update, model, shared=shared) for shared in (False, True)]
        padded, shared = least(repeats, *ways)
        print(f"{turns:2d} turns as samples: padded {padded:6.3f} s, shared {shared:6.3f} s, "
              f"{padded / shared:5.2f}x, {padded / shared / turns:4.2f} T")  # fmt: skip


@dataclass(frozen=True)
class Questions:
    """One trajectory, and the answer asked for at the end of each of its turns."""

    model: PreTrainedModel
    whole: Tokens
    asked: list[Tokens]

    @property
    def targets(self) -> list[Tokens]:
        """The answer's places."""
        return [np.arange(len(each) - ANSWER, len(each)) for each in self.asked]

    def one_pass(self) -> torch.Tensor:
        """Leaves on one stream."""
        said = torch.zeros(len(self.asked), ANSWER)
        for rows, piece in lay_out(self.model, self.asked, self.targets, tokens=1 << 30):
            said[rows] = predict(self.model, piece).logprob.view(len(rows), ANSWER)
        return said

    def lean(self) -> torch.Tensor:
        """A forward for each turn, the head on the answer only."""
        pairs = zip(self.asked, self.targets, strict=True)
        return torch.stack([predict(self.model, rows_of([s], [t])).logprob for s, t in pairs])

    def every_logit(self) -> torch.Tensor:
        """A forward for each turn with every logit, as log-probabilities are computed elsewhere."""
        found = []
        for sequence in self.asked:
            ids = torch.from_numpy(sequence)[None]
            every = torch.log_softmax(self.model(input_ids=ids, use_cache=False).logits[0, :-1], -1)
            found.append(every.gather(1, ids[0, 1:, None])[-ANSWER:, 0])
        return torch.stack(found)

    def with_the_rest(self) -> None:
        """The pass that measures log-probabilities and entropies, with the leaves."""
        plain = np.arange(1, len(self.whole))
        for _, piece in lay_out(
            self.model, [self.whole, *self.asked], [plain, *self.targets], tokens=1 << 30
        ):
            predict(self.model, piece, entropy="measured")

    def the_rest(self) -> None:
        """That pass without the leaves."""
        predict(self.model, rows_of([self.whole], [np.arange(1, len(self.whole))]), entropy="measured")


@torch.no_grad()
def beliefs(model: PreTrainedModel, repeats: int) -> None:
    """The belief in an answer at every turn: whole forwards with every logit, lean ones, and one pass."""
    random = np.random.default_rng(0)
    for turns, length in ((4, 128), (16, 64), (16, 128)):
        whole, answer = random.integers(0, WORDS, turns * length), random.integers(0, WORDS, ANSWER)
        asked = [np.append(whole[: turn * length], answer) for turn in range(1, turns + 1)]
        work = Questions(model, whole, asked)
        gap = float((work.one_pass() - work.lean()).abs().max())
        assert gap < 1e-5, gap
        assert float((work.one_pass() - work.every_logit()).abs().max()) < 1e-5
        sides = (work.every_logit, work.lean, work.one_pass, work.with_the_rest, work.the_rest)
        full, lean, shared, both, only = least(repeats, *sides)
        limit = sum(map(len, asked)) / len(tree_of(asked))
        print(f"T = {turns:2d} x {length:3d} tokens: full {full:6.3f} s, lean {lean:6.3f} s, one pass "
              f"{shared:6.3f} s: {full / shared:4.2f}x and {lean / shared:4.2f}x (tokens {limit:4.2f}x), "
              f"error {gap:.0e}; added to the log-prob pass {both / only - 1:+4.0%}")  # fmt: skip


def main() -> None:
    """Print all three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="of each side; the least counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = build()
    groups(model, options.repeats)
    turn_samples(model, options.repeats)
    beliefs(model, options.repeats)


if __name__ == "__main__":
    main()

"""What branches cost: taking over what the policy has read of the parent, against reading it again.

One parent of 400 tokens is played and released; seven branches leave it at places spread over its length,
bring sixteen tokens of a new observation and sample sixteen. One process, one thread, the same weights and
noise on both sides. Log-probabilities of both sides are compared first. CPU-seconds, the best of several.

    python -m tests.benchmarks.bench_branch [--repeats 5]
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from agentrl.policy.base import Sampling
from agentrl.policy.decode import DecodeEngine, DecodeRequest, FusedBackend, TransformersCacheBackend
from tests.benchmarks.bench_decode import CONTEXT, VOCABULARY, build

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.policy.decode import Backend, Decoded

PARENT, BRANCHES, NEW, SAMPLED = 400, 7, 16, 16


def wait(engine: DecodeEngine, requests: list[DecodeRequest]) -> list[Decoded]:
    """Send requests to an idle engine; what comes back, in their order."""
    tickets = [engine.submit(request) for request in requests]
    found: dict[int, Decoded] = {}
    while len(found) < len(tickets):
        found.update(engine.step())
    return [found[ticket] for ticket in tickets]


def prompts(parent: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """A beginning of the parent's tokens and new ones, for each branch."""
    random = np.random.default_rng(2)
    places = [PARENT * (number + 1) // (BRANCHES + 1) for number in range(BRANCHES)]
    return [
        np.concatenate([parent[:place], random.integers(3, VOCABULARY, NEW)]).astype(np.int32)
        for place in places
    ]


def grow(backend: Backend, *, inherit: bool) -> tuple[float, list[Decoded]]:
    """CPU-seconds of the branches, and what they sampled."""
    engine = DecodeEngine(backend, slots=8, context=CONTEXT, decode=str)
    parent = np.random.default_rng(1).integers(3, VOCABULARY, PARENT).astype(np.int32)
    wait(engine, [DecodeRequest("parent", parent, Sampling(max_tokens=1), (0,))])
    engine.release("parent")
    sampling = Sampling(max_tokens=SAMPLED)
    requests = [
        DecodeRequest(str(number), tokens, sampling, (1, number), inherited=len(tokens) if inherit else 0)
        for number, tokens in enumerate(prompts(parent))
    ]
    begin = time.process_time()
    decoded = wait(engine, requests)
    return time.process_time() - begin, decoded


def main() -> None:
    """Compare, then time both ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    model = build()
    for kind in (FusedBackend, TransformersCacheBackend):
        backend = kind(model, slots=8, context=CONTEXT)
        kept, again = (grow(backend, inherit=inherit)[1] for inherit in (True, False))
        for one, other in zip(kept, again, strict=True):
            np.testing.assert_array_equal(one.tokens, other.tokens)
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
        runs = [[grow(backend, inherit=inherit)[0] for inherit in (True, False)] for _ in range(repeats)]
        taken, read = np.min(runs, axis=0)
        print(
            f"{kind.__name__}: {BRANCHES} branches of a parent of {PARENT} tokens: taken over "
            f"{taken * 1e3:.1f} CPU-ms, read again {read * 1e3:.1f} CPU-ms, x{read / taken:.2f}"
        )


if __name__ == "__main__":
    main()

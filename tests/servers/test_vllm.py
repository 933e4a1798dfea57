"""The openai policy against a real vLLM: the same tokens, the same log-probabilities, the same scores."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import agentrl
from agentrl.learn.forward import predict, rows_of
from agentrl.policy.build import ModelShape, build_model, train_tokenizer
from agentrl.policy.hf import HfPolicy
from agentrl.policy.load import save_model
from agentrl.policy.openai import OpenAIPolicy
from agentrl.policy.render import Markup
from agentrl.testing import WordWorld
from agentrl.trajectory import Trajectory
from agentrl.world.protocol import NativeCalls
from tests.agentrl.rollouts import TEXTS
from tests.servers.vllm import serve

if TYPE_CHECKING:
    from collections.abc import Generator

    from transformers import PreTrainedModel

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
LIMITS = agentrl.Limits(turns=3, turn_tokens=12)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, PreTrainedModel, Markup]]:
    folder = tmp_path_factory.mktemp("served")
    renderer = Markup(train_tokenizer(TEXTS, vocabulary=330))
    shape = ModelShape(hidden=64, layers=2, heads=2, kv_heads=1, intermediate=96, context=256)
    model = build_model(renderer.tokenizer, shape, seed=5)
    save_model(model, renderer, folder / "model")
    template = folder / "template.jinja"
    template.write_text(TEMPLATE)
    tools = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--chat-template", str(template))
    with serve(folder / "model", folder / "log", "--max-model-len", "256", *tools) as url:
        yield url, model, renderer


def difference(model: PreTrainedModel, item: Trajectory) -> float:
    """The largest difference between the server's log-probabilities and those of a full forward here."""
    stream: list[int] = []
    places: list[int] = []
    for turn in item.turns:
        assert turn.tokens is not None
        stream += turn.prompt_tokens.tolist()
        places += range(len(stream), len(stream) + len(turn.tokens))
        stream += turn.tokens.tolist()
    rows = rows_of([np.array(stream)], [np.array(places, dtype=np.int64)])
    with torch.inference_mode():
        found = predict(model, rows).logprob.numpy()
    given = np.concatenate([turn.logprobs for turn in item.turns if turn.logprobs is not None])
    return float(np.abs(found - given).max())


def collect(policy: OpenAIPolicy | HfPolicy, temperature: float, tasks: int = 16) -> list[Trajectory]:
    sampling = agentrl.Sampling(temperature=temperature, max_tokens=LIMITS.turn_tokens)
    results = agentrl.collect(WordWorld, policy, tasks=tasks, limits=LIMITS, sampling=sampling)
    return [item for item in results if isinstance(item, Trajectory)]


def test_log_probabilities_of_vllm_are_those_of_the_learner(
    served: tuple[str, PreTrainedModel, Markup],
) -> None:
    url, model, renderer = served
    items = collect(OpenAIPolicy([url], renderer=renderer), 1.0)
    assert len(items) == 16
    largest = max(difference(model, item) for item in items)
    print(f"largest difference of the log-probabilities: {largest:.2e}")
    assert largest < 1e-5


def test_greedy_play_is_the_same_behind_the_server_and_in_process(
    served: tuple[str, PreTrainedModel, Markup],
) -> None:
    url, model, renderer = served
    there = collect(OpenAIPolicy([url], renderer=renderer), 0.0)
    here = collect(HfPolicy(model, renderer, context=256), 0.0)
    assert [[turn.text for turn in item.turns] for item in there] == [
        [turn.text for turn in item.turns] for item in here
    ]
    assert [item.reward for item in there] == [item.reward for item in here]


def test_a_chat_by_text_is_repeatable_and_bounded(served: tuple[str, PreTrainedModel, Markup]) -> None:
    url, _, _ = served
    first, second = (collect(OpenAIPolicy([url], "small"), 1.0, tasks=4) for _ in range(2))
    assert [[turn.text for turn in item.turns] for item in first] == [
        [turn.text for turn in item.turns] for item in second
    ]
    counts = [turn.measures["server_completion_tokens"] for item in first for turn in item.turns]
    assert max(counts) <= LIMITS.turn_tokens


def test_tools_are_taken_by_the_server(served: tuple[str, PreTrainedModel, Markup]) -> None:
    url, _, _ = served

    class Bell(agentrl.TextEnv):
        """A world with one tool."""

        @agentrl.tool
        def ring(self, times: int) -> str:
            """Ring the bell.

            Args:
                times: how often.
            """
            return "Ding. " * times

    forced = {"tool_choice": "required"}
    policy = OpenAIPolicy([url], "small", extra=forced)
    (item,) = agentrl.collect(
        Bell, policy, protocol=NativeCalls(), limits=agentrl.Limits(turns=2, turn_tokens=48)
    )
    assert isinstance(item, Trajectory)
    # An untrained model writes nonsense; whatever it is, it comes back as a turn and never as an exception.
    assert item.turns


def test_a_model_name_that_is_not_served_is_a_sentence(served: tuple[str, PreTrainedModel, Markup]) -> None:
    url, _, _ = served
    policy = OpenAIPolicy([url], "smal")
    request = agentrl.Request("t", "t", 0, "Hi.", ())

    async def once() -> None:
        try:
            await policy.generate(request)
        finally:
            await policy.aclose()

    with pytest.raises(agentrl.AgentrlError, match="Did you mean 'small'"):
        asyncio.run(once())

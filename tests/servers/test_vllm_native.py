"""A model's own calls behind a real vLLM: exact tokens, calls read from them, and the server's own parser."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
import torch

import agentrl
from agentrl.learn.forward import predict, rows_of
from agentrl.policy.build import ModelShape, build_model
from agentrl.policy.hf import HfPolicy
from agentrl.policy.load import load_renderer, save_model
from agentrl.policy.native import native_protocol
from agentrl.policy.openai import OpenAIPolicy
from agentrl.policy.scripted import ScriptedPolicy
from agentrl.policy.template import ChatTemplate
from agentrl.run.cli import run
from agentrl.trajectory import Trajectory, TurnKind
from agentrl.world.protocol import NativeCalls
from tests.agentrl.templates import tokenizer_of
from tests.servers.test_vllm import difference
from tests.servers.vllm import serve

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from agentrl.policy.render import Renderer
    from agentrl.trajectory import IntArray

pytestmark = pytest.mark.slow

DRINKS = ("tea", "rice", "milk", "salt")
LIMITS = agentrl.Limits(turns=3, turn_tokens=64)


class Shelf(agentrl.TextEnv):
    """Look the drink up, then name it."""

    asked: ClassVar[list[str]] = []

    def num_tasks(self, split: str) -> int | None:
        return len(DRINKS)

    def get_task(self, split: str, index: int) -> agentrl.Task:
        return agentrl.Task(split, index, f"Find the {DRINKS[index]}.")

    @agentrl.tool
    def search(self, query: str) -> str:
        """Search the shelf.

        Args:
            query: what to look for
        """
        self.asked.append(query)
        return f"Here is {query}."

    @agentrl.tool
    def answer(self, text: str) -> str:
        """Give the answer.

        Args:
            text: the answer
        """
        right = text == DRINKS[self.task.index]
        self.finish(float(right), success=right)
        return "Thank you."


def shown(renderer: ChatTemplate) -> list[Trajectory]:
    """What the model is to learn: a call of the tool, then the answer in its own words."""
    form = native_protocol(renderer)
    found: list[Trajectory] = []
    for index, drink in enumerate(DRINKS):
        policy = ScriptedPolicy([form.write("search", {"query": drink}), drink], renderer=renderer)
        world = agentrl.collect(Shelf, policy, tasks=[index], protocol=form, limits=LIMITS)
        found += [item for item in world if isinstance(item, Trajectory)]
    return found


def taught(model: PreTrainedModel, items: list[Trajectory], steps: int = 120) -> None:
    """Imitate the trajectories until they are known by heart."""
    streams: list[IntArray] = []
    places: list[NDArray[np.int64]] = []
    for item in items:
        stream: list[int] = []
        said: list[int] = []
        for turn in item.turns:
            assert turn.tokens is not None
            stream += turn.prompt_tokens.tolist()
            said += range(len(stream), len(stream) + len(turn.tokens))
            stream += turn.tokens.tolist()
        streams.append(np.array(stream, dtype=np.int32))
        places.append(np.array(said, dtype=np.int64))
    rows = rows_of(streams, places)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = torch.zeros(())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = -predict(model, rows).logprob.mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    assert loss.item() < 0.1


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, PreTrainedModel, Path]]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("native")
    renderer = ChatTemplate(tokenizer_of("qwen2"))
    shape = ModelShape(hidden=64, layers=2, heads=2, kv_heads=1, intermediate=96, context=1024)
    model = build_model(renderer.tokenizer, shape, seed=5)
    taught(model, shown(renderer))
    save_model(model, renderer, folder / "model")
    tools = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    with serve(folder / "model", folder / "log", "--max-model-len", "1024", *tools) as url:
        yield url, model, folder / "model"


def played(policy: OpenAIPolicy | HfPolicy, temperature: float, protocol: NativeCalls) -> list[Trajectory]:
    sampling = agentrl.Sampling(temperature=temperature, max_tokens=LIMITS.turn_tokens)
    results = agentrl.collect(
        Shelf, policy, tasks=len(DRINKS), members=4, protocol=protocol, limits=LIMITS, sampling=sampling
    )
    return [item for item in results if isinstance(item, Trajectory)]


def loaded(folder: Path) -> tuple[Renderer, NativeCalls]:
    renderer = load_renderer(str(folder))
    form = native_protocol(renderer)
    assert isinstance(form, NativeCalls)
    return renderer, form


def test_exact_tokens_hold_the_calls_and_their_log_probabilities(
    served: tuple[str, PreTrainedModel, Path],
) -> None:
    url, model, folder = served
    renderer, form = loaded(folder)
    Shelf.asked.clear()
    items = played(OpenAIPolicy([url], renderer=renderer), 1.0, form)
    assert len(items) == 16
    assert sum(item.success is True for item in items) >= 12
    called = [item.turns[0] for item in items if item.turns[0].kind is TurnKind.OK]
    assert len(called) >= 12
    for turn in called:
        (call,) = turn.tool_calls
        assert call.name == "search"
        assert turn.tokens is not None
        words = renderer.decode(turn.tokens[call.start : call.end].tolist())
        assert words.startswith("<tool_call>")
        assert call.arguments in words
    assert set(Shelf.asked) >= set(DRINKS)
    largest = max(difference(model, item) for item in items)
    print(f"largest difference of the log-probabilities: {largest:.2e}")
    assert largest < 1e-5
    agentrl.pack(items)


def test_greedy_calls_are_the_same_behind_the_server_and_in_process(
    served: tuple[str, PreTrainedModel, Path],
) -> None:
    url, model, folder = served
    renderer, form = loaded(folder)
    there = played(OpenAIPolicy([url], renderer=renderer), 0.0, form)
    here = played(HfPolicy(model, renderer, context=1024), 0.0, form)
    assert [[turn.text for turn in item.turns] for item in there] == [
        [turn.text for turn in item.turns] for item in here
    ]
    assert all(item.success for item in there)


def test_the_server_reads_the_same_calls_for_a_policy_by_text(
    served: tuple[str, PreTrainedModel, Path],
) -> None:
    url, _, _ = served
    items = played(OpenAIPolicy([url], "small"), 0.0, NativeCalls())
    assert [[call.name for turn in item.turns for call in turn.tool_calls] for item in items] == [
        ["search", "answer"]
    ] * 16
    assert all(item.success for item in items)


def test_the_command_line_says_it_in_two_settings(
    served: tuple[str, PreTrainedModel, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _, folder = served
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'environment = { id = "tests.servers.test_vllm_native:Shelf", protocol = "native" }\n'
        "limits = { turns = 3, turn_tokens = 64 }\nprocesses = 1\nshards = 1\n"
        '[[scenario]]\nsplit = "train"\ntasks = 4\nmodes = ["greedy"]\n'
    )
    arguments = [
        "eval",
        str(suite),
        f"server.tokenizer={folder}",
        "--only",
        "--policy",
        f"openai:{url}#small",
    ]
    assert run([*arguments, "--out", str(tmp_path / "eval"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["success"]["mean"] == 1.0
    assert row["counts"]["infrastructure"] == 0

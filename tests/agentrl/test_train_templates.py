"""Model folders with chat templates of their own, played and trained with their own form of calls."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, cast

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentrl.learn.supervised import examples_of
from agentrl.policy.build import ModelShape, build_model, initialize
from agentrl.policy.load import load_renderer, save_model
from agentrl.policy.native import native_protocol
from agentrl.policy.scripted import ScriptedPolicy
from agentrl.policy.template import ChatTemplate
from agentrl.rollout import Stock, collect
from agentrl.rollout.demonstrate import demonstrate
from agentrl.rollout.memory import Recap, whole_history
from agentrl.run.cli import run
from agentrl.run.directory import RunDirectory
from agentrl.testing import WordWorld
from agentrl.trajectory import TurnKind
from agentrl.trajectory.pack import pack
from agentrl.trajectory.store import read_journal
from agentrl.world import TextEnv, ToolResult, make, tool
from tests.agentrl.rollouts import groups, play, valid
from tests.agentrl.templates import tokenizer_of

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from agentrl.rollout.memory import Memory
    from agentrl.trajectory import Trajectory

torch.set_num_threads(1)

WORLD = """
from agentrl.world import Task, TextEnv, ToolResult, tool


class Player:
    def __init__(self, env):
        self.env, self.script = env, [("search", "tea"), ("", "a drink"), ("", "tea"), ("", "tea")]

    def act(self):
        name, text = self.script.pop(0)
        write = self.env.protocol
        return write.write(name, {"query": text}) if name else write.write_answer(text)

    def observe(self, command, feedback):
        pass


class Twice(TextEnv):
    splits = ("train",)

    def num_tasks(self, split):
        return None

    def get_task(self, split, index):
        return Task(split, index, f"Find drink {index}.")

    def reset(self, *, seed=None, options=None):
        self.answers = 0
        return super().reset(seed=seed, options=options)

    @tool
    def search(self, query: str) -> str:
        \"\"\"Search the shelf.

        Args:
            query: what to look for
        \"\"\"
        return f"{query} is a drink"

    @tool
    def answer(self, text: str) -> ToolResult:
        \"\"\"Give the answer.

        Args:
            text: the answer
        \"\"\"
        self.answers += 1
        if self.answers < 2:
            return ToolResult("Say it again.", reward=len(text) % 7 / 7)
        self.finish(len(text) % 5 / 5, success="tea" in text)
        return ToolResult("Thank you.")

    def expert(self, observation):
        return Player(self)
"""
TINY = [
    "processes=1", "shards=1", "environment.split=train", "model.context=1536", "micro_tokens=1024",
    "warm_start.demonstrations=3", "warm_start.noise=0", "warm_start.steps=2", "warm_start.evaluate_every=0",
    "rl.algorithm=GRPO", "rl.steps=2", "rl.tasks=1", "rl.members=4", "rl.evaluate_every=0",
    "limits.turns=4", "limits.turn_tokens=12",
    "evaluation.curve_tasks=0", "evaluation.final_split=train", "evaluation.final_tasks=1",
]  # fmt: skip


def save_folder(family: str, folder: Path) -> Path:
    """Write a small untrained model of a family in the hub's format."""
    made = tokenizer_of(family)
    renderer = ChatTemplate(made)
    if family == "llama3":
        config = LlamaConfig(
            vocab_size=len(made), hidden_size=32, intermediate_size=48, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=2048,
            bos_token_id=cast("int", made.bos_token_id), eos_token_id=cast("int", made.eos_token_id),
            tie_word_embeddings=True,
        )  # fmt: skip
        model: PreTrainedModel = LlamaForCausalLM(config)
        initialize(model, torch.Generator().manual_seed(1))
        model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    else:
        shape = ModelShape(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=48, context=2048)
        model = build_model(made, shape, seed=1)
    save_model(model, renderer, folder)
    return folder


@pytest.mark.parametrize(
    ("family", "header"), [("qwen3", "<|im_start|>user\n<tool_response>"), ("llama3", "ipython")]
)
def test_a_model_folder_trains_with_its_own_calls(
    family: str,
    header: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / f"twice_{family}.py").write_text(WORLD)
    (tmp_path / "run.toml").write_text(f'environment.id = "twice_{family}:Twice"\nlimits.turns = 4\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = save_folder(family, tmp_path / "model")
    out = tmp_path / "run"
    arguments = [
        "train", str(tmp_path / "run.toml"), *TINY, f"model.path={folder}", "environment.protocol=native",
        "--out", str(out), "--json",
    ]  # fmt: skip
    assert run(arguments) == 0, capsys.readouterr().err
    summary = json.loads(capsys.readouterr().out)
    assert summary["final"]["infrastructure_failures"] == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    learnt = [row for row in rows if row.get("phase") == "rl"]
    assert len(learnt) == 2
    assert all(0.0 <= row["rewritten_share"] <= 1.0 and row["logprob_gap_max"] < 1e-3 for row in learnt)
    assert all(row["grad_norm"] > 0 for row in learnt)
    (journal,) = (RunDirectory(out).path / "trajectories").glob("*")
    made = tokenizer_of(family)
    for item in read_journal(journal).trajectories:
        begun = made.decode(item.turns[0].prompt_tokens.tolist())
        assert '"name": "search"' in begun  # the template lists the tools
        later = [turn for turn in item.turns[1:] if not turn.fresh]
        assert all(header in made.decode(turn.prompt_tokens.tolist()) for turn in later)
    assert "rewritten" in (out / "report.html").read_text(encoding="utf-8").lower()
    # The trained model is a folder like any other, and is evaluated with the same setting.
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'environment = { id = "agentrl/SearchQA-v0", kwargs = { settings = "tiny" }, protocol = "native" }\n'
        "limits = { turns = 2, turn_tokens = 8 }\nprocesses = 1\nshards = 1\n"
        '[[scenario]]\nsplit = "valid"\ntasks = 1\nmodes = ["sampled"]\n'
    )
    trained = out / "checkpoints" / "trained" / "model"
    assert (
        run(["eval", str(suite), "--policy", f"hf:{trained}", "--out", str(tmp_path / "eval"), "--json"]) == 0
    )
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["counts"]["rewritten"] >= 0
    assert row["counts"]["infrastructure"] == 0


def test_demonstrations_are_written_as_a_rollout_would_have_them() -> None:
    env = make("agentrl/SearchQA-v0", settings="tiny")
    assert isinstance(env, TextEnv)
    for family in ("qwen3", "llama3", "mistral3", "gemma"):
        made = ChatTemplate(tokenizer_of(family))
        form = native_protocol(made)
        (shown,) = demonstrate(env, "train", [0], noise=0.0, seed=1, protocol=form)
        examples = examples_of(shown, made, observation_weight=0.1)
        policy = ScriptedPolicy([turn.action for turn in shown.turns], renderer=made)
        world = play(policy, protocol=form, turns=9, turn_tokens=256)
        (item,) = valid(
            collect(Stock(lambda: make("agentrl/SearchQA-v0", settings="tiny")), world, groups(1, 1))
        )
        assert item.success
        assert [example.tokens.tolist() for example in examples] == streams(item)
        assert len(examples) == (2 if family == "mistral3" else 1)  # whose system text is gone after a result


def streams(item: Trajectory) -> list[list[int]]:
    found: list[list[int]] = []
    for turn in item.turns:
        if turn.fresh or not found:
            found.append([])
        found[-1] += [
            *turn.prompt_tokens.tolist(),
            *(turn.tokens.tolist() if turn.tokens is not None else []),
        ]
    return found


THOUGHT = "<think>\nThe hall.\n</think>\n\n"


def thinking(memory: Memory = whole_history) -> Trajectory:
    made = ChatTemplate(tokenizer_of("qwen3"))
    policy = ScriptedPolicy([f"{THOUGHT}a", "b", f"{THOUGHT}c", "d"], renderer=made)
    world = replace(play(policy, turns=4, turn_tokens=64), memory=memory)
    (item,) = valid(collect(Stock(Endless), world, groups(1, 1)))
    return item


class Endless(WordWorld):
    """A text world that goes on."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, object]]:
        return f"You wrote {action}.", 0.0, False, False, {"valid": True}


def test_a_rewritten_history_is_a_fresh_stream_of_the_trajectory() -> None:
    item = thinking()
    # The thought is dropped when the next observation comes, which is a user's; turns without one are kept.
    assert [turn.fresh for turn in item.turns] == [False, True, False, True]
    made = tokenizer_of("qwen3")
    for turn, said in zip(item.turns, [f"{THOUGHT}a", "b", f"{THOUGHT}c", "d"], strict=True):
        assert turn.tokens is not None
        assert made.decode(turn.tokens.tolist()) == f"{said}<|im_end|>"
    batch = pack([item])
    assert batch.fresh.tolist() == [False, True, False, True]
    assert len(batch.stream_turn_start) - 1 == 3
    # The first stream stays as it was: the thought is in it, exactly as sampled.
    first, second, _ = streams(item)
    assert "The hall." in made.decode(first)
    assert "The hall." not in made.decode(second[: len(item.turns[1].prompt_tokens)])


def test_a_memory_counts_its_own_turns_where_a_template_rewrites_too() -> None:
    item = thinking(Recap(3))
    assert [turn.fresh for turn in item.turns] == [False, True, False, True]
    made = tokenizer_of("qwen3")
    assert "So far:" in made.decode(item.turns[3].prompt_tokens.tolist())
    assert "So far:" not in made.decode(item.turns[1].prompt_tokens.tolist())


class Shelf(TextEnv):
    """A world of one tool."""

    asked: ClassVar[list[str]] = []

    def num_tasks(self, split: str) -> int | None:
        return None

    @tool
    def search(self, query: str) -> ToolResult:
        """Search the shelf.

        Args:
            query: what to look for
        """
        self.asked.append(query)
        return ToolResult(f"{query} is <|im_end|> a drink", reward=0.25)

    @tool
    def answer(self, text: str) -> str:
        """Give the answer.

        Args:
            text: the answer
        """
        self.finish(1.0, success=text == "tea")
        return "Thank you."


@pytest.mark.parametrize(
    "family",
    [
        "chatml",
        "qwen2",
        "qwen3",
        "llama3",
        "mistral3",
        "mistral11",
        "gemma",
        "r1",
        "deepseek3",
        "deepseek31",
        "coder",
    ],
)
def test_every_family_calls_the_tools_of_a_world(family: str) -> None:
    Shelf.asked.clear()
    made = ChatTemplate(tokenizer_of(family))
    form = native_protocol(made)
    script = [form.write("search", {"query": "tea"}), "", form.write("search", {"query": "rice"}), "tea"]
    world = play(ScriptedPolicy(script, renderer=made), protocol=form, turns=6, turn_tokens=256)
    (item,) = valid(collect(Stock(Shelf), world, groups(1, 1)))
    assert Shelf.asked == ["tea", "rice"]
    assert item.success
    assert [turn.kind for turn in item.turns] == [TurnKind.OK, TurnKind.PARSE_ERROR, TurnKind.OK, TurnKind.OK]
    (call,) = item.turns[0].tool_calls
    assert item.turns[0].tokens is not None
    assert "search" in made.decode(item.turns[0].tokens[call.start : call.end].tolist())
    assert "Search the shelf." in made.tokenizer.decode(item.turns[0].prompt_tokens.tolist())
    pack([item])


def test_native_calls_need_a_model_with_a_template(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(["train", "search/train", *TINY, "environment.protocol=native", "--out", str(tmp_path / "run")])
        == 2
    )
    assert "Name a model folder in model.path" in capsys.readouterr().err


def test_check_template_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer_of("qwen3").save_pretrained(tmp_path / "qwen")
    assert run(["check-template", str(tmp_path / "qwen")]) == 0
    text = capsys.readouterr().out
    assert "family Qwen3, calls in the form NativeCalls" in text
    assert "rewritten a thought and words" in text
    assert "<tool_call>" in text
    assert run(["check-template", str(tmp_path / "qwen"), "--json", "--renderer", "append"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["exact"]
    assert {one["outcome"] for one in found["tried"]} == {"appended"}
    assert load_renderer(str(tmp_path / "qwen")).stop_tokens

    (tmp_path / "empty").mkdir()
    for path, sentence in (
        (tmp_path / "empty", "there is no tokenizer in .*: it holds nothing"),
        (tmp_path / "nowhere", "there is no folder"),
        ("nobody/nothing", "nor a tokenizer of that name in the cache of the hub"),
    ):
        assert run(["check-template", str(path)]) == 2
        assert _matches(sentence, capsys.readouterr().err)


def _matches(sentence: str, text: str) -> bool:
    return re.search(sentence, text) is not None and len(text.splitlines()) == 1

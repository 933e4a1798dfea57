"""Our credit and our worlds inside of TRL's GRPOTrainer, with scripted completions."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import agentrl
from agentrl.adapters.trl import credit_trainer, environment_factory, task_rows
from agentrl.adapters.trl_world import OVER
from agentrl.errors import ConfigError
from agentrl.policy.build import ModelShape, build_model, train_tokenizer

INSTALLED = importlib.util.find_spec("trl") is not None
with_trl = pytest.mark.skipif(
    not INSTALLED, reason="TRL is not installed; `make trainers` makes an environment with it"
)

torch.set_num_threads(1)


@agentrl.register("tests/Shelves-v0")
class Shelves(agentrl.TextEnv):
    """Take the lamp from shelf 1; whatever is taken ends it."""

    def num_tasks(self, split: str) -> int:
        return 8

    def get_task(self, split: str, index: int) -> agentrl.Task:
        return agentrl.Task(split, index, f"Room {index}. Take the lamp.")

    @agentrl.tool
    def take(self, shelf: int) -> str:
        """Take what stands on a shelf.

        Args:
            shelf: its number.
        """
        self.finish(reward=float(shelf == 1))
        return "The lamp." if shelf == 1 else "A mug."


class TestWorlds:
    def test_a_world_of_tools(self) -> None:
        world: Any = environment_factory("tests/Shelves-v0")()
        assert world.reset(split="train", index=3, prompt="ignored") == "Room 3. Take the lamp."
        assert world.take(shelf=1) == "The lamp."
        assert world.get_reward() == 1.0
        assert world.take(shelf=1) == OVER
        assert [step.key for step in world.agentrl_steps] == ["Room 3. Take the lamp."]
        world.reset(index=3)
        assert (world.get_reward(), world.take(shelf=2), world.get_reward()) == (0.0, "A mug.", 0.0)

    def test_wrong_arguments_are_answered_and_not_raised(self) -> None:
        world: Any = environment_factory("tests/Shelves-v0")()
        world.reset(index=0)
        assert "shelf" in world.take(shelf="first")
        assert world.get_reward() == 0.0

    def test_transformers_reads_the_schema(self) -> None:
        utilities: Any = importlib.import_module("transformers.utils")
        world: Any = environment_factory("tests/Shelves-v0")()
        function = utilities.get_json_schema(world.take)["function"]
        assert function["description"] == "Take what stands on a shelf."
        assert function["parameters"]["properties"]["shelf"]["type"] == "integer"

    def test_a_world_of_texts(self) -> None:
        world: Any = environment_factory("agentrl.testing:WordWorld", length=1)()
        word = world.reset(index=0, seed=0).removeprefix("Say ").removesuffix(".")
        world.act(action=word)
        assert world.get_reward() == 1.0

    def test_rows_name_tasks(self) -> None:
        rows = task_rows("tests/Shelves-v0", 2, prompt="Play. ")
        assert [row["index"] for row in rows] == [0, 1]
        assert rows[0]["prompt"] == [{"role": "user", "content": "Play. "}]


def call(shelf: int) -> str:
    arguments = json.dumps({"name": "take", "arguments": {"shelf": shelf}})
    return f"<tool_call>\n{arguments}\n</tool_call><|im_end|>"


def tokenizer_of(trl: Any) -> Any:
    template = Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja"
    tokenizer = train_tokenizer([call(1), call(2), "Room 1. Take the lamp. done A mug."] * 5, vocabulary=400)
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    markup = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens(
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "additional_special_tokens": markup}
    )
    tokenizer.chat_template = template.read_text()
    return tokenizer


@with_trl
@pytest.mark.filterwarnings("ignore")  # TRL calls this door experimental
def test_trl_learns_from_our_advantages(tmp_path: Path) -> None:
    trl: Any = importlib.import_module("trl")
    datasets: Any = importlib.import_module("datasets")
    tokenizer = tokenizer_of(trl)
    settings = trl.GRPOConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False,
        per_device_train_batch_size=4, num_generations=4, max_steps=1, max_completion_length=200,
        report_to="none", disable_tqdm=True, save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    shape = ModelShape(hidden=32, layers=1, heads=2, kv_heads=1, context=1024)
    made: Any = credit_trainer("GIGPO")(
        model=build_model(tokenizer, shape, seed=1),
        args=settings, train_dataset=datasets.Dataset.from_list(task_rows("tests/Shelves-v0", 4)),
        processing_class=tokenizer, environment_factory=environment_factory("tests/Shelves-v0"),
    )  # fmt: skip
    first = [tokenizer.encode(call(1 + row % 2), add_special_tokens=False) for row in range(4)]
    last = tokenizer.encode("done<|im_end|>", add_special_tokens=False)
    answers = iter([[list(ids) for ids in first], [list(last) for _ in first]])  # TRL writes into them

    def said(*_: object, **__: object) -> tuple[list[list[int]], None]:
        return next(answers), None

    made._generate_single_turn = said
    seen: list[dict[str, Any]] = []
    score = made._generate_and_score_completions

    def listen(inputs: list[dict[str, Any]]) -> dict[str, Any]:
        seen.append(score(inputs))
        return seen[-1]

    made._generate_and_score_completions = listen
    made.train()
    (output,) = seen
    mask = (output["completion_mask"] * output["tool_mask"]).bool()
    # Rewards 1, 0, 1, 0 about 1/2. First turns begin in one place with returns 1 and 0: as much again.
    for row in range(4):
        sign = 1.0 if row % 2 == 0 else -1.0
        expected = [sign] * len(first[row]) + [sign / 2] * len(last)
        assert_allclose(output["advantages"][row][mask[row]].numpy(), expected, atol=1e-6)
    assert (output["advantages"][~mask] == 0).all()
    assert np.isfinite(made.state.log_history[-1]["train_loss"])


@pytest.mark.skipif(INSTALLED, reason="TRL is installed")
def test_without_trl_it_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match="pip install trl"):
        credit_trainer()

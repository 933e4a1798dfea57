"""What is exported, read by the programs that it is meant for; each skips where its package is missing."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from agentrl.adapters.padded import PaddedRows
from agentrl.adapters.verl import ProtoArrays
from agentrl.errors import BatchError
from agentrl.interchange.conversation import conversation_of
from agentrl.interchange.export import export
from agentrl.testing.make import make_trajectories
from agentrl.trajectory import Invalid, InvalidReason, StopReason
from agentrl.trajectory.pack import pack

if TYPE_CHECKING:
    from agentrl.trajectory.record import Record

MADE = make_trajectories(tokens=6)
FAILED = Invalid(InvalidReason.WORKER_DIED, "killed", "agentrl/Made-v0", "task-0", "task-0", member=7)
RECORDS: list[Record] = [replace(MADE[0], success=True, gold="42", policy="ours"), *MADE[1:], FAILED]

pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages that read, and of what they import


def needs(package: str, version: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(
        missing, reason=f"{package} is not installed; `pip install {package}=={version}`"
    )


# -- Inspect -------------------------------------------------------------------------------------------------


@needs("inspect_ai", "0.3.285")
@pytest.mark.parametrize(("form", "name"), [("inspect", "a.eval"), ("inspect-json", "a.json")])
def test_inspect_reads_its_logs(form: str, name: str, tmp_path: Path) -> None:
    log_module: Any = importlib.import_module("inspect_ai.log")
    assert export(RECORDS, form, tmp_path / name).rows == len(RECORDS)
    path = str(tmp_path / name)
    header = log_module.read_eval_log(path, header_only=True)
    assert (header.status, header.eval.task) == ("success", "agentrl/Made-v0")
    assert header.results.completed_samples == len(MADE)
    log = log_module.read_eval_log(path)
    assert len(log.samples) == len(RECORDS)
    by_id = {(sample.id, sample.epoch): sample for sample in log.samples}
    first = by_id["task-0", 1]
    told = [{"role": item.role, "content": item.text} for item in first.messages]
    assert told == [*conversation_of(MADE[0]), {"role": "user", "content": "the end"}]
    assert (first.target, first.output.model, first.output.completion) == (
        "42",
        "ours",
        MADE[0].turns[-1].text,
    )
    assert first.scores["success"].value == 1.0
    assert first.scores["reward"].value == MADE[0].reward
    failed = by_id["task-0", 3]
    assert failed.error.message == "worker_died: killed"
    assert not failed.scores
    limited = next(sample for sample in log.samples if sample.metadata.get("stop") == StopReason.MAX_TURNS)
    assert limited.limit.type == "turn"
    one = log_module.read_eval_log_sample(path, id="task-1", epoch=1)
    assert one.uuid == by_id["task-1", 1].uuid
    summaries = log_module.read_eval_log_sample_summaries(path)
    assert [item.error is not None for item in summaries].count(True) == 1
    accuracy = (
        next(score for score in log.results.scores if score.name == "success").metrics["accuracy"].value
    )
    assert accuracy == np.mean([bool(item.success) for item in RECORDS if not isinstance(item, Invalid)])


@needs("inspect_ai", "0.3.285")
@needs("pandas", "3.1.1")
def test_inspect_writes_what_it_read_and_makes_its_tables(tmp_path: Path) -> None:
    log_module: Any = importlib.import_module("inspect_ai.log")
    analysis: Any = importlib.import_module("inspect_ai.analysis")
    export(RECORDS, "inspect", tmp_path / "a.eval")
    log = log_module.read_eval_log(str(tmp_path / "a.eval"))
    log_module.write_eval_log(log, str(tmp_path / "b.json"))
    again = log_module.read_eval_log(str(tmp_path / "b.json"))
    assert [sample.uuid for sample in again.samples] == [sample.uuid for sample in log.samples]
    frame = analysis.samples_df(str(tmp_path / "a.eval"))
    assert len(frame) == len(RECORDS)
    assert set(frame["id"]) == {"task-0", "task-1"}


# -- data sets and TRL ---------------------------------------------------------------------------------------


@needs("datasets", "5.2.0")
@pytest.mark.parametrize(
    ("form", "kind", "columns"),
    [
        ("sft", "json", {"messages"}),
        ("verl-sft", "parquet", {"messages"}),
        ("sft-tokens", "parquet", {"input_ids", "labels"}),
        ("trl-chat", "json", {"prompt", "completion", "label", "reward"}),
        ("trl", "parquet", {"prompt_ids", "completion_ids", "env_mask", "logprobs", "reward"}),
        ("verl", "parquet", {"prompt", "data_source", "ability", "reward_model", "extra_info"}),
        ("parquet", "parquet", {"reward", "success", "messages"}),
        ("jsonl", "json", {"schema", "trajectory", "invalid"}),
    ],
)
def test_datasets_reads_every_form(form: str, kind: str, columns: set[str], tmp_path: Path) -> None:
    datasets: Any = importlib.import_module("datasets")
    done = export(RECORDS, form, tmp_path / "a")
    read = datasets.load_dataset(kind, data_files=str(tmp_path / "a"), cache_dir=str(tmp_path / "c"))["train"]
    assert len(read) == done.rows
    assert columns <= set(read.column_names)
    if "messages" in columns:
        assert [dict(item) for item in read[0]["messages"]] == conversation_of(MADE[0])


def sft(trl: Any, folder: Path, data: Any, tokenizer: Any, **more: object) -> Any:
    from agentrl.policy.build import ModelShape, build_model

    settings = trl.SFTConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, max_length=256,
        per_device_train_batch_size=2, max_steps=1, report_to="none", disable_tqdm=True, save_strategy="no",
        dataloader_pin_memory=False, **more,
    )  # fmt: skip
    shape = ModelShape(hidden=32, layers=1, heads=2, kv_heads=1, context=512)
    model = build_model(tokenizer, shape, seed=1)
    trainer = trl.SFTTrainer(model=model, args=settings, train_dataset=data, processing_class=tokenizer)
    return trainer, trainer.train()


@needs("trl", "1.16.0")
@needs("datasets", "5.2.0")
@pytest.mark.parametrize("form", ["sft", "sft-tokens"])
def test_trl_trains_on_what_sft_wrote(form: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the extra 'train' is not installed")
    from agentrl.policy.build import train_tokenizer

    trl: Any = importlib.import_module("trl")
    datasets: Any = importlib.import_module("datasets")
    tokenizer: Any = train_tokenizer(
        ["<think>go</think> go 1 you are at place 2 Go places."] * 5, vocabulary=400
    )
    tokenizer.add_special_tokens(
        {
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "additional_special_tokens": ["<|im_start|>"],
        }
    )
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text()
    small = [
        replace(
            item,
            turns=tuple(
                replace(turn, prompt_tokens=turn.prompt_tokens % 300, tokens=turn.tokens % 300)
                for turn in item.turns
                if turn.tokens is not None
            ),
        )
        for item in MADE
    ]
    export(small, form, tmp_path / "a")
    kind = "json" if form == "sft" else "parquet"
    data = datasets.load_dataset(kind, data_files=str(tmp_path / "a"), cache_dir=str(tmp_path / "c"))["train"]
    more = {"assistant_only_loss": True} if form == "sft" else {}
    trainer, result = sft(trl, tmp_path / "out", data, tokenizer, **more)
    assert np.isfinite(result.training_loss)
    if form == "sft-tokens":
        kept = [row["labels"] for row in trainer.train_dataset]
        assert kept == [row["labels"] for row in data], "labels are used as they are"


# -- verl ----------------------------------------------------------------------------------------------------


def test_rows_for_verl_keep_rewards_of_turns() -> None:
    rows = ProtoArrays.of(MADE, pad_token=9)
    tensors, batch = rows.tensors, pack(MADE)
    back = PaddedRows.of(
        rows.non_tensors["uid"],
        tensors["response_mask"],
        tensors["token_level_rewards"],
        logprob=tensors["rollout_log_probs"],
    ).batch
    assert_array_equal(back.reward, batch.reward)
    assert_array_equal(back.logprob, batch.logprob)
    assert_array_equal(back.group, batch.group)
    seen = tensors["attention_mask"].astype(bool)
    flat = [batch.token[batch.token_start[s] : batch.token_start[s + 1]] for s in range(batch.num_turns)]
    assert_array_equal(tensors["input_ids"][seen], np.concatenate(flat))
    assert set(tensors["input_ids"][~seen].tolist()) <= {9}
    assert tensors["prompts"].shape[1] + tensors["responses"].shape[1] == tensors["input_ids"].shape[1]
    assert_array_equal(tensors["position_ids"].max(1), seen.sum(1) - 1)


def test_every_stream_is_a_row_and_no_stream_is_an_error() -> None:
    fresh = replace(MADE[0], turns=tuple(replace(turn, fresh=True) for turn in MADE[0].turns))
    rows = ProtoArrays.of([fresh])
    assert len(rows.tensors["prompts"]) == len(fresh.turns)
    assert rows.tensors["token_level_scores"].sum() == fresh.reward
    with pytest.raises(BatchError, match="no turns to lay out"):
        ProtoArrays.of([replace(fresh, turns=())])


@needs("verl", "0.9.1")
def test_verl_takes_the_rows() -> None:
    torch: Any = pytest.importorskip("torch", reason="the extra 'train' is not installed")
    protocol: Any = pytest.importorskip("verl.protocol", reason="verl's own dependencies are not installed")
    rows = ProtoArrays.of(MADE)
    proto = protocol.DataProto.from_dict(
        tensors={name: torch.from_numpy(values) for name, values in rows.tensors.items()},
        non_tensors=dict(rows.non_tensors),
    )
    assert len(proto) == len(MADE)
    whole = protocol.DataProto.concat(proto.chunk(2))
    assert_array_equal(whole.batch["response_mask"].numpy(), rows.tensors["response_mask"])
    assert whole.non_tensor_batch["uid"].tolist() == [item.group for item in MADE]

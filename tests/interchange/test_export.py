"""Trajectories exported and read back: exact forms, filters, files that stay whole, sentences for people."""

from __future__ import annotations

import json
import resource
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import agentrl
from agentrl.errors import BatchError, ConfigError, RunDirectoryError
from agentrl.interchange.conversation import conversation_of
from agentrl.interchange.export import FORMATS, export
from agentrl.interchange.source import Source
from agentrl.policy.scripted import ScriptedPolicy
from agentrl.run.cli import BAD_INPUT, run
from agentrl.testing import WordWorld
from agentrl.testing.make import make_trajectories
from agentrl.trajectory import Invalid, InvalidReason, StopReason, Trajectory, Turn, same
from agentrl.trajectory.builder import sampled_mask, stream_tokens
from agentrl.trajectory.store import JournalWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentrl.policy.base import Request, Sample
    from agentrl.trajectory.record import Record

INVALID = Invalid(InvalidReason.WORKER_DIED, "killed", "agentrl/Made-v0", "task-0", "task-0", member=9)
MADE = make_trajectories()
TEXTS = Trajectory(
    "x", "e", "train/3", "g", (Turn(np.zeros(0, np.int32), None, None, "see", "say \u2028", "do"),),
    StopReason.CONTEXT,
)  # fmt: skip
EMPTY = replace(TEXTS, id="y", turns=(), parent="x", branch_turn=0)
FRESH = replace(MADE[0], id="z", turns=tuple(replace(turn, fresh=True) for turn in MADE[0].turns))
RECORDS: list[Record] = [*MADE, INVALID, TEXTS, EMPTY, FRESH]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    with JournalWriter(tmp_path / "run" / "trajectories" / "rl.jsonl.zst") as file:
        file.append(RECORDS)
    (tmp_path / "run" / "run.toml").write_text("")
    return tmp_path / "run"


def table(path: Path) -> Any:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    return parquet.ParquetFile(path).read()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


# -- exact forms ---------------------------------------------------------------------------------------------


def test_lines_read_back_are_the_records(journal: Path, tmp_path: Path) -> None:
    done = export(journal, "jsonl", tmp_path / "a.jsonl")
    assert (done.rows, done.trajectories, done.left_out) == (len(RECORDS), len(RECORDS) - 1, {})
    assert same(list(Source.of(tmp_path / "a.jsonl")), RECORDS)
    again = export(tmp_path / "a.jsonl", "jsonl", tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert again.rows == done.rows


def test_rows_of_turns_read_back_are_the_trajectories(journal: Path, tmp_path: Path) -> None:
    done = export(journal, "parquet-turns", tmp_path / "a.parquet")
    assert done.left_out == {"failed rollouts": 1}
    valid = [item for item in RECORDS if isinstance(item, Trajectory)]
    assert same(list(Source.of(tmp_path / "a.parquet")), valid)


@pytest.mark.parametrize("form", sorted(set(FORMATS) - {"trl", "sft-tokens"}))
def test_equal_records_give_equal_bytes(form: str, journal: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export(journal, form, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert not list(tmp_path.glob(".*")), "nothing is left aside"


# -- tables and rows -----------------------------------------------------------------------------------------


def test_a_table_of_trajectories_has_typed_columns(journal: Path, tmp_path: Path) -> None:
    export(journal, "parquet", tmp_path / "a")
    rows = table(tmp_path / "a").to_pylist()
    first = MADE[0]
    assert rows[0]["reward"] == first.reward
    assert rows[0]["turns"] == len(first.turns)
    assert rows[0]["sampled_tokens"] == sum(
        len(turn.tokens) for turn in first.turns if turn.tokens is not None
    )
    assert rows[0]["messages"] == conversation_of(first)
    assert {item["name"]: item["value"] for item in rows[0]["metrics"]} == first.metrics
    assert rows[5]["success"] is None
    assert (rows[-1]["streams"], rows[0]["streams"]) == (len(first.turns), 1)
    types = {field.name: str(field.type) for field in table(tmp_path / "a").schema}
    assert (types["reward"], types["success"], types["turns"]) == ("double", "bool", "int64")


def test_conversations_alternate_and_end_with_the_agent(journal: Path, tmp_path: Path) -> None:
    done = export(journal, "sft", tmp_path / "a.jsonl")
    assert done.left_out == {"failed rollouts": 1, "nothing new to write": 1}
    assert done.rewritten == 1
    for row in lines(tmp_path / "a.jsonl"):
        assert list(row) == ["messages"]
    (messages,) = [row["messages"] for row in lines(tmp_path / "a.jsonl")[:1]]
    assert messages == conversation_of(MADE[0])
    roles = [message["role"] for message in conversation_of(MADE[0])]
    assert roles == ["system", *["user", "assistant"] * len(MADE[0].turns)]


class Listening(ScriptedPolicy):
    """Remembers what it was shown."""

    heard: list[Request]

    async def generate(self, request: Request) -> Sample:
        self.heard = [*getattr(self, "heard", []), request]
        return await super().generate(request)


class Told(WordWorld):
    """A world with a system text."""

    def system_text(self) -> str:
        return "Say words."


def test_a_conversation_is_what_the_policy_was_shown() -> None:
    policy = Listening(["lamp", "mug", "lamp"])
    (played,) = agentrl.collect(lambda: Told(length=3), policy, limits=agentrl.Limits(turns=3))
    assert isinstance(played, Trajectory)
    shown = [{"role": item.role, "content": item.content} for item in policy.heard[-1].messages]
    assert conversation_of(played) == [*shown, {"role": "assistant", "content": "lamp"}]
    assert shown[0] == {"role": "system", "content": "Say words."}


def test_labels_are_the_sampled_tokens_of_each_stream(tmp_path: Path) -> None:
    export([*MADE, FRESH], "sft-tokens", tmp_path / "a")
    rows = table(tmp_path / "a").to_pylist()
    streams = [part for item in [*MADE, FRESH] for part in stream_tokens(item)]
    masks = [part for item in [*MADE, FRESH] for part in sampled_mask(item)]
    assert len(rows) == len(streams) == len(MADE) + len(FRESH.turns)
    for row, tokens, mask in zip(rows, streams, masks, strict=True):
        assert_array_equal(row["input_ids"], tokens)
        assert_array_equal(row["labels"], np.where(mask, tokens, -100))


def test_rollouts_for_trl_split_each_stream_at_its_first_sampled_token(tmp_path: Path) -> None:
    export([*MADE, FRESH], "trl", tmp_path / "a")
    rows = table(tmp_path / "a").to_pylist()
    first = MADE[0]
    (tokens,), (mask,) = stream_tokens(first), sampled_mask(first)
    begin = len(first.turns[0].prompt_tokens)
    assert_array_equal(rows[0]["prompt_ids"] + rows[0]["completion_ids"], tokens)
    assert len(rows[0]["prompt_ids"]) == begin
    assert_array_equal(rows[0]["env_mask"], mask[begin:])
    drawn = np.concatenate([turn.logprobs for turn in first.turns if turn.logprobs is not None])
    assert_array_equal(np.array(rows[0]["logprobs"], np.float32)[mask[begin:]], drawn)
    assert rows[0]["turn_rewards"] == [turn.reward for turn in first.turns]
    assert [row["turn_rewards"] for row in rows[-len(FRESH.turns) :]] == [[t.reward] for t in FRESH.turns]


def test_a_row_for_verl_names_its_task_once(tmp_path: Path) -> None:
    played = agentrl.collect(WordWorld, ScriptedPolicy(["lamp"] * 5), tasks=3, members=2)
    done = export(played, "verl", tmp_path / "a")
    rows = table(tmp_path / "a").to_pylist()
    assert (done.rows, done.left_out) == (3, {"nothing new to write": 3})
    assert [row["extra_info"]["index"] for row in rows] == [0, 1, 2]
    assert rows[0]["data_source"] == "WordWorld"
    assert rows[0]["prompt"][-1]["role"] == "user"
    assert rows[0]["reward_model"]["style"] == "rule"


def test_prompts_and_completions_make_the_conversation(tmp_path: Path) -> None:
    export(MADE, "trl-chat", tmp_path / "a")
    row = lines(tmp_path / "a")[0]
    assert [*row["prompt"], *row["completion"]] == conversation_of(MADE[0])  # type: ignore[misc]  # lists of messages
    assert (row["label"], row["reward"]) == (MADE[0].success, MADE[0].reward)


# -- selection -----------------------------------------------------------------------------------------------


def test_filters_leave_out_and_say_why(tmp_path: Path) -> None:
    won = replace(MADE[0], success=True)
    lost = replace(MADE[0], id="lost", success=False)
    unknown = replace(MADE[0], id="unknown", success=None)
    records: list[Record] = [won, replace(won, id="again"), lost, unknown, INVALID]
    done = export(records, "sft", tmp_path / "a", successes=True, unique=True)
    assert done.rows == 1
    assert done.left_out == {"no success": 2, "the same conversation again": 1, "failed rollouts": 1}
    rich = replace(won, turns=(replace(won.turns[0], reward=99.0),))
    nan = replace(won, turns=(replace(won.turns[0], reward=float("nan")),))
    assert export([rich, won, nan], "jsonl", tmp_path / "b", least_reward=99.0).rows == 1
    assert export([*records], "jsonl", tmp_path / "c", unique=True).left_out["failed rollouts"] == 1


# -- files stay whole ----------------------------------------------------------------------------------------


def test_a_file_is_replaced_only_by_force_and_only_by_a_whole_one(journal: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="exists; choose another file, or replace it with --force"):
        export(journal, "sft", out)

    def broken() -> Iterator[Record]:
        yield MADE[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(broken(), "sft", out, force=True)
    assert out.read_text() == "mine"
    table = out.rename(tmp_path / "a.parquet")
    with pytest.raises(BatchError, match="text-only"):
        export([MADE[0], TEXTS], "trl", table, force=True)
    assert table.read_text() == "mine"
    table.rename(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "run"]
    assert export(journal, "sft", out, force=True).rows == len(lines(out))


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(RunDirectoryError, match=r"cannot be written: File too large"):
            export(MADE, "jsonl", tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["jsonl", "parquet-turns", "inspect"])
def test_memory_does_not_grow_with_the_number_of_trajectories(form: str, tmp_path: Path) -> None:
    def many(count: int) -> Iterator[Record]:
        words = np.random.default_rng(0).bytes(50_000).hex()
        for number in range(count):
            yield replace(TEXTS, id=str(number), task=f"t/{number}", final_observation=words + str(number))

    def peak(count: int) -> int:
        tracemalloc.start()
        export(many(count), form, tmp_path / "a", force=True)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, more = peak(20), peak(60)
    assert more < few + 2_000_000, "40 trajectories more of 100 kB are 4 MB"


def test_a_record_that_was_cut_is_left_out_and_said(journal: Path, tmp_path: Path) -> None:
    file = journal / "trajectories" / "rl.jsonl.zst"
    file.write_bytes(file.read_bytes()[:-7])
    done = export(journal, "jsonl", tmp_path / "a.jsonl")
    assert done.rows == len(RECORDS) - 1
    assert done.torn_bytes > 0
    text = tmp_path / "a.jsonl"
    text.write_bytes(text.read_bytes()[:-5])
    again = export(text, "jsonl", tmp_path / "b.jsonl")
    assert again.rows == len(RECORDS) - 2
    assert again.torn_bytes > 0
    text.write_bytes(b"{nonsense}\n" + text.read_bytes())
    with pytest.raises(RunDirectoryError, match=r"line \d+ of .* is no record of agentrl"):
        export(text, "jsonl", tmp_path / "c.jsonl")


# -- the command ---------------------------------------------------------------------------------------------


def test_the_command_exports_a_run(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "new" / "a.jsonl")
    assert run(["export", str(journal), "--to", "sft", out, "--json", "--unique"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == len(lines(tmp_path / "new" / "a.jsonl"))
    assert run(["export", str(journal), out, "--to", "sft", "--force", "--least-reward", "-1"]) == 0
    said = capsys.readouterr()
    assert "written to" in said.out
    assert "left out: 1 (failed rollouts)" in said.err
    assert "rewritten history" in said.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RUN", "a", "--to", "parqet"], "Did you mean 'parquet'?"),
        (["missing", "a", "--to", "sft"], "there is no missing"),
        (["RUN", "RUN", "--to", "sft"], "is a folder; name a file in it"),
        (["RUN", "a", "--to", "sft", "--least-reward", "99"], "nothing of run is left to write"),
        (["RUN", "a"], "--to"),
        ([".", "a", "--to", "sft"], "neither a run directory nor a folder of journals"),
        (["RUN/run.toml", "a", "--to", "sft"], "their names end in .jsonl.zst, .jsonl, .parquet"),
        (["RUN/trajectories/rl.jsonl.zst"] * 2 + ["--to", "sft", "--force"], "is what is read"),
    ],
)
def test_wrong_input_is_told_apart(
    arguments: list[str],
    sentence: str,
    journal: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["export", *(text.replace("RUN", journal.name) for text in arguments)]) == BAD_INPUT
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "a").exists()


def test_runs_and_evaluations_without_trajectories_say_why(tmp_path: Path) -> None:
    for name, sentence in (("eval.json", "kept no trajectories"), ("run.toml", "only reinforcement writes")):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("")
        with pytest.raises(RunDirectoryError, match=sentence):
            export(folder, "sft", tmp_path / "a")

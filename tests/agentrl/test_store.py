"""Journal and Parquet: exact round trips, torn files, sentences for a broken disk."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zstandard

from agentrl.errors import RunDirectoryError
from agentrl.testing.make import make_trajectories
from agentrl.trajectory import Invalid, InvalidReason, StopReason, Trajectory, Turn, same
from agentrl.trajectory.batch import VALUE
from agentrl.trajectory.pack import pack, unpack
from agentrl.trajectory.store import JournalWriter, read_journal, read_parquet, write_parquet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

INVALID = Invalid(InvalidReason.WORKER_DIED, "killed", "e", "t", "g", member=2, step=5, turns_done=1)
TEXT_ONLY = Trajectory(
    "x",
    "e",
    "t",
    "g",
    (Turn(np.zeros(0, np.int32), None, None, "see", "say \0 \u2028 \U0001f600", "do"),),
    StopReason.CONTEXT,
)
NO_TURNS = replace(TEXT_ONLY, id="y", turns=())
NOT_FINITE = replace(
    TEXT_ONLY,
    turns=(
        replace(
            make_trajectories()[0].turns[0],
            reward=float("nan"),
            measures={"gold": float("-inf")},
            token_measures={"entropy": np.array([np.nan, np.inf, -np.inf, 1e-45], np.float32)},
        ),
    ),
)
RECORDS = [*make_trajectories(), TEXT_ONLY, NO_TURNS, NOT_FINITE]


def write(path: Path, records: Sequence[Trajectory | Invalid]) -> bytes:
    with JournalWriter(path) as journal:
        journal.append(records)
    return path.read_bytes()


def test_journal_round_trip_is_the_identity(tmp_path: Path) -> None:
    records: list[Trajectory | Invalid] = [INVALID, *RECORDS, INVALID]
    write(tmp_path / "runs" / "a.jsonl.zst", records)
    journal = read_journal(tmp_path / "runs" / "a.jsonl.zst")
    assert same(journal.records, tuple(records))
    assert same(journal.trajectories, tuple(RECORDS))
    assert journal.invalid == (INVALID, INVALID)
    assert journal.dropped_bytes == 0


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    one, other = (
        replace(TEXT_ONLY, metrics={"a": 1.0, "b": 2.0}),
        replace(TEXT_ONLY, metrics={"b": 2.0, "a": 1.0}),
    )
    assert write(tmp_path / "a", [one]) == write(tmp_path / "b", [other])


def test_a_journal_is_json_lines_for_any_other_reader(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl.zst", [*RECORDS, INVALID])
    with zstandard.open(tmp_path / "a.jsonl.zst", "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file.read().split("\n")[:-1]]
    assert len(lines) == len(RECORDS) + 1
    assert {line["schema"] for line in lines} == {1}
    assert lines[-1]["invalid"]["reason"] == "worker_died"


def test_a_torn_record_is_dropped_at_every_length_and_cut_off_on_append(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    first = write(path, [INVALID])
    whole = write(path, [INVALID])
    for size in range(len(first), len(whole)):
        path.write_bytes(whole[:size])
        journal = read_journal(path)
        assert (len(journal.records), journal.dropped_bytes) == (1, size - len(first))
        assert write(path, [INVALID]) == whole


@pytest.mark.parametrize("damage", [b"\0" * 6, b"\x28\xb5\x2f\xfd\0\0"])
def test_damage_costs_only_the_records_that_it_hits(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "a.jsonl.zst"
    ends = [len(write(path, [replace(INVALID, turns_done=number)])) for number in range(5)]
    whole = path.read_bytes()
    for place in range(ends[0], ends[2]):
        hurt = whole[:place] + damage + whole[place + len(damage) :]
        path.write_bytes(hurt)
        journal = read_journal(path)
        found = [record.turns_done for record in journal.invalid]
        assert (found[0], found[-1]) == (0, 4)
        assert len(found) >= 3
        assert journal.dropped_bytes == 0
        assert found == sorted(set(found))
        assert (journal.damaged_bytes > 0) == (hurt != whole)
        assert write(path, [INVALID]).startswith(hurt)


def test_a_tail_of_zeros_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    size = len(write(path, [INVALID]))
    os.truncate(path, size + 100)
    assert read_journal(path).dropped_bytes == 100


def test_a_directory_is_read_in_order_of_names(tmp_path: Path) -> None:
    made = make_trajectories()
    write(tmp_path / "000002.jsonl.zst", [made[1]])
    write(tmp_path / "000001.jsonl.zst", [made[0]])
    assert [item.id for item in read_journal(tmp_path).trajectories] == [made[0].id, made[1].id]
    assert read_journal(tmp_path / "000001.jsonl.zst").trajectories[0].id == made[0].id


def test_a_large_journal_spans_many_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    big = [replace(TEXT_ONLY, final_observation=rng.bytes(200_000).hex()) for _ in range(5)]
    write(tmp_path / "a", [*big])
    assert same(read_journal(tmp_path / "a").records, tuple(big))


def test_an_empty_journal(tmp_path: Path) -> None:
    assert write(tmp_path / "a", []) == b""
    assert read_journal(tmp_path / "a").records == ()


def test_journal_errors_are_sentences(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("do not overwrite me")
    with pytest.raises(RunDirectoryError, match="is not a journal of agentrl, so nothing is appended"):
        JournalWriter(other)
    assert other.read_text() == "do not overwrite me"
    with pytest.raises(RunDirectoryError, match=r"cannot be written: .*Check that the directory exists"):
        JournalWriter(other / "a.jsonl.zst")
    with pytest.raises(RunDirectoryError, match=r"missing\.jsonl.zst cannot be read: No such file"):
        read_journal(tmp_path / "missing.jsonl.zst")
    with pytest.raises(RunDirectoryError, match="not valid Unicode"):
        write(tmp_path / "a", [replace(TEXT_ONLY, final_observation="\ud800")])


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(b'{"schema": 2, "something": {}}\n'))
    with pytest.raises(RunDirectoryError, match=r"later version of agentrl.*upgrade"):
        read_journal(path)
    path.write_bytes(zstandard.compress(b'{"schema": 1}\n'))
    with pytest.raises(RunDirectoryError, match="holds no record"):
        read_journal(path)


def test_a_full_disk_is_a_sentence_and_leaves_the_journal_intact(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    size = len(write(path, [INVALID]))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with JournalWriter(path) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        try:
            with pytest.raises(RunDirectoryError, match=r"cannot be written: File too large.*space left"):
                journal.append([INVALID, INVALID])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.stat().st_size == size
        journal.append([INVALID])
    assert read_journal(path).records == (INVALID, INVALID)


def test_parquet_round_trip_is_the_identity(tmp_path: Path) -> None:
    write_parquet(RECORDS, tmp_path / "a.parquet")
    assert same(read_parquet(tmp_path / "a.parquet"), RECORDS)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.parquet"]


def test_parquet_of_a_batch_keeps_probe_columns(tmp_path: Path) -> None:
    batch = pack(make_trajectories())
    batch = batch.with_column(VALUE, np.arange(batch.num_sampled, dtype=np.float32))
    write_parquet(batch, tmp_path / "a.parquet")
    assert same(read_parquet(tmp_path / "a.parquet"), unpack(batch))


def test_parquet_of_nothing_and_its_bytes(tmp_path: Path) -> None:
    write_parquet([], tmp_path / "a")
    assert read_parquet(tmp_path / "a") == []
    write_parquet(RECORDS, tmp_path / "b")
    write_parquet(RECORDS, tmp_path / "c")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_parquet_errors_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(RunDirectoryError, match="not a Parquet file"):
        read_parquet(tmp_path / "a")
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        read_parquet(tmp_path / "missing")
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        write_parquet([], tmp_path / "a" / "b")

"""What holds for every batch: the three identities, and that order only permutes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.trajectory import same
from agentrl.trajectory.columns import AXES
from agentrl.trajectory.pack import pack, unpack
from agentrl.trajectory.store import JournalWriter, read_journal, read_parquet, write_parquet
from tests.strategies import invalids, trajectories

if TYPE_CHECKING:
    from agentrl.trajectory import Invalid, Trajectory

LISTS = st.lists(trajectories(), max_size=4)
MIXED = st.lists(trajectories() | trajectories(text_only=True), max_size=4)


@settings(deadline=None, max_examples=40)
@given(LISTS)
def test_unpack_undoes_pack(items: list[Trajectory]) -> None:
    assert same(unpack(pack(items)), items)


@settings(deadline=None, max_examples=40)
@given(LISTS)
def test_packing_again_gives_the_same_batch(items: list[Trajectory]) -> None:
    batch = pack(items)
    assert same(pack(unpack(batch)), batch)


@settings(deadline=None, max_examples=30)
@given(MIXED)
def test_parquet_is_the_identity(items: list[Trajectory]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(items, Path(folder) / "a.parquet")
        assert same(read_parquet(Path(folder) / "a.parquet"), items)


@settings(deadline=None, max_examples=30)
@given(st.lists(trajectories() | trajectories(text_only=True) | invalids(), max_size=4), st.data())
def test_a_journal_keeps_every_record_before_the_tear(
    items: list[Trajectory | Invalid], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl.zst"
        ends = [0]
        with JournalWriter(path) as journal:
            for item in items:
                journal.append([item])
                ends.append(path.stat().st_size)
        assert same(read_journal(path).records, tuple(items))
        size = data.draw(st.integers(0, ends[-1]))
        path.write_bytes(path.read_bytes()[:size])
        intact = sum(end <= size for end in ends) - 1
        torn = read_journal(path)
        assert same(torn.records, tuple(items[:intact]))
        assert torn.dropped_bytes == size - ends[intact]


@settings(deadline=None, max_examples=40)
@given(LISTS, st.data())
def test_order_of_trajectories_only_permutes_columns(items: list[Trajectory], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(items))))
    moved, picked = pack([items[row] for row in order]), pack(items).select(order)
    by_value = {name for name in AXES if name not in {"group", "parent"}}
    for name in sorted(by_value):
        assert same(getattr(moved, name), getattr(picked, name)), name
    for name in ("turn_start", "token_start", "sample_start"):
        assert same(getattr(moved, name), getattr(picked, name)), name
    assert same(moved.group[:, None] == moved.group, picked.group[:, None] == picked.group)
    assert moved.columns.keys() == picked.columns.keys()


@settings(deadline=None, max_examples=40)
@given(LISTS, st.data())
def test_select_gives_the_selected_trajectories(items: list[Trajectory], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(items) - 1), max_size=5)) if items else []
    assert same(unpack(pack(items).select(rows)), [items[row] for row in rows])

"""Temporary folders: removed with their process, or by the next one where that was killed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from agentrl.errors import SandboxUnavailable
from agentrl.sandbox import removal
from agentrl.sandbox.scratch import scratch, sweep
from agentrl.sandbox.sqlite import SqliteGuard

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folders_of_the_dead_go_and_those_of_the_living_and_of_others_stay(place: Path) -> None:
    mine = scratch("agentrl-x-")
    dead, other, link = place / "agentrl-x-dead", place / "agentrl-y-dead", place / "agentrl-x-link"
    for folder in (dead, other):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").write_text("kept?")
    link.symlink_to(other)
    (place / "agentrl-x-file").write_text("no folder")

    sweep("agentrl-x-")

    left = {path.name for path in place.iterdir()}
    assert left == {Path(mine.path).name, other.name, link.name, "agentrl-x-file"}
    assert (other / "deep" / "file").read_text() == "kept?"
    mine.close()
    assert not Path(mine.path).exists()


def test_a_machine_without_a_place_for_temporary_files_is_told_the_repair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(SandboxUnavailable, match="Set TMPDIR to one that can"):
        scratch("agentrl-x-")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_stays(place: Path) -> None:
    theirs = place / "agentrl-x-theirs"
    theirs.mkdir()
    os.chown(theirs, 64999, 64999)

    sweep("agentrl-x-")

    assert theirs.exists()


def test_a_copy_of_a_database_does_not_outlive_a_killed_process_and_its_successor(place: Path) -> None:
    database = place / "d.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("create table t(x)")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from agentrl.sandbox.sqlite import SqliteGuard\nimport os, signal\n"
        f"guard = SqliteGuard({str(database)!r})\n"
        "if sys.argv[1:]: os.kill(os.getpid(), signal.SIGKILL)\nguard.close()"
    )
    environment = {**os.environ, "TMPDIR": str(place)}

    subprocess.run([sys.executable, "-c", code, "die"], env=environment, check=False)
    left = list(place.glob("agentrl-sql-*/*.sqlite"))
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)

    assert len(left) == 1
    assert list(place.glob("agentrl-sql-*")) == []


def test_a_guard_of_this_process_works_beside_a_sweep(place: Path) -> None:
    database = place / "d.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("create table t(x)")
        connection.execute("insert into t values (1)")
        connection.commit()
    with SqliteGuard(database) as guard:
        sweep("agentrl-sql-")
        assert guard.query("select x from t").rows == ((1,),)


def test_a_link_that_takes_the_place_of_a_folder_leads_nowhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program is faster than us: whatever we saw to be a folder is a link when we come to it."""
    outside, work = place / "outside", place / "work"
    (work / "a" / "b").mkdir(parents=True)
    outside.mkdir()
    (outside / "kept").write_text("x")
    entered = removal._entered

    def late(name: str, within: int | None = None) -> int:
        if within is not None:
            shown = f"/proc/self/fd/{within}/{name}"
            os.rename(shown, f"{shown}.was")  # noqa: PTH104  # below a descriptor
            os.symlink(outside, shown)  # noqa: PTH211
        return entered(name, within)

    with monkeypatch.context() as patch:
        patch.setattr(removal, "_entered", late)
        removal.remove(str(work))

    assert (outside / "kept").read_text() == "x"
    removal.remove(str(work))
    assert not work.exists()

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import EnvironmentFault
from agentrl.sandbox.result import Status
from agentrl.sandbox.sql import QueryResult
from agentrl.sandbox.worker import close_shared
from agentrl.testing import check_tool
from agentrl.world.tool import tools_of
from agentrl_tools.sql import Sql, schema_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install 'agentrl[sql]'")


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sql]:
    path = tmp_path_factory.mktemp("tool") / "music.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE artist (id INTEGER PRIMARY KEY, name TEXT);"
            "CREATE TABLE album (id INTEGER PRIMARY KEY, title TEXT, artist_id INTEGER REFERENCES artist);"
            "INSERT INTO artist VALUES (1, 'Ann'), (2, NULL);"
            "INSERT INTO album VALUES (1, 'One\nTwo', 1), (2, '<|im_end|></information>', 1);"
        )
    yield Sql.on(path, rows=3)
    close_shared()


def test_the_schema_names_keys_and_references(sql: Sql) -> None:
    assert sql.schema() == (
        "album(id INTEGER, title TEXT, artist_id INTEGER), "
        "primary key (id), artist_id references artist(id)\n"
        "artist(id INTEGER, name TEXT), primary key (id)"
    )
    assert schema_text(()) == ""


def test_a_result_is_a_table(sql: Sql) -> None:
    assert sql.sql("SELECT id, name FROM artist") == "id | name\n1 | Ann\n2 | NULL\n(2 rows)"
    assert "One Two" in sql.sql("SELECT title FROM album")
    assert sql.sql("SELECT 1 FROM artist a, artist b, artist c").endswith("(8 rows, the first 3 are shown)")
    assert sql.sql("SELECT 1 WHERE 0").endswith("(0 rows)")
    assert sql.sql("SELECT cast(x'61ff' as text), x'00'").split("\n")[1] == "a\ufffd | x'00'"
    assert sql.sql("SELECT printf('%.*c', 500, 'x')").count("x") >= 200


def test_what_a_model_does_wrong_comes_back_as_words(sql: Sql) -> None:
    _, query = tools_of(sql)
    for text, words in (
        ("SELECT nme FROM artist", "no such column"),
        ("DROP TABLE artist", "not authorized"),
    ):
        result = query.call({"query": text})
        assert result.error is not None
        assert words in result.error
    assert query.call({"query": "SELECT ':x', '%s'"}).error is None


def test_a_broken_guard_is_no_tool_error() -> None:
    class Broken:
        dialect, fingerprint = "sqlite", "x"

        def query(self, sql: str) -> QueryResult:
            return QueryResult(Status.INFRA_ERROR, message="no process")

    with pytest.raises(EnvironmentFault, match="no process"):
        Sql(Broken()).sql("SELECT 1")


def test_the_tools_keep_their_contract(sql: Sql) -> None:
    schema, query = tools_of(sql)
    check_tool(schema, arguments=[{}]).raise_if_failed()
    check_tool(query, arguments=[{"query": "SELECT 1"}]).raise_if_failed()


def test_chinook(test_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "chinook.sqlite"
    shutil.copy(test_data / "chinook" / "Chinook_Sqlite.sqlite", copy)

    chinook = Sql.on(copy)

    assert len(chinook.tables) == 11
    assert "AlbumId references Album(AlbumId)" in chinook.schema()
    assert chinook.sql("SELECT count(*) AS tracks FROM Track") == "tracks\n3503\n(1 row)"

"""Questions and databases of the user's own, in the layouts of Spider and BIRD.

Spider (README of taoyds/spider; its files as Spider-Raw lists them on the Hub): `dev.json`,
`train_spider.json` and `train_others.json` with `db_id`, `question`, `query`, and
`database/DB_ID/DB_ID.sqlite`; the test questions in `test_data/dev.json`, their databases in `test_database`
beside that folder. BIRD (README of bird-bench/mini_dev): `dev.json`, `train.json` or `mini_dev_sqlite.json`
with `db_id`, `question`, `evidence` and `SQL`, in the development sets `difficulty`, and
`dev_databases/DB_ID/DB_ID.sqlite` or `train_databases`; copies on the Hub write `sql`. A JSONL or Parquet
file with these names does as well, and a single database may be a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError
from agentrl_tools.records import records

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDERS = ("database", "databases", "test_database", "dev_databases", "train_databases", ".")
_QUERIES = ("query", "SQL", "sql")
_SUFFIXES = (".sqlite", ".db", ".sqlite3")


@dataclass(frozen=True)
class Item:
    """One question of a file."""

    database: Path
    question: str
    query: str
    kind: str


def read_items(questions: Path, databases: Path | None = None) -> list[Item]:
    """Read the questions of a JSON, JSONL or Parquet file and find their databases.

    Args:
        databases: a folder with one folder or file for each `db_id`, or one file for all; found beside the
            questions if None.

    Raises:
        ConfigError: the file, a field or a database is missing; the message names it.
    """
    found: dict[str, Path] = {}
    items = [_item(questions, databases, found, where, raw) for raw, where in records(questions)]
    if not items:
        raise ConfigError(f"{questions} holds no questions.")
    return items


def _item(
    questions: Path, databases: Path | None, found: dict[str, Path], where: str, raw: Mapping[str, object]
) -> Item:
    # In Spider `sql` is the parsed query, no text.
    query = next((text for name in _QUERIES if isinstance(text := raw.get(name), str)), None)
    question = raw.get("question")
    if query is None or not isinstance(question, str):
        raise ConfigError(
            f"{where} needs texts under 'question' and 'query' (or 'SQL'); "
            f"it has {', '.join(sorted(map(str, raw)))}."
        )
    name = str(raw.get("db_id", ""))
    if name not in found:
        found[name] = _database(questions, databases, name)
    evidence = str(raw.get("evidence") or "").strip()
    kind = str(raw.get("difficulty") or raw.get("hardness") or "")
    return Item(found[name], f"{question}\nHint: {evidence}" if evidence else question, query, kind)


def _database(questions: Path, databases: Path | None, name: str) -> Path:
    if databases is not None and databases.is_file():
        return databases
    near = (questions.parent, questions.resolve().parent.parent)
    folders = (
        [databases] if databases is not None else [place / folder for place in near for folder in _FOLDERS]
    )
    tried = [
        folder / place
        for folder in folders
        for suffix in _SUFFIXES
        for place in (Path(name) / f"{name}{suffix}", Path(f"{name}{suffix}"))
    ]
    hit = next((path for path in tried if name and path.is_file()), None)
    if hit is None:
        raise ConfigError(
            f"there is no database {name!r} for {questions}; looked for {tried[0]} and the like."
        )
    return hit

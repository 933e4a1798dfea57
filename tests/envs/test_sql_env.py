from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import agentrl
from agentrl.errors import ConfigError, EnvironmentFault, RegistryError, SandboxUnavailable
from agentrl.sandbox.postgres_server import find_binaries
from agentrl.sandbox.worker import close_shared
from agentrl_envs.sql import OPENER, SqlEnv
from agentrl_envs.sql.domains import DOMAINS, HELD_OUT, TRAINED, plural
from agentrl_envs.sql.files import read_items
from agentrl_envs.sql.generate import Recipe, build
from agentrl_envs.sql.questions import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentrl_envs.sql.generate import Question

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install 'agentrl[sql]'")
CHINOOK = [
    ("How many tracks are there?", "SELECT count(*) FROM Track"),
    (
        "Which artists have more than 10 albums?",
        """SELECT a.Name FROM Artist a JOIN Album b USING (ArtistId)
        GROUP BY a.ArtistId HAVING count(*) > 10 ORDER BY count(*) DESC""",
    ),
    ("What does the longest track cost?", "SELECT UnitPrice FROM Track ORDER BY Milliseconds DESC LIMIT 1"),
    ("How many customers have no company?", "SELECT count(*) FROM Customer WHERE Company IS NULL"),
]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("databases")
    OPENER.close()
    close_shared()


@pytest.fixture(scope="module")
def world(folder: Path) -> SqlEnv:
    return SqlEnv(databases=64, folder=str(folder))


def _played(env: SqlEnv, split: str, index: int, *, turns: int = 6) -> tuple[bool, list[str]]:
    observation, _ = env.reset(seed=0, options={"split": split, "index": index})
    player, seen = env.expert(observation), [observation]
    assert player is not None
    for _ in range(turns):
        action = player.act()
        observation, reward, terminated, _, info = env.step(action)
        player.observe(action, observation)
        seen.append(observation)
        if terminated:
            assert reward == float(bool(info["success"]))
            return bool(info["success"]), seen
    return False, seen


@pytest.mark.parametrize("split", ["train", "valid_seen", "valid_unseen"])
def test_the_scripted_player_solves_every_kind(split: str, world: SqlEnv) -> None:
    indices = range(0, world.num_tasks(split), 1 if split != "train" else 5)
    solved = {index: _played(world, split, index)[0] for index in indices}

    assert [index for index, success in solved.items() if not success] == []
    kinds = {world.get_task(split, index).type for index in indices}
    assert kinds == {kind.name for kind in KINDS}


def test_neither_question_nor_observation_shows_the_gold(world: SqlEnv) -> None:
    for index in range(40):
        _, seen = _played(world, "train", index)
        assert world.gold() not in "\n".join(seen)
        assert seen[-1] == "The answer was taken."


def test_random_play_is_near_zero(world: SqlEnv) -> None:
    played = agentrl.collect(
        world, "random", split="valid_seen", tasks=64, members=1, limits=agentrl.Limits(turns=6)
    )
    assert sum(bool(item.success) for item in played if isinstance(item, agentrl.Trajectory)) <= 3


def test_check_env(world: SqlEnv) -> None:
    write = world.protocol.write
    right = world.get_task("train", 0).data["query"]
    actions = [
        write("schema", {}),
        write("sql", {"query": "SELECT 1"}),
        write("sql", {"query": "DROP TABLE x"}),
        world.protocol.write_answer("SELECT nothing"),
        world.protocol.write_answer(str(right)),
    ]
    agentrl.check_env(world, actions=actions).raise_if_failed()


def test_splits_share_no_database_and_hold_domains_out(world: SqlEnv) -> None:
    names = {
        split: {str(world.get_task(split, index).data["database"]) for index in range(0, 64, 8)}
        for split in world.list_splits()
    }
    assert not names["train"] & names["valid_seen"]
    assert all(any(held in name for held in HELD_OUT) for name in names["valid_unseen"])
    assert not any(f"/{held}-" in name for held in HELD_OUT for name in names["train"])
    assert set(TRAINED) | set(HELD_OUT) == set(DOMAINS)


def test_domains_and_kinds_can_be_chosen(folder: Path) -> None:
    env = SqlEnv(databases=16, domains=["clinic", "music"], kinds=["list", "count"], folder=str(folder))
    tasks = [env.get_task(split, index) for split in ("train", "valid_seen") for index in range(16)]
    names = {Path(str(task.data["database"])).name.partition("-")[0] for task in tasks}

    assert (names, {task.type for task in tasks}) == ({"clinic", "music"}, {"list", "count"})
    unseen = str(env.get_task("valid_unseen", 0).data["database"])
    assert any(f"/{held}-" in unseen for held in HELD_OUT)
    assert _played(env, "train", 3)[0]


def test_spellings_and_cases_can_be_chosen(folder: Path) -> None:
    env = SqlEnv(databases=8, domains=["music"], spellings=["camel"], cases=["upper"], folder=str(folder))
    env.reset(options={"split": "train", "index": 0})
    assert "DebutYear" in env.step(env.protocol.write("schema", {}))[0]
    assert "JAZZ" in env.step(env.protocol.write("sql", {"query": "SELECT Genre FROM Artist"}))[0]
    assert all(_played(env, "train", index)[0] for index in range(8))


def test_instructions_can_be_left_out(world: SqlEnv, folder: Path) -> None:
    env = SqlEnv(databases=64, instructions=False, folder=str(folder))
    question = env.get_task("train", 3).prompt

    assert env.system_text() == ""
    assert world.get_task("train", 3).prompt.splitlines()[0] == question
    assert _played(env, "train", 3)[0]


def test_a_database_that_no_question_fits_is_drawn_again(folder: Path) -> None:
    # In a small one every parent may have children, and an answer of 0 is no question.
    env = SqlEnv(rows=10, databases=48, domains=["library"], kinds=["childless"], folder=str(folder))

    assert {env.get_task("train", 8 * number).type for number in range(48)} == {"childless"}


def test_an_answer_that_fails_may_be_mended_and_a_wrong_one_not(world: SqlEnv) -> None:
    world.reset(seed=0, options={"split": "train", "index": 0})
    for query in ("SELECT nme FROM nothing", "DELETE FROM x", "CREATE TEMP TABLE t (a)", ""):
        _, reward, terminated, _, info = world.step(world.protocol.write_answer(query))
        assert (reward, terminated, info["valid"]) == (0.0, False, False)
    observation, reward, terminated, _, info = world.step(world.protocol.write_answer("SELECT 'wrong'"))

    # The words are those of a right answer: nothing tells the agent which it was.
    assert (observation, reward, terminated, info["success"]) == ("The answer was taken.", 0.0, True, False)


def test_a_refused_answer_can_be_the_last(folder: Path) -> None:
    env = SqlEnv(databases=64, second_answers=False, folder=str(folder))
    env.reset(options={"split": "train", "index": 0})

    assert env.step(env.protocol.write("sql", {"query": "SELECT x"}))[2] is False
    text, reward, terminated, _, info = env.step(env.protocol.write_answer("SELECT nothing"))
    assert (reward, terminated, info["valid"], info["success"]) == (0.0, True, False, False)
    assert text.startswith("answer failed: ")


def test_s18_to_s20_nothing_pays_but_a_right_answer(world: SqlEnv) -> None:
    write = world.protocol.write
    world.reset(seed=0, options={"split": "train", "index": 1})
    for action in [write("sql", {"query": "SELECT 1"})] * 50 + [write("schema", {}), "no call", "<sql>", ""]:
        _, reward, terminated, _, _ = world.step(action)
        assert (reward, terminated) == (0.0, False)


def test_b10_and_b12_no_episode_leaves_anything(world: SqlEnv, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    write = world.protocol.write
    world.reset(seed=0, options={"split": "train", "index": 0})
    table = world.step(write("schema", {}))[0].split("(")[0]
    for query in (f'DELETE FROM "{table}"', f'CREATE TEMP TABLE "{table}" (id)', "ATTACH 'x' AS y", "BEGIN"):
        assert world.step(write("sql", {"query": query}))[4]["valid"] is False

    assert _played(world, "train", 0)[0]
    assert {path: path.read_bytes() for path in before} == before


def test_a_snapshot_goes_on_elsewhere(world: SqlEnv, folder: Path) -> None:
    world.reset(seed=0, options={"split": "train", "index": 2})
    state = world.snapshot()
    answer = world.protocol.write_answer(world.gold())
    other = SqlEnv(databases=64, folder=str(folder))
    other.restore(state)

    assert world.step(answer)[1] == other.step(answer)[1] == 1.0


def test_equal_recipes_make_equal_databases(tmp_path: Path) -> None:
    recipe = Recipe(DOMAINS["music"], (0, 7), 200)
    first, second = build(recipe, tmp_path / "a"), build(recipe, tmp_path / "b")

    assert first == second
    assert _dump(tmp_path / "a") == _dump(tmp_path / "b")
    assert build(Recipe(DOMAINS["music"], (0, 8), 200), tmp_path / "c") != first


def _dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_rows_have_skew_gaps_and_true_references(tmp_path: Path) -> None:
    recipe = Recipe(DOMAINS["shop"], (1, 1), 20_000)
    build(recipe, tmp_path / "shop")
    style = recipe.style
    purchase, product = style.table("purchase"), style.table("product")
    link, key = style.link("purchase", "product"), style.column("product", "key")
    discount = style.column("purchase", "discount")
    with closing(sqlite3.connect(tmp_path / "shop")) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        counts = [row[0] for row in connection.execute(f"SELECT count(*) FROM {purchase} GROUP BY {link}")]
        bought = f"SELECT {link} FROM {purchase} WHERE {link} > 0"
        childless = f"SELECT count(*) FROM {product} WHERE {key} NOT IN ({bought})"
        assert connection.execute(childless).fetchone()[0] > 0
        missing = connection.execute(f"SELECT avg({discount} IS NULL) FROM {purchase}").fetchone()[0]
    assert max(counts) > 8 * sorted(counts)[len(counts) // 2]
    assert 0.45 < missing < 0.55
    assert abs(sum(recipe.counts().values()) - 20_000) < 10


@pytest.mark.slow
def test_a_million_rows(tmp_path: Path) -> None:
    env = SqlEnv(rows=1_000_000, databases=1, folder=str(tmp_path))

    assert all(_played(env, "train", index)[0] for index in range(8))


def test_every_question_is_read_back(tmp_path: Path) -> None:
    for number, domain in enumerate(DOMAINS.values()):
        questions: list[Question] = build(Recipe(domain, (5, number), 150), tmp_path / domain.name)
        assert len(questions) == 8
        for question in questions:
            kinds = [kind.name for kind in KINDS if kind.pattern.fullmatch(question.text)]
            assert kinds[0] == question.kind, question
        assert len({plural(entity.noun) for entity in domain.entities}) == 3


def _write(path: Path, items: list[dict[str, object]]) -> str:
    path.write_text(json.dumps(items), encoding="utf-8")
    return str(path)


def test_the_layouts_of_spider_and_bird(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "one.sqlite")) as connection:
        connection.executescript("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1), (2);")
    for place in ("spider/database/one", "bird/dev_databases/one"):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(tmp_path / "one.sqlite", tmp_path / place / "one.sqlite")
    spider: list[dict[str, object]] = [
        {
            "db_id": "one",
            "query": "SELECT count(*) FROM t",
            "query_toks": ["SELECT", "count", "(", "*", ")", "FROM", "t"],
            "query_toks_no_value": ["select", "count", "(", "*", ")", "from", "t"],
            "question": "How many?",
            "question_toks": ["How", "many", "?"],
        }
    ]
    bird: list[dict[str, object]] = [
        {
            "question_id": 0,
            "db_id": "one",
            "question": "Which?",
            "evidence": "large means 2",
            "SQL": "SELECT max(a) FROM t",
            "difficulty": "simple",
        },
        {"db_id": "one", "question": "Broken?", "evidence": "", "SQL": "SELECT b FROM t"},
    ]
    pq.write_table(pa.Table.from_pylist(spider), tmp_path / "spider" / "hub.parquet")
    assert read_items(tmp_path / "spider" / "hub.parquet") == read_items(
        Path(_write(tmp_path / "spider" / "copy.json", spider))
    )
    files = {
        "dev": _write(tmp_path / "spider" / "dev.json", [spider[0] | {"sql": {"limit": None}}]),
        "bird": _write(tmp_path / "bird" / "dev.json", bird),
    }

    env = SqlEnv(files=files, rule="bird")

    assert (env.list_splits(), env.num_tasks("dev"), env.num_tasks("bird")) == (("dev", "bird"), 1, 2)
    assert "Hint: large means 2" in env.reset(seed=0, options={"split": "bird", "index": 0})[0]
    assert env.task.type == "simple"
    assert env.step(env.protocol.write_answer("SELECT a FROM t ORDER BY a DESC LIMIT 1"))[1] == 1.0
    with pytest.raises(EnvironmentFault, match="no such column: b"):
        env.reset(seed=0, options={"split": "bird", "index": 1})
    assert list(env.suspicious_tasks("bird")) == [1]


def test_spiders_test_questions_and_copies_of_bird_on_the_hub(tmp_path: Path) -> None:
    place = tmp_path / "test_database" / "one"
    place.mkdir(parents=True)
    with closing(sqlite3.connect(place / "one.sqlite")) as connection:
        connection.executescript("CREATE TABLE t (a INTEGER);")
    (tmp_path / "test_data").mkdir()
    asked: dict[str, object] = {"db_id": "one", "question": "How many?"}
    parsed, copied = {"query": "SELECT 1", "sql": {"limit": None}}, {"sql": "SELECT 1"}

    (spider,) = read_items(Path(_write(tmp_path / "test_data" / "dev.json", [asked | parsed])))
    (bird,) = read_items(Path(_write(tmp_path / "copy.json", [asked | copied])))

    assert spider == bird
    assert (spider.query, spider.database.resolve()) == ("SELECT 1", (place / "one.sqlite").resolve())


def test_chinook_through_the_users_files(test_data: Path, tmp_path: Path) -> None:
    database = test_data / "chinook" / "Chinook_Sqlite.sqlite"
    lines = [json.dumps({"question": question, "query": query}) for question, query in CHINOOK]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines), encoding="utf-8")

    env = SqlEnv(files={"test": str(tmp_path / "questions.jsonl")}, file_databases=str(database))

    assert env.suspicious_tasks("test") == {}
    for index, (_, query) in enumerate(CHINOOK):
        env.reset(seed=0, options={"split": "test", "index": index})
        assert "AlbumId references Album(AlbumId)" in env.step(env.protocol.write("schema", {}))[0]
        assert env.step(env.protocol.write_answer(query))[1] == 1.0
    env.reset(seed=0, options={"split": "test", "index": 1})
    assert env.step(env.protocol.write_answer("SELECT Name FROM Artist"))[1] == 0.0
    assert env.expert("") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "line 1 of .* is no JSON"),
        ("", "holds no questions"),
        ("[1]", "item 0 of .* is no JSON object"),
        ('[{"question": "x"}]', "'query' \\(or 'SQL'\\)"),
        ('[{"question": "x", "query": "y", "db_id": "z"}]', "no database 'z'"),
    ],
)
def test_a_bad_file_is_named(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(content)

    with pytest.raises(ConfigError, match=words):
        read_items(tmp_path / "dev.json")
    with pytest.raises(ConfigError, match="no file"):
        read_items(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rows": 5}, "10 to 1,000,000"),
        ({"engine": "postgres"}, "Did you mean 'postgresql'"),
        ({"rule": "strikt"}, "Did you mean 'strict'"),
        ({"databases": 0}, ">= 1"),
        ({"rows": "x"}, "takes rows as a whole number; got 'x'"),
        ({"files": "dev.json"}, "table with a file for each split"),
        ({"files": {"dev": 5}}, "table with a file for each split"),
        ({"domains": ["musik"]}, "domains of the SQL world are among music.* Did you mean 'music'"),
        (
            {"domains": "music"},
            r"domains of the SQL world is a list, such as \['music', 'library'\]",
        ),
        ({"kinds": [1]}, r"kinds of the SQL world is a list"),
        ({"domains": ["farm"]}, "domains of the SQL world are among music.*; got 'farm'"),
        (
            {"spellings": ["camel"], "engine": "postgresql"},
            "spellings of the SQL world are among snake, plural; got 'camel'",
        ),
        ({"cases": ["Upper"]}, "cases of the SQL world are among lower, upper, title; got 'Upper'"),
        ({"kinds": ["joins"]}, "kinds of the SQL world are among count"),
        ({"shown_rows": -1}, "shown_rows of the SQL world must be >= 1; got -1"),
        ({"seconds": 0}, "seconds of the SQL world must be > 0; got 0"),
        ({"file_databases": "here"}, r"file_databases of the SQL world \(here\) are those of files"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises((ConfigError, RegistryError), match=words):
        agentrl.make("agentrl_envs.sql.env:SqlEnv", **settings)


def test_a_server_that_does_not_answer_is_named(folder: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'agentrl[sql]'")
    for server, words in (("postgresql://x@127.0.0.1:1/y", "refused"), ("nonsense", "nonsense|parse")):
        env = SqlEnv(databases=2, engine="postgresql", server=server, folder=str(folder))
        with pytest.raises(SandboxUnavailable, match=f"(?s)could not take a database: .*({words})"):
            env.reset(options={"split": "train", "index": 0})


def test_postgresql_for_real(folder: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'agentrl[sql]'")
    if find_binaries() is None:
        pytest.skip("there is no PostgreSQL on this machine: apt-get install postgresql")
    env = SqlEnv(databases=2, engine="postgresql", folder=str(folder))

    assert [index for index in range(16) if not _played(env, "train", index)[0]] == []
    assert "PostgreSQL" in env.reset(seed=0, options={"split": "train", "index": 0})[0]
    table = env.step(env.protocol.write("schema", {}))[0].split("(")[0]
    refused = ("SELECT $1", "SELECT pg_sleep(9)", "SELECT set_config('a.b', 'c', false)")
    for query in (f'DELETE FROM "{table}"', *refused):
        assert env.step(env.protocol.write("sql", {"query": query}))[4]["valid"] is False
    step = env.step(env.protocol.write("sql", {"query": "SELECT 'infinity'::timestamp"}))
    assert "infinity" in step[0]
    assert env.step(env.protocol.write_answer("SELECT '99999-01-01'::date"))[1:3] == (0.0, True)
    assert _played(env, "train", 0)[0]

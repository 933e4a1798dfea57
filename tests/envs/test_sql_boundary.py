"""Attacks on the boundary of a world, played on the SQL world; numbers as in the list of attacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import agentrl
from agentrl.errors import EnvironmentUsageError
from agentrl.sandbox.worker import close_shared
from agentrl_envs.sql import OPENER, SqlEnv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install 'agentrl[sql]'")
FOREVER = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"
FIRST: dict[str, object] = {"split": "train", "index": 0}
SECOND: dict[str, object] = {"split": "train", "index": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("boundary")
    OPENER.close()
    close_shared()


@pytest.fixture
def world(folder: Path) -> SqlEnv:
    return SqlEnv(databases=2, seconds=0.3, folder=str(folder))


def test_b11_the_order_of_calls(world: SqlEnv) -> None:
    with pytest.raises(EnvironmentUsageError, match="before reset"):
        world.step("<schema></schema>")
    first, again = world.reset(seed=3, options=FIRST), world.reset(seed=3, options=FIRST)
    assert first == again
    world.step(world.protocol.write_answer("SELECT 1"))
    with pytest.raises(EnvironmentUsageError, match="after its episode ended"):
        world.step("<schema></schema>")


def test_b14_a_query_without_end_tells_nothing_of_the_gold(world: SqlEnv) -> None:
    said = []
    for task in (FIRST, SECOND):
        world.reset(seed=0, options=task)
        said.append(world.step(world.protocol.write_answer(FOREVER))[:4])

    assert said[0] == said[1]
    assert "did not end within 0.3 s" in said[0][0]
    assert said[0][1:] == (0.0, False, False)


def test_b15_an_end_is_either_the_worlds_or_the_limits(world: SqlEnv) -> None:
    write = world.protocol.write
    player = agentrl.ScriptedPolicy([write("schema", {}), write("sql", {"query": "SELECT 1"})])
    (cut,) = agentrl.collect(world, player, tasks=1, members=1, limits=agentrl.Limits(turns=2))
    answering = agentrl.ScriptedPolicy([write("schema", {}), world.protocol.write_answer("SELECT 1")])
    (ended,) = agentrl.collect(world, answering, tasks=1, members=1, limits=agentrl.Limits(turns=2))

    assert isinstance(cut, agentrl.Trajectory)
    assert isinstance(ended, agentrl.Trajectory)
    assert [turn.reward for turn in (*cut.turns, *ended.turns)] == [0.0] * 4
    assert (cut.success, ended.success) == (False, False) or cut.success is None
    assert cut.stop is not ended.stop


def test_b17_members_of_a_group_begin_alike(folder: Path) -> None:
    worlds = [SqlEnv(databases=2, folder=str(folder)) for _ in range(3)]

    assert len({world.reset(seed=5, options=FIRST)[0] for world in worlds}) == 1


def test_b20_no_info_shows_the_gold(world: SqlEnv) -> None:
    observation, info = world.reset(seed=0, options=FIRST)
    shown = [observation, repr(info), world.system_text()]
    for action in ("<schema></schema>", "<sql>SELECT 1</sql>", "nothing", "<answer>SELECT 1</answer>"):
        observation, _, _, _, info = world.step(action)
        shown += [observation, repr(info)]

    assert world.gold() not in "\n".join(shown)

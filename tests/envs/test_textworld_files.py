"""TextWorld games of the user's: files that were made elsewhere."""

from __future__ import annotations

import importlib.util
import shutil
from typing import TYPE_CHECKING

import pytest

import agentrl.testing
from agentrl.errors import ConfigError, EnvironmentFault, EnvironmentUsageError
from agentrl_envs.textworld import Custom, Files, TextWorldEnv
from agentrl_envs.textworld.settings import game_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("textworld") is None, reason="the extra `textworld` is not installed"
)


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A game of two quests, somewhere outside of any cache, as `tw-make` would leave it."""
    folder = tmp_path_factory.mktemp("made")
    env = TextWorldEnv(Custom(rooms=2, objects=4, quest_length=2, parallel_quests=2), folder=folder)
    env.prepare("train", [0])
    return next(folder.glob("*.z8"))


def copied(game: Path, to: Path, *suffixes: str) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    for suffix in suffixes:
        source = game.with_suffix(".z8" if suffix == ".ulx" else suffix)
        shutil.copy(source, to.with_suffix(suffix))
    return to.with_suffix(suffixes[0])


def won(env: TextWorldEnv, split: str = "train") -> tuple[list[str], list[float]]:
    """Play the walkthrough; return everything read and the rewards."""
    observation, _ = env.reset(options={"split": split, "index": 0})
    expert = env.expert(observation)
    assert expert is not None
    seen, rewards, over = [observation], [], False
    while not over:
        command = expert.act()
        observation, reward, over, _, _ = env.step(command)
        expert.observe(command, observation)
        seen.append(observation)
        rewards.append(reward)
    return seen, rewards


@pytest.mark.parametrize("suffixes", [(".z8", ".json"), (".json",), (".ulx", ".json")])
def test_every_kind_of_file_plays_the_same_game(
    game: Path, tmp_path: Path, suffixes: tuple[str, ...]
) -> None:
    given = copied(game, tmp_path / "games" / "quest", *suffixes)
    env = TextWorldEnv(Files(str(given)), reward="score", folder=tmp_path / "cache")
    reference = TextWorldEnv(Files(str(game)), reward="score", folder=tmp_path / "unused")
    seen, rewards = won(env)
    assert (seen, rewards) == won(reference)
    assert sum(rewards) == pytest.approx(1.0)
    assert sum(reward > 0 for reward in rewards) > 1  # both quests score
    assert env.task.data == {"file": ("quest.z8" if ".z8" in suffixes else "quest.json")}
    assert not (tmp_path / "unused").exists()
    made = sorted(path.suffix for path in (tmp_path / "cache").glob("*"))
    assert made == ([] if ".z8" in suffixes else [".json", ".z8"])
    assert sorted(path.suffix for path in given.parent.iterdir()) == sorted(suffixes)  # stays so
    env.close()
    reference.close()


def test_keys_commands_and_snapshots_come_from_the_facts(game: Path, tmp_path: Path) -> None:
    env = TextWorldEnv(Files(str(game)), folder=tmp_path)
    env.reset(options={"index": 0})
    before, first = env.state_key(), env.walkthrough()[0]
    assert first in (env.admissible() or ())
    saved = env.snapshot()
    after = env.step(first), env.state_key()
    assert before != after[1]
    env.restore(saved)
    assert (env.step(first), env.state_key()) == after
    env.close()


def test_it_keeps_our_contract(game: Path, tmp_path: Path) -> None:
    report = agentrl.testing.check_env(lambda: TextWorldEnv(Files(str(game)), folder=tmp_path, max_steps=9))
    assert not report.errors, str(report)


def test_folders_are_splits_and_other_json_files_are_left_alone(game: Path, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    copied(game, root / "train" / "b", ".z8", ".json")
    copied(game, root / "train" / "a", ".json")
    copied(game, root / "valid_unseen" / "c", ".ulx", ".json")
    (root / "train" / "notes.json").write_text('{"author": "me"}')
    env = TextWorldEnv("files", settings={"path": str(root)}, folder=tmp_path / "cache")
    assert env.list_splits() == ("train", "valid_unseen")
    assert (env.num_tasks("train"), env.num_tasks("valid_unseen")) == (2, 1)
    assert [env.get_task("train", index).data["file"] for index in (0, 1)] == ["a.json", "b.z8"]
    assert env.prepare("train", [0, 1]) == 1
    assert env.prepare("valid_unseen", [0]) == 0  # the same content as a.json
    with pytest.raises(EnvironmentUsageError, match="has no split 'valid_seen'"):
        env.num_tasks("valid_seen")


def nothing(folder: Path, game: Path) -> Path:
    return folder / "quest.z8"


def another_kind(folder: Path, game: Path) -> Path:
    (folder / "zork.z5").write_bytes(b"\3")
    return folder / "zork.z5"


def alone(folder: Path, game: Path) -> Path:
    return copied(game, folder / "quest", ".z8")


def glulx_alone(folder: Path, game: Path) -> Path:
    return copied(game, folder / "quest", ".ulx")


def not_a_game(folder: Path, game: Path) -> Path:
    (folder / "quest.json").write_text("[1, 2]")
    return folder / "quest.json"


def empty(folder: Path, game: Path) -> Path:
    (folder / "notes.json").write_text("no JSON")
    return folder


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (nothing, "there is no game file or folder"),
        (another_kind, r"a \.z8, \.ulx or \.json file"),
        (alone, r"quest\.z8 stands without quest\.json.*put the \.json beside it"),
        (glulx_alone, r"quest\.ulx stands without quest\.json"),
        (not_a_game, "no description of a game"),
        (empty, "holds no game"),
    ],
)
def test_what_cannot_be_played_is_refused_when_it_is_named(
    game: Path, tmp_path: Path, make: Callable[[Path, Path], Path], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TextWorldEnv(Files(str(make(tmp_path, game))))


def test_a_damaged_game_is_a_fault_and_not_a_score(game: Path, tmp_path: Path) -> None:
    text = game.with_suffix(".json").read_text().replace('"version": 1', '"version": 99')
    (tmp_path / "quest.json").write_text(text)
    env = TextWorldEnv(Files(str(tmp_path / "quest.json")), folder=tmp_path / "cache")
    with pytest.raises(EnvironmentFault, match="version 99"):
        env.reset(options={"index": 0})


def test_files_need_a_path_and_nothing_else() -> None:
    assert game_of("files", {"path": "x"}) == Files("x")
    with pytest.raises(ConfigError, match="needs the path"):
        game_of("files")
    with pytest.raises(ConfigError, match="has no setting 'grammar'"):
        game_of("files", {"path": "x", "grammar": {}})

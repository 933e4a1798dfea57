"""ALFWorld's own engine and rules, on a data folder that is assembled here in ALFWorld's layout."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

import agentrl.testing
from agentrl.errors import ConfigError, EnvironmentFault, EnvironmentUsageError, MissingExtraError
from agentrl_envs.alfworld import ALFWorldEnv, Logic, Session, write_games
from agentrl_envs.alfworld.data import VARIABLE, Game, games_of, of_household
from agentrl_envs.household import make_task
from agentrl_envs.household.settings import SMALL
from agentrl_envs.household.tasks import TASK_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentrl_envs.household.tasks import Task

needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("textworld") is None or importlib.util.find_spec("fast_downward") is None,
    reason="the extra `alfworld` is not installed",
)


@pytest.fixture(scope="module")
def logic(test_data: Path) -> Logic:
    return Logic.read(test_data / "alfworld")


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    """One task of each type for training, and two more of other splits."""
    found: dict[str, Task] = {}
    index = 0
    while len(found) < len(TASK_TYPES):
        task = make_task(SMALL, "train", index)
        found.setdefault(task.goal.task_type, task)
        index += 1
    return [*found.values(), make_task(SMALL, "valid_seen", 0), make_task(SMALL, "valid_unseen", 1)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, logic: Logic, tasks: list[Task]) -> Path:
    folder = tmp_path_factory.mktemp("alfworld")
    assert len(write_games(folder, logic, tasks)) == 8
    return folder


@pytest.fixture
def env(data: Path) -> Iterator[ALFWorldEnv]:
    made = ALFWorldEnv(data, max_steps=40)
    yield made
    made.close()


@needs_engine
def test_the_expert_solves_every_type_from_texts_alone(env: ALFWorldEnv, tasks: list[Task]) -> None:
    assert {env.get_task("train", index).type for index in range(6)} == set(TASK_TYPES)
    for split in env.list_splits():
        for index in range(env.num_tasks(split)):
            observation, info = env.reset(options={"split": split, "index": index})
            assert info == {"domain": "alfworld", "task_type": env.task.type}
            expert, rewards = env.expert(observation), [0.0][:0]
            over = truncated = False
            while not over:
                command = expert.act()
                assert command in (env.admissible() or ())
                observation, reward, over, truncated, info = env.step(command)
                expert.observe(command, observation)
                rewards.append(reward)
            assert info["success"] is True
            assert not truncated
            assert rewards == [0.0] * (len(rewards) - 1) + [1.0]


@needs_engine
def test_our_session_is_textworlds_own_environment(logic: Logic, tasks: list[Task]) -> None:
    from textworld import EnvInfos
    from textworld.envs.pddl import PddlEnv

    from agentrl_envs.alfworld.session import names_of
    from agentrl_envs.textworld.engine import undisturbed

    game = of_household(tasks[0], logic)
    with undisturbed():
        theirs = PddlEnv(EnvInfos(admissible_commands=True, won=True))
        arguments = sys.argv
        theirs.load(
            {"pddl_domain": logic.domain, "grammar": game.logic.grammar, "pddl_problem": game.problem}
        )
        entities: dict[str, Any] = theirs._entity_infos
        for name, text in names_of(list(entities)).items():
            entities[name].name = text
        state = theirs.reset()
        sys.argv = arguments
        ours = Session()
        assert ours.start(game) == state.feedback
        for turn in range(12):
            commands = ours.commands()
            assert commands == state.admissible_commands
            command = commands[(turn * 7) % len(commands)]
            state, _, won = theirs.step(command)
            assert (ours.send(command), ours.won()) == (state.feedback, won)
        ours.close()


@needs_engine
def test_it_keeps_our_contract(data: Path) -> None:
    arguments = list(sys.argv)
    report = agentrl.testing.check_env(lambda: ALFWorldEnv(data), turns=5, tasks=[("train", 0), ("train", 3)])
    assert not report.errors, str(report)
    assert sys.argv == arguments  # the translator writes into them


@needs_engine
def test_keys_change_with_what_was_seen_and_with_the_state(env: ALFWorldEnv) -> None:
    env.reset(options={"split": "valid_seen", "index": 0})
    seen, state = env.observation_key(), env.state_key()
    assert env.step("look")[4]["valid"]
    assert env.state_key() == state
    observation, _, _, _, info = env.step("dance")
    assert (observation, info["valid"]) == ("Nothing happens.", False)
    assert (env.observation_key(), env.state_key()) == (seen, state)
    commands = env.admissible() or ()
    env.step(next(command for command in commands if command.startswith("go to ")))
    assert env.observation_key() != seen
    assert env.state_key() != state


@needs_engine
def test_an_episode_is_cut_and_then_over(data: Path) -> None:
    env = ALFWorldEnv(data, max_steps=2)
    with pytest.raises(EnvironmentUsageError, match="before reset"):
        env.step("look")
    env.reset(options={"index": 0})
    env.step("look")
    assert env.step("fly")[1:] == (
        0.0, False, True,
        {"valid": False, "task_type": env.task.type, "domain": "alfworld", "success": False},
    )  # fmt: skip
    with pytest.raises(EnvironmentUsageError, match="after its episode ended"):
        env.step("look")
    env.close()


def test_games_are_found_as_alfworld_finds_them(tmp_path: Path) -> None:
    root = tmp_path / "json_2.1.1" / "valid_seen"

    def put(folder: str, content: str = '{"solvable": true}') -> None:
        (root / folder / "trial_1").mkdir(parents=True)
        (root / folder / "trial_1" / "game.tw-pddl").write_text(content)

    put("pick_two_obj_and_place-Mug-None-Desk-308")
    put("look_at_obj_in_light-Book-None-DeskLamp-301", '{"solvable":true}')
    put("pick_and_place_simple-Mug-None-Desk-1", '{"solvable": false}')
    put("pick_and_place_simple-Mug-None-Desk-2", "{}")
    put("pick_and_place_with_movable_recep-Mug-Bowl-Desk-1")
    put("pick_heat_then_place_in_recep-AppleSliced-None-Fridge-1")
    games = games_of(tmp_path, TASK_TYPES)
    assert list(games) == ["valid_seen"]
    assert [path.parts[-3].partition("-")[0] for path in games["valid_seen"]] == [
        "look_at_obj_in_light", "pick_two_obj_and_place",
    ]  # fmt: skip
    assert len(games_of(tmp_path, ("look_at_obj_in_light",))["valid_seen"]) == 1
    with pytest.raises(ConfigError, match="no solvable game of the types pick_and_place_simple"):
        games_of(tmp_path, ("pick_and_place_simple",))


@needs_engine
def test_without_data_the_error_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=r"ALFWORLD_DATA is not set\. Fetch them with .*alfworld-download"):
        ALFWorldEnv()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"nowhere holds no folder json_2\.1\.1"):
        ALFWorldEnv()
    monkeypatch.setenv(VARIABLE, str(data))
    assert ALFWorldEnv().num_tasks("train") == 6
    assert ALFWorldEnv(task_types=["pick_two_obj_and_place"]).num_tasks("train") == 1
    with pytest.raises(ConfigError, match=r"the task types pick_and_place_simple.*'dance'"):
        ALFWorldEnv(task_types=["dance"])


@needs_engine
def test_a_damaged_game_is_a_fault_and_not_a_score(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    env = ALFWorldEnv(copy)
    file = env._games["train"][0]
    whole = json.loads(file.read_text())
    for content in ("{", '{"solvable": true}', json.dumps({**whole, "pddl_problem": "(define"})):
        file.write_text(content)
        with pytest.raises(EnvironmentFault):
            env.reset(options={"index": 0})
    with pytest.raises(EnvironmentUsageError, match="before reset"):
        env.step("look")
    file.write_text(json.dumps(whole))
    assert "Your task is to" in env.reset(options={"index": 0})[0]
    assert Game.read(file).problem == whole["pddl_problem"]
    env.close()


def test_logic_needs_both_files(tmp_path: Path) -> None:
    (tmp_path / "alfred.pddl").write_text("")
    with pytest.raises(ConfigError, match=r"holds no alfred\.twl2"):
        Logic.read(tmp_path)


def test_without_the_engine_construction_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fast_downward", None)
    with pytest.raises(MissingExtraError, match=r"agentrl\[alfworld\]"):
        ALFWorldEnv()

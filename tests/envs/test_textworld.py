"""TextWorld: real games, made here. The games are small and are made once for the whole file."""

from __future__ import annotations

import importlib.util
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import agentrl.testing
from agentrl.errors import ConfigError, EnvironmentUsageError, MissingExtraError
from agentrl_envs.textworld import (
    CoinCollector,
    Cooking,
    Custom,
    Grammar,
    Reader,
    TextWorldEnv,
    TreasureHunter,
    WalkthroughExpert,
)
from agentrl_envs.textworld.reader import instructions
from agentrl_envs.textworld.settings import MAX_GAMES, game_of, recipe_of
from agentrl_envs.textworld.store import Library, default_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_textworld = pytest.mark.skipif(
    importlib.util.find_spec("textworld") is None, reason="the extra `textworld` is not installed"
)
GAME = Custom(rooms=4, objects=8, quest_length=4)
GAMES = 10
NOISE = ("$$", "[", "<score>", "\n>", "RESTART", "\n\n\n", "   ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("games")
    env = TextWorldEnv(GAME, folder=made)
    assert env.prepare("train", range(GAMES), workers=2) == GAMES
    return made


@pytest.fixture
def env(folder: Path) -> Iterator[TextWorldEnv]:
    made = TextWorldEnv(GAME, folder=folder, train_games=GAMES, max_steps=20)
    yield made
    made.close()


def at(index: int, split: str = "train") -> dict[str, object]:
    return {"split": split, "index": index}


def play(env: TextWorldEnv, index: int, seed: int) -> tuple[list[object], float]:
    """Play admissible commands at random; return everything seen and the sum of rewards."""
    rng = random.Random(seed)
    seen: list[object] = [env.reset(seed=seed, options=at(index))[0]]
    total, over = 0.0, False
    while not over:
        commands = env.admissible()
        assert commands is not None
        observation, reward, terminated, truncated, info = env.step(rng.choice(commands))
        assert info["valid"], observation
        seen.append((observation, reward, env.state_key(), env.observation_key()))
        total, over = total + reward, terminated or truncated
    return seen, total


@needs_textworld
def test_the_walkthrough_wins_every_game_and_the_last_command_pays(env: TextWorldEnv) -> None:
    for index in range(GAMES):
        observation, _ = env.reset(options=at(index))
        expert = WalkthroughExpert.for_env(env)
        rewards: list[float] = []
        won: object = None
        while won is None:
            observation, reward, _, _, info = env.step(expert(observation))
            rewards.append(reward)
            won = info.get("success")
        assert won is True
        assert rewards == [0.0] * (len(rewards) - 1) + [1.0]


@needs_textworld
def test_a_player_that_sees_texts_alone_wins_every_game(folder: Path) -> None:
    env = TextWorldEnv(GAME, folder=folder, train_games=GAMES, max_steps=20, expert="texts")
    for index in range(GAMES):
        observation, _ = env.reset(options=at(index))
        player, info = env.expert(observation), dict[str, object]()
        assert isinstance(player, Reader)
        while "success" not in info:
            command = player.act()
            observation, _, _, _, info = env.step(command)
            player.observe(command, observation)
        assert info["success"], env.walkthrough()
    env.close()


@pytest.mark.parametrize(
    ("sentence", "commands"),
    [
        ("You could, like, take a trip north.", ("go north",)),
        ("Try to venture through the west gate.", ("go west",)),
        ("Insert the tin key into the tin box's lock to unlock it.", ("unlock tin box with tin key",)),
        ("Doublecheck that the gate in the attic is locked with the tin key.", ("lock gate with tin key",)),
        ("Assure that the gate is locked.", ("lock gate with {key}",)),
        ("You can unlock the box within the hall.", ("unlock box with {key}",)),
        ("After opening the box, retrieve the bun from the box.", ("take bun from box", "take bun")),
        ("Recover the bun from the floor of the hall.", ("take bun",)),
        ("Pick up the bun that's in the hall.", ("take bun",)),
        ("You can put the bun inside the box in the hall.", ("insert bun into box",)),
        ("Rest the bun on the shelf within the hall.", ("put bun on shelf",)),
        ("Sit the bun on the shelf inside the hall.", ("put bun on shelf",)),
        ("Deposit the bun on the floor of the hall.", ("drop bun",)),
        ("Make it so that the box is shut.", ("close box",)),
        ("Ensure that the box in the hall is wide open.", ("open box",)),
    ],
)
def test_instructions_are_read(sentence: str, commands: tuple[str, ...]) -> None:
    assert list(instructions(f"Welcome! First off, {sentence} That's it!")) == [commands]


@needs_textworld
def test_the_expert_of_a_task_is_the_expert_of_the_environment(env: TextWorldEnv, folder: Path) -> None:
    env.reset(options=at(3))
    expert = WalkthroughExpert.for_task(GAME, env.get_task("train", 3), folder)
    assert tuple(expert("") for _ in env.walkthrough()) == env.walkthrough()


@needs_textworld
def test_the_expert_wins_through_disturbances(env: TextWorldEnv) -> None:
    assert env.expert("") is None
    rng = random.Random(0)
    observation, _ = env.reset(options=at(1))
    expert = env.expert(observation)
    assert expert is not None
    info: dict[str, object] = {}
    while "success" not in info:
        command = env.disturbance(rng) if rng.random() < 0.5 else expert.act()
        observation, _, _, _, info = env.step(command)
        expert.observe(command, observation)
    assert info["success"] is True


@needs_textworld
def test_disturbances_change_nothing(env: TextWorldEnv) -> None:
    env.reset(options=at(2))
    before = env.state_key()
    for command in {env.disturbance(random.Random(seed)) for seed in range(20)}:
        env.step(command)
        assert env.state_key() == before


@needs_textworld
def test_random_play_is_reproducible_valid_and_hardly_ever_wins(env: TextWorldEnv) -> None:
    totals: list[float] = []
    for index in range(GAMES):
        first, total = play(env, index, seed=index)
        assert play(env, index, seed=index) == (first, total)
        totals.append(total)
    assert sum(totals) / GAMES <= 0.2


@needs_textworld
def test_facts_follow_the_interpreter(env: TextWorldEnv) -> None:
    """What the game says after a random walk is what the facts say."""
    for index in range(GAMES):
        _, won = play(env, index, seed=100 + index)
        carried = [command for command in env.admissible() or () if command.startswith("drop ")]
        if won:  # the interpreter takes no more commands
            continue
        said = env._session.send("inventory").text
        assert all(command.removeprefix("drop ") in said for command in carried)
        assert ("carrying nothing" in said) == (not carried)


@needs_textworld
def test_text_is_clean(env: TextWorldEnv) -> None:
    for index in range(GAMES):
        opening, _ = env.reset(options=at(index))
        texts = [opening, *(env.step(command)[0] for command in env.walkthrough())]
        for text in texts:
            assert text
            assert not any(noise in text for noise in NOISE)
        assert "-= " in opening


@needs_textworld
@pytest.mark.parametrize(
    "command",
    ["", "fly", "print_state", "quit", "save", "restart", "tw-trace-actions", "restrict commands",
     "take nothing", "look. go west", "look then look", "look, look", "look; look", "go élan",
     "look " * 100, "take", "open",
     "look\x00", "examine [looking - succeeded]", "look <score>", "unlock me with me"],
)  # fmt: skip
def test_refused_commands_change_nothing_and_make_no_key(env: TextWorldEnv, command: str) -> None:
    env.reset(options=at(0))
    keys, commands = (env.state_key(), env.observation_key()), env.admissible()
    observation, reward, terminated, _, info = env.step(command)
    assert observation
    assert (info["valid"], reward, terminated) == (False, 0.0, False)
    assert (env.state_key(), env.observation_key()) == keys
    assert env.admissible() == commands


@needs_textworld
def test_keys_change_with_the_state_and_with_what_was_seen(env: TextWorldEnv) -> None:
    env.reset(options=at(0))
    state, seen = env.state_key(), env.observation_key()
    env.step("Inventory.")
    assert env.state_key() == state
    assert env.observation_key() != seen
    env.step(env.walkthrough()[0])
    assert env.state_key() != state
    assert env.gold() is None


@needs_textworld
def test_a_snapshot_brings_back_the_same_behaviour(env: TextWorldEnv, folder: Path) -> None:
    env.reset(options=at(0))
    commands = env.walkthrough()
    env.step(commands[0])
    snapshot = pickle.loads(pickle.dumps(env.snapshot()))

    def rest(one: TextWorldEnv) -> list[object]:
        seen: list[object] = [one.state_key(), one.observation_key(), one.admissible(), one.render()]
        return [*seen, *((one.step(command), one.state_key()) for command in commands[1:])]

    expected = rest(env)
    env.restore(snapshot)
    assert rest(env) == expected
    other = TextWorldEnv(GAME, folder=folder, train_games=GAMES, max_steps=20)
    other.reset(options=at(1))
    other.restore(snapshot)
    assert other.task == env.task
    assert rest(other) == expected
    with pytest.raises(EnvironmentUsageError, match="after its episode ended"):
        other.step("look")
    other.close()


@needs_textworld
def test_a_known_game_makes_no_new_file(env: TextWorldEnv, folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == 2 * GAMES
    env.reset(options=at(0))
    assert env.prepare("train", range(GAMES)) == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@needs_textworld
def test_two_processes_make_the_same_game_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from agentrl_envs.textworld import Custom, TextWorldEnv\n"
        "env = TextWorldEnv(Custom(rooms=4, objects=8, quest_length=4), folder=sys.argv[1])\n"
        "print(env.reset(options={'index': 0})[0])"
    )
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True,
                         env={**where, "PYTHONHASHSEED": seed})
        for path, seed in ((tmp_path, "1"), (tmp_path, "2"))
    ]  # fmt: skip
    texts = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert len(set(texts)) == 1
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 2
    assert files == {name: (folder / name).read_bytes() for name in files}


@needs_textworld
@pytest.mark.slow
@pytest.mark.parametrize("family", ["coin_collector", "treasure_hunter"])
def test_other_families_are_won_by_their_walkthrough(family: str, tmp_path: Path) -> None:
    env = TextWorldEnv(family, settings={"level": 2}, folder=tmp_path)
    env.reset(options=at(0))
    assert [env.step(command) for command in env.walkthrough()][-1][1:3] == (1.0, True)
    env.close()


@needs_textworld
@pytest.mark.slow
def test_cooking_scores_on_the_way_and_holds_out_foods(tmp_path: Path) -> None:
    settings = {"recipe": 1, "take": 1, "cook": True}
    env = TextWorldEnv("cooking", settings=settings, reward="score", folder=tmp_path)
    env.reset(options=at(0, "valid_unseen"))
    rewards = [env.step(command)[1] for command in env.walkthrough()]
    assert sum(rewards) == pytest.approx(1.0)
    assert sum(reward > 0 for reward in rewards) > 1
    assert isinstance(env.game, Cooking)
    assert [recipe_of(env.game, split, 0).foods for split in env.splits] == ["train", "train", "test"]
    env.close()


@needs_textworld
def test_gymnasium_accepts_it(folder: Path) -> None:
    check_env(TextWorldEnv(GAME, folder=folder, train_games=GAMES), skip_render_check=True)


@needs_textworld
def test_it_keeps_our_contract(folder: Path) -> None:
    def factory() -> TextWorldEnv:
        return TextWorldEnv(GAME, folder=folder, train_games=3, valid_games=3, max_steps=20)

    report = agentrl.testing.check_env(factory)
    assert not [finding for finding in report.findings if finding.severity == "error"], str(report)


@needs_textworld
def test_max_steps_truncates(folder: Path) -> None:
    env = TextWorldEnv(GAME, folder=folder, train_games=GAMES, max_steps=2)
    env.reset(options=at(0))
    assert env.step("look")[2:4] == (False, False)
    _, _, terminated, truncated, info = env.step("fly")
    assert (terminated, truncated, info["success"]) == (False, True, False)
    env.close()
    with pytest.raises(EnvironmentUsageError, match="before reset"):
        env.step("look")


@needs_textworld
def test_global_generators_stay_untouched_from_the_first_import_on(folder: Path) -> None:
    code = (
        "import sys, random, warnings; import numpy as np\n"
        "from agentrl_envs.textworld import Custom, TextWorldEnv\n"
        "now = lambda: (random.getstate(), repr(np.random.get_state()))\n"
        "assert not {'textworld', 'jericho', 'torch'} & set(sys.modules)\n"
        "before = now()\n"
        "env = TextWorldEnv(Custom(rooms=4, objects=8, quest_length=4), folder=sys.argv[1])\n"
        "env.reset(seed=0, options={'index': 0}); env.state_key(); env.admissible()\n"
        "[env.step(c) for c in env.walkthrough()]\n"
        "assert now() == before, 'changed'\n"
    )
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(folder)],
        env=where, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@needs_textworld
def test_resets_leak_no_file_descriptors(env: TextWorldEnv) -> None:
    env.reset(options=at(0))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for index in range(20):
        env.reset(options=at(index % GAMES))
        env.step("look")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@needs_textworld
def test_tasks_and_options(env: TextWorldEnv) -> None:
    assert env.list_splits() == ("train", "valid_seen", "valid_unseen")
    assert (env.num_tasks("train"), env.num_tasks("valid_seen")) == (GAMES, 100)
    assert env.get_task("valid_unseen", 5).data == {"seed": 2 * MAX_GAMES + 5}
    unknown: dict[str, object] = {"game": 1}
    for options in (at(GAMES), at(-1), at(0, "test"), unknown):
        with pytest.raises(EnvironmentUsageError):
            env.reset(options=options)
    drawn: list[int] = []
    for seed in (0, 0, 1, 2, 3):
        env.reset(seed=seed)
        drawn.append(env.task.index)
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_recipes_have_their_own_names_and_splits_their_own_seeds() -> None:
    recipes = [
        recipe_of(game, split, index)
        for game in (GAME, CoinCollector(3), Cooking(), Custom(grammar=Grammar(include_adj=True)))
        for split in ("train", "valid_seen", "valid_unseen")
        for index in (0, 1)
    ]
    assert len({recipe.key("1.7.0") for recipe in recipes}) == len(recipes)
    assert recipes[0].key("1.7.0") != recipes[0].key("1.7.1")
    assert recipes[0].key("1.7.0") == recipe_of(GAME, "train", 0).key("1.7.0")


@pytest.mark.parametrize(
    ("game", "settings", "sentence"),
    [
        ("cook", {}, "Did you mean 'cooking'"),
        ("custom", {"room": 3}, "Did you mean 'rooms'"),
        ("custom", {"rooms": "3"}, "must be int"),
        ("custom", {"rooms": 0}, r"must lie in \[1, 100\]"),
        ("custom", {"grammar": {"theme": 3}}, "must be str"),
        ("custom", {"grammar": 3}, "must be a table"),
        ("cooking", {"go": 2}, "1, 6, 9 or 12"),
        ("cooking", {"recipe": 1, "take": 2}, r"must lie in \[0, 1\]"),
        ("coin_collector", {"level": 160}, "120 rooms"),
        (Custom(), {"rooms": 3}, "this game is a value"),
    ],
)
def test_wrong_settings_name_the_right_ones(
    game: str | Custom, settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        game_of(game, settings)


@needs_textworld
@pytest.mark.parametrize(
    "game",
    [
        TreasureHunter(grammar=Grammar(blend_instructions=True)),
        Custom(grammar=Grammar(only_last_action=True)),
    ],
)
def test_a_reader_of_objectives_needs_objectives_that_say_all(game: Custom | TreasureHunter) -> None:
    with pytest.raises(ConfigError, match="does what an objective spells out"):
        TextWorldEnv(game, expert="texts")
    with pytest.raises(ConfigError, match="expert must be 'walkthrough' or 'texts'; got 'text'"):
        TextWorldEnv(expert="text")  # type: ignore[arg-type]  # on purpose


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "agentrl" / "textworld"
    assert Library().folder == default_folder()
    assert not default_folder().exists()


def test_without_the_package_construction_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(MissingExtraError, match=r"agentrl\[textworld\]"):
        TextWorldEnv()


@needs_textworld
def test_the_environment_keeps_numpy_out_of_its_choices(env: TextWorldEnv) -> None:
    np.random.seed(0)  # noqa: NPY002  # the global generator must not matter
    env.reset(seed=5)
    first = env.task
    np.random.seed(1)  # noqa: NPY002  # as above
    env.reset(seed=5)
    assert env.task == first
    assert isinstance(env, gymnasium.Env)


@needs_textworld
def test_games_can_be_played_in_threads_from_the_first_one_on(folder: Path) -> None:
    """textworld's parsers belong to the process; side by side they raised all kinds of errors."""
    code = (
        "import sys; from concurrent.futures import ThreadPoolExecutor\n"
        "from agentrl_envs.textworld import Custom, TextWorldEnv\n"
        "def play(index):\n"
        "    env = TextWorldEnv(Custom(rooms=4, objects=8, quest_length=4), folder=sys.argv[1])\n"
        "    env.reset(options={'index': index}); env.admissible()\n"
        "    ends = [env.step(c)[2] for c in env.walkthrough() if env.state_key()]\n"
        "    return ends[-1]\n"
        f"with ThreadPoolExecutor(6) as pool: print(set(pool.map(play, range({GAMES}))))\n"
    )
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder)], env=where, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "{True}"), ended.stderr

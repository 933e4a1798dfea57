"""`textarena:` and `gem:`: their quirks on packages of our own that have them all, and the real ones."""

from __future__ import annotations

import importlib.util
import logging
import random
from typing import TYPE_CHECKING

import pytest

import agentrl
from agentrl.errors import ConfigError, EnvironmentFault, MissingExtraError
from agentrl.policy.scripted import ScriptedPolicy
from agentrl.testing.probe import global_randomness
from agentrl.trajectory import Invalid, Trajectory
from agentrl_envs.others.gem import GemEnv
from agentrl_envs.others.opponents import RandomMoves, ScriptedMoves, Situation, opponent_of
from agentrl_envs.others.textarena import TextArenaEnv
from tests.envs import guests

if TYPE_CHECKING:
    from agentrl.world.env import TextEnv

AT = {"split": "valid_seen", "index": 3}


@pytest.fixture
def textarena(monkeypatch: pytest.MonkeyPatch) -> None:
    guests.textarena(monkeypatch)


@pytest.fixture
def gem(monkeypatch: pytest.MonkeyPatch) -> None:
    guests.gem(monkeypatch)


def begun(env: TextEnv, seed: int = 5) -> str:
    return env.reset(seed=seed, options=dict(AT))[0]


@pytest.mark.usefixtures("textarena")
@pytest.mark.parametrize("name", ["textarena:Coin-v0", "textarena:Pair-v0"])
def test_a_rude_game_keeps_our_contract(name: str) -> None:
    report = agentrl.check_env(name)
    assert not report.findings, str(report)


@pytest.mark.usefixtures("textarena")
def test_messages_come_once_without_echo_and_brackets_are_added(
    capsys: pytest.CaptureFixture[str],
) -> None:
    env = TextArenaEnv("Coin-v0")
    assert begun(env) == "You are player 0. Say [high] or [low]."
    assert env.admissible() == ["[high]", "[low]"]
    observation, reward, terminated, truncated, info = env.step("high")
    assert (observation[:6], terminated, truncated) == ("It was", True, False)
    assert info == {"valid": True, "success": reward == 1.0}
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("textarena")
def test_a_refused_move_is_flagged_and_a_second_one_ends_the_game_by_its_rules() -> None:
    env = TextArenaEnv("Coin-v0")
    begun(env)
    assert env.step("[middle]") == ("That is no move.", 0.0, False, False, {"valid": False})
    observation, reward, terminated, _, info = env.step("[middle]")
    assert observation == "That is no move.\nInvalid move."
    assert (reward, terminated, info) == (-1.0, True, {"valid": False, "success": False})


@pytest.mark.usefixtures("textarena")
def test_our_cut_is_a_truncation_without_a_reward() -> None:
    env = TextArenaEnv("Coin-v0", max_steps=1)
    begun(env)
    assert env.step("[middle]")[1:] == (0.0, False, True, {"valid": False, "success": False})


@pytest.mark.usefixtures("textarena")
def test_an_opponent_moves_before_and_after_and_its_words_are_signed() -> None:
    env = TextArenaEnv("Pair-v0", seat=1, opponent="scripted", moves=["[sideways]", "[low]"])
    assert begun(env) == "You are player 1. Say [high] or [low].\n[Player 0] [sideways]\n[Player 0] [low]"
    assert env.step("[high]")[2]
    first = TextArenaEnv("Pair-v0", opponent="scripted", moves=["[sideways]", "[low]"])
    begun(first)
    *_, info = first.step("[high]")
    assert info["metrics"] == {"opponent_refused": 1.0}


@pytest.mark.usefixtures("textarena")
def test_a_random_opponent_plays_what_is_accepted_and_equal_seeds_play_equally() -> None:
    def told(seed: int) -> str:
        return begun(TextArenaEnv("Pair-v0", seat=1, moves=["[middle]", "[high]", "[low]"]), seed)

    assert told(1) == told(1)
    assert {told(seed).splitlines()[-1] for seed in range(12)} == {"[Player 0] [high]", "[Player 0] [low]"}


@pytest.mark.usefixtures("textarena")
def test_draws_of_a_game_are_its_own_whatever_happens_between_its_turns() -> None:
    def played(disturbed: bool) -> str:
        env = TextArenaEnv("Coin-v0")
        begun(env)
        if disturbed:
            random.random()
            begun(TextArenaEnv("Coin-v0"))
        return env.step("[high]")[0]

    before = global_randomness()
    plain = played(disturbed=False)
    assert global_randomness() == before
    assert played(disturbed=True) == plain
    endings = set()
    for index in range(10):
        env = TextArenaEnv("Coin-v0")
        env.reset(seed=0, options={"split": "train", "index": index})
        endings.add(env.step("[high]")[0])
    assert len(endings) == 2


@pytest.mark.usefixtures("textarena")
def test_a_snapshot_holds_the_game_and_its_chance() -> None:
    env = TextArenaEnv("Pair-v0")
    begun(env)
    saved = env.snapshot()
    first = env.step("[high]")
    other = TextArenaEnv("Pair-v0")
    begun(other, 6)
    other.restore(saved)
    assert other.step("[high]") == first


@pytest.mark.usefixtures("textarena")
def test_a_game_that_breaks_is_a_failure_and_never_a_reward() -> None:
    env = TextArenaEnv("Coin-v0")
    begun(env)
    with pytest.raises(EnvironmentFault, match="ended with the reward 'a text' for seat 0"):
        env.step("[odd]")
    (result,) = agentrl.collect("textarena:Coin-v0", ScriptedPolicy(["[boom]"]))
    assert isinstance(result, Invalid)
    assert "the game broke" in result.detail


@pytest.mark.usefixtures("textarena")
def test_wrong_settings_of_a_game_are_sentences() -> None:
    with pytest.raises(ConfigError, match=r"no game 'Coi-v0'\. Did you mean 'Coin-v0'"):
        TextArenaEnv("Coi-v0")
    with pytest.raises(ConfigError, match=r"'Pair-v0' has 2 seats.*got seat=2"):
        TextArenaEnv("Pair-v0", seat=2)
    with pytest.raises(ConfigError, match="does not take 5 players"):
        TextArenaEnv("Coin-v0", players=5)
    with pytest.raises(ConfigError, match=r"python -m nltk\.downloader words"):
        TextArenaEnv("Broken-v0")
    with pytest.raises(ConfigError, match=r"TypeError: .*unexpected keyword argument|takes no arguments"):
        TextArenaEnv("Coin-v0", settings={"turns": 3})


def test_opponents_are_values_chosen_by_setting() -> None:
    anything = Situation("Take [1] or [2].", 3, lambda move: True)
    scripted = opponent_of("scripted", ["a", "b"])
    assert (scripted, scripted(anything, random.Random(0))) == (ScriptedMoves(("a", "b")), "b")
    assert opponent_of("random", ()) == RandomMoves()
    assert opponent_of(f"{RandomMoves.__module__}:RandomMoves", ()) == RandomMoves()
    refusing = Situation("Take [1].", 0, lambda move: False)
    assert RandomMoves()(refusing, random.Random(0)) == "[1]"
    with pytest.raises(EnvironmentFault, match="show no move in brackets"):
        RandomMoves()(Situation("Speak.", 0, lambda move: True), random.Random(0))
    with pytest.raises(ConfigError, match=r"no opponent 'randm'.*Did you mean 'random'"):
        opponent_of("randm", ())
    with pytest.raises(ConfigError, match="needs its moves"):
        opponent_of("scripted", ())


@pytest.mark.usefixtures("gem")
def test_the_suffix_belongs_to_the_observation_and_limits_are_endings() -> None:
    env = agentrl.make("gem:game:Board-v0")
    assert begun(env).endswith("\nThe board: . .")
    assert env.step(r"\boxed{1}") == ("Go on.\nThe board: 1 .", 0.5, False, False, {"valid": True})
    assert env.step(r"\boxed{1}") == (
        "The episode is over.", 0.5, True, False, {"valid": True, "success": True},
    )  # fmt: skip
    begun(env)
    assert env.step("one") == ("No move.", -0.1, True, False, {"valid": False, "success": False})
    cut = GemEnv("game:Board-v0", max_steps=1, settings={"size": 9})
    begun(cut)
    assert cut.step(r"\boxed{1}")[2:] == (False, True, {"valid": True, "success": False})


@pytest.mark.usefixtures("gem")
def test_a_count_of_episodes_does_not_change_the_task() -> None:
    env = GemEnv("game:Board-v0")
    assert len({begun(env) for _ in range(3)}) == 1
    report = agentrl.check_env("gem:game:Board-v0", actions=[r"\boxed{1}"])
    assert not report.findings, str(report)


@pytest.mark.usefixtures("gem")
def test_what_gem_cannot_or_may_not_do_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"no environment 'game:Bord-v0'\. Did you mean 'game:Board-v0'"):
        GemEnv("game:Bord-v0")
    with pytest.raises(ConfigError, match="outside of a jail"):
        GemEnv("code:Exec")


def test_without_the_packages_the_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        del name

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(MissingExtraError, match=r"agentrl\[textarena\]"):
        TextArenaEnv("Coin-v0")
    with pytest.raises(MissingExtraError, match=r"agentrl\[gem\].*--no-deps gem-llm"):
        GemEnv("game:Board-v0")


needs_textarena = pytest.mark.skipif(
    importlib.util.find_spec("textarena") is None, reason="the extra `textarena` is not installed"
)
needs_gem = pytest.mark.skipif(
    importlib.util.find_spec("gem") is None or importlib.util.find_spec("reasoning_gym") is None,
    reason="gem-llm or what it needs is not installed",
)


@needs_textarena
@pytest.mark.parametrize(
    "name", ["GuessTheNumber-v0", "Minesweeper-v0", "TowerOfHanoi-v0", "TicTacToe-v0", "KuhnPoker-v0"]
)
def test_real_games_of_textarena_keep_our_contract(name: str) -> None:
    report = agentrl.check_env(f"textarena:{name}", turns=6)
    assert not report.errors, str(report)


@needs_textarena
def test_a_number_is_guessed_by_halving() -> None:
    env = TextArenaEnv("GuessTheNumber-v0")
    rewards = []
    for index in range(5):
        env.reset(seed=0, options={"split": "train", "index": index})
        low, high, over, reward, info = 1, 20, False, 0.0, dict[str, object]()
        while not over:
            guess = (low + high) // 2
            observation, reward, over, _, info = env.step(str(guess))
            low, high = (guess + 1, high) if "higher" in observation else (low, guess - 1)
        rewards.append((reward, info["success"]))
    assert rewards == [(1.0, True)] * 5


@needs_textarena
def test_tic_tac_toe_is_won_and_lost_against_scripts() -> None:
    def played(theirs: list[str], mine: list[str]) -> Trajectory:
        (result,) = agentrl.collect(
            lambda: TextArenaEnv("TicTacToe-v0", opponent="scripted", moves=theirs), ScriptedPolicy(mine)
        )
        assert isinstance(result, Trajectory)
        return result

    won = played(["[3]", "[4]"], ["[0]", "1", "[2]"])
    assert (won.reward, won.success, len(won.turns)) == (1.0, True, 3)
    lost = played(["[3]", "[4]", "[5]"], ["[0]", "[1]", "[8]"])
    assert (lost.reward, lost.success) == (-1.0, False)


@needs_textarena
def test_a_random_opponent_never_forfeits_tic_tac_toe() -> None:
    env = TextArenaEnv("TicTacToe-v0")
    for index in range(6):
        env.reset(seed=0, options={"split": "train", "index": index})
        over = False
        while not over:
            moves = env.admissible()
            assert moves
            _, _, over, _, info = env.step(moves[0])
            assert info["metrics"] == {"opponent_refused": 0.0}


@needs_textarena
def test_a_name_of_textarena_that_is_almost_right_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no game 'TicTacTo-v0'\. Did you mean 'TicTacToe-v0'"):
        TextArenaEnv("TicTacTo-v0")


@needs_gem
@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("game:GuessTheNumber-v0-easy", r"\boxed{3}"),
        ("game:Minesweeper-v0-easy", r"\boxed{reveal 0 0}"),
        ("rg:chain_sum", r"\boxed{3}"),
    ],
)
def test_real_environments_of_gem_keep_our_contract(name: str, action: str) -> None:
    level, handlers = logging.root.level, list(logging.root.handlers)
    report = agentrl.check_env(f"gem:{name}", actions=[action])
    assert not report.errors, str(report)
    assert (logging.root.level, logging.root.handlers) == (level, handlers)

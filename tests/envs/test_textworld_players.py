"""Players of TextWorld's families that see texts alone: on a house made of replies, and on real games."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from agentrl_envs.textworld import CoinCollector, Cooking, Planned, TextWorldEnv, TreasureHunter
from agentrl_envs.textworld.cook import Recipe, cook
from agentrl_envs.textworld.walker import collect_coin

if TYPE_CHECKING:
    from pathlib import Path

    from agentrl_envs.textworld import Game
    from agentrl_envs.textworld.walker import Plan

needs_textworld = pytest.mark.skipif(
    importlib.util.find_spec("textworld") is None, reason="the extra `textworld` is not installed"
)


def commands(plan: Plan, replies: dict[str, list[str]]) -> list[str]:
    """Play a plan against replies by command, the last of each for good; what it wrote."""
    player, done = Planned(plan), list[str]()
    while (command := player.act()) != "look":
        done.append(command)
        said = replies.get(command, ["You can't see any such thing."])
        player.observe(command, said[0] if len(said) == 1 else said.pop(0))
    return done


def test_a_coin_is_found_behind_a_dead_end_and_a_locked_door() -> None:
    replies = {
        "go north": ["-= Attic =-\nDusty. There is an exit to the south."],
        "go south": ["-= Hall =-\nExits to the north, east and west."],
        "go east": [
            "You have to open the oak door first.",
            "-= Vault =-\nA coin is here. You could leave to the west.",
        ],
        "open oak door": [
            "You have to unlock the oak door with the tin key first.",
            "You open the oak door.",
        ],
        "unlock oak door with tin key": ["You unlock the oak door."],
        "take coin": ["You pick up the coin from the ground."],
    }

    done = commands(
        collect_coin("Go and find a coin!\n\n-= Hall =-\nExits to the north, east and west."), replies
    )

    assert done == [
        *("go north", "go south"),  # the attic is a dead end
        *("go east", "open oak door", "unlock oak door with tin key", "open oak door", "go east"),
        "take coin",
    ]


def test_a_way_that_leads_nowhere_is_not_tried_again() -> None:
    replies = {
        "go north": ["You can't go that way."],
        "go west": ["-= Shed =-\nA coin. East is the way out."],
        "take coin": ["Taken."],
    }
    assert commands(collect_coin("-= Hall =-\nGo north, or west."), replies) == [
        "go north",
        "go west",
        "take coin",
    ]


PAGE = """You open the copy and start reading:

Recipe #1
---------
Gather all following ingredients and follow the directions to prepare this tasty meal.

Ingredients:
  carrot
  red apple

Directions:
  slice the carrot
  roast the carrot
  fry the red apple
  prepare meal
"""


def test_the_cook_fetches_cuts_and_heats_what_is_not_done_yet() -> None:
    kitchen = (
        "-= Kitchen =-\nA closed fridge, a stove, an oven. On the counter: a cookbook and a knife. Go east."
    )
    replies = {
        "inventory": ["You are carrying: a fried red apple and some sugar."],
        "examine cookbook": [PAGE],
        "open fridge": ["You open the fridge, revealing a carrot."],
        "take carrot": ["You're carrying too many things already.", "You take the carrot from the fridge."],
        "take knife": ["You're carrying too many things already.", "You take the knife from the counter."],
    }

    assert commands(cook(kitchen), replies) == [
        *("inventory", "examine cookbook", "open fridge"),
        *("take carrot", "drop sugar", "take carrot"),
        *(
            "take knife",
            "drop red apple",
            "take knife",
            "slice carrot with knife",
            "drop knife",
            "take red apple",
        ),
        "cook carrot with oven",
        *("prepare meal", "eat meal"),
    ]


def test_a_page_without_a_recipe_is_none() -> None:
    assert Recipe.read("You see nothing special about the cookbook.") is None


@pytest.mark.slow
@needs_textworld
@pytest.mark.parametrize(
    "game",
    [
        CoinCollector(level=5),
        CoinCollector(level=105),
        TreasureHunter(level=5),
        TreasureHunter(level=15),
        TreasureHunter(level=22),
        Cooking(recipe=2, take=1),
        Cooking(recipe=3, take=2, go=6, open=True, cook=True, cut=True, drop=True),
    ],
)
def test_every_family_is_won_from_texts_alone(game: Game, tmp_path: Path) -> None:
    env = TextWorldEnv(game, folder=tmp_path, valid_games=2, max_steps=120, expert="texts")
    env.prepare("valid_unseen", range(2), workers=2)
    for index in range(2):
        observation, _ = env.reset(options={"split": "valid_unseen", "index": index})
        player, info = env.expert(observation), dict[str, object]()
        assert player is not None
        while "success" not in info:
            command = player.act()
            observation, _, _, _, info = env.step(command)
            player.observe(command, observation)
        assert info["success"], f"{game} {index}: {env.walkthrough()}"
    env.close()

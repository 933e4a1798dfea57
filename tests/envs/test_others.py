"""Worlds of others by prefix, against the real packages."""

from __future__ import annotations

import importlib.util

import pytest

import agentrl
from agentrl.errors import ConfigError, MissingExtraError
from agentrl.testing.probe import global_randomness
from agentrl.world.registry import spec
from agentrl_envs.others.gym import GymnasiumTextEnv
from agentrl_envs.others.rg import ReasoningGymEnv

AT = {"split": "valid_seen", "index": 3}


@pytest.mark.parametrize("name", ["FrozenLake-v1", "Taxi-v4", "CliffWalking-v1", "Blackjack-v1"])
def test_toy_worlds_of_gymnasium_keep_our_contract(name: str) -> None:
    report = agentrl.check_env(f"gym:{name}", turns=40)
    assert not report.errors, str(report)


def test_a_lake_is_drawn_and_crossed() -> None:
    env = agentrl.make("gym:FrozenLake-v1", arguments={"is_slippery": False})
    observation, info = env.reset(seed=0, options=dict(AT))
    assert observation.splitlines()[0] == "[S]FFF"
    assert info == {"domain": "gym", "task_type": "FrozenLake-v1"}
    assert env.admissible() == ["left", "down", "right", "up"]
    refused = env.step("swim")
    assert (refused[1], refused[4]["valid"]) == (0.0, False)
    assert "left, down, right, up" in refused[0]
    results = [env.step(word) for word in ("down", "down", "right", "right", "down", "right")]
    assert results[-1][1:] == (1.0, True, False, {"valid": True, "success": True})
    assert "success" not in results[0][4]


def test_the_cliff_is_won_by_ending_although_no_reward_is_positive() -> None:
    env = agentrl.make("gym:CliffWalking-v1")
    env.reset(options=dict(AT))
    results = [env.step(word) for word in ("up", *["right"] * 11, "down")]
    assert results[-1][1:4] == (-1.0, True, False)
    assert results[-1][4]["success"] is True


def test_members_of_a_group_meet_the_same_chance() -> None:
    def play() -> list[str]:
        env = agentrl.make("gym:Blackjack-v1")
        seen = [env.reset(seed=5, options=dict(AT))[0]]
        while not (step := env.step("hit"))[2]:
            seen.append(step[0])
        return [*seen, step[0]]

    assert play() == play()
    assert len({agentrl.make("gym:Blackjack-v1").reset(options={"index": k})[0] for k in range(8)}) > 1


def test_an_episode_is_cut_and_counted() -> None:
    env = GymnasiumTextEnv("Taxi-v4", max_steps=2)
    env.reset(options=dict(AT))
    assert env.step("north")[2:4] == (False, False)
    _, _, terminated, truncated, info = env.step("fly")
    assert (terminated, truncated, info["success"]) == (False, True, False)


def test_what_cannot_be_worded_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has no environment 'FrozenLak-v1'.*Did you mean"):
        agentrl.make("gym:FrozenLak-v1")
    with pytest.raises(ConfigError, match="needs discrete or text actions"):
        agentrl.make("gym:Pendulum-v1")
    with pytest.raises(ConfigError, match=r"has 4 actions; got 1 words"):
        agentrl.make("gym:FrozenLake-v1", actions=["jump"])
    assert GymnasiumTextEnv("CartPole-v1").admissible() == ["0", "1"]


def test_a_prefix_is_an_entry_point_of_its_own_group() -> None:
    found = spec("gym:FrozenLake-v1")
    assert (found.source, found.kwargs) == (
        "agentrl_envs.others.gym:GymnasiumTextEnv", {"name": "FrozenLake-v1"},
    )  # fmt: skip
    assert spec("rg:countdown").kwargs == {"name": "countdown"}


needs_reasoning_gym = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="the extra `reasoning-gym` is not installed"
)


@needs_reasoning_gym
@pytest.mark.parametrize("family", ["countdown", "leg_counting", "chain_sum"])
def test_puzzles_are_asked_and_scored(family: str) -> None:
    before = global_randomness()
    env = agentrl.make(f"rg:{family}")
    for index in range(5):
        observation, _ = env.reset(options={"split": "train", "index": index})
        gold = env.gold()
        assert gold is not None
        assert observation == env.task.prompt
        assert env.step(gold)[1:4] == (1.0, True, False)
        env.reset(options={"split": "train", "index": index})
        _, reward, terminated, _, info = env.step("no idea")
        assert (reward < 1.0, terminated, info["success"]) == (True, True, False)
    assert global_randomness() == before
    report = agentrl.check_env(f"rg:{family}", skip=["gold"])
    assert not report.errors, str(report)


@needs_reasoning_gym
def test_puzzles_of_other_splits_differ_and_wrong_names_are_refused() -> None:
    env = ReasoningGymEnv("chain_sum", valid_tasks=5)
    prompts = [env.get_task(split, 0).prompt for split in env.splits]
    assert len(set(prompts)) == 3
    with pytest.raises(ConfigError, match=r"no family 'countdwn'\. Did you mean 'countdown'"):
        agentrl.make("rg:countdwn")
    with pytest.raises(ConfigError, match="refuses these settings of 'chain_sum'"):
        agentrl.make("rg:chain_sum", settings={"min_terms": -3})


def test_without_reasoning_gym_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        del name

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(MissingExtraError, match=r"agentrl\[reasoning-gym\]"):
        ReasoningGymEnv("countdown")

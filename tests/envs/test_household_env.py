"""The household as an environment: rewards, keys, snapshots, errors."""

from __future__ import annotations

import pickle

import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium_env

import agentrl_envs.household
from agentrl.errors import ConfigError, EnvironmentUsageError
from agentrl.testing.environment import check_env
from agentrl.trajectory.turn import digest
from agentrl.world.env import Task
from agentrl_envs.household import (
    ALFWORLD,
    SMALL,
    SPLITS,
    Expert,
    HouseholdEnv,
    HouseholdSettings,
    World,
    make_task,
)
from agentrl_envs.household.examples import example_task
from agentrl_envs.household.language import NOTHING
from agentrl_envs.household.tasks import LOOK_AT_OBJECT


class ExampleEnv(HouseholdEnv):
    """Every index is the example house."""

    def get_task(self, split: str, index: int) -> Task:
        household = example_task(LOOK_AT_OBJECT)
        return Task(split, index, World(household).intro(), {"household": household}, LOOK_AT_OBJECT)


def begun(*commands: str) -> ExampleEnv:
    env = ExampleEnv()
    env.reset(seed=0)
    for command in commands:
        env.step(command)
    return env


@pytest.mark.parametrize("split", SPLITS)
def test_the_expert_earns_one_and_ends_the_episode(split: str) -> None:
    env = HouseholdEnv()
    for index in range(20):
        observation, info = env.reset(options={"split": split, "index": index})
        assert info["task_type"] == make_task(SMALL, split, index).goal.task_type
        expert = Expert(observation)
        rewards: list[float] = []
        conditions = 0.0
        terminated = False
        while not terminated:
            command = expert.act()
            observation, reward, terminated, truncated, info = env.step(command)
            expert.observe(command, observation)
            assert not truncated
            assert info["valid"] is True
            assert info["success"] is terminated
            rewards.append(reward)
            rewarded = info["rewards"]
            assert isinstance(rewarded, dict)
            conditions += rewarded["goal_conditions"]
        assert conditions == pytest.approx(1.0)
        assert rewards == [0.0] * (len(rewards) - 1) + [1.0]
        with pytest.raises(EnvironmentUsageError, match=r"reset\(\)"):
            env.step("look")


def test_a_refused_command_is_marked_and_costs_nothing() -> None:
    observation, reward, terminated, truncated, info = begun().step("dance")
    assert (observation, reward, terminated, truncated) == (NOTHING, 0.0, False, False)
    nothing = {"goal_conditions": 0.0}
    assert info == {"valid": False, "success": False, "rewards": nothing, "task_type": LOOK_AT_OBJECT}


def test_the_seed_draws_the_task() -> None:
    env = HouseholdEnv()
    intros = [env.reset(seed=seed)[0] for seed in (1, 2, 1)]
    assert intros[0] == intros[2] != intros[1]


def test_splits_and_sizes() -> None:
    env = HouseholdEnv()
    assert env.list_splits() == SPLITS
    assert [env.num_tasks(split) for split in SPLITS] == [2**31, 1024, 1024]
    assert env.get_task("valid_seen", 3).id == "valid_seen/3"


def test_settings_by_name_and_by_value() -> None:
    assert HouseholdEnv("alfworld").settings is ALFWORLD
    two_rooms = HouseholdSettings(rooms=("kitchen", "bedroom"))
    assert HouseholdEnv(two_rooms).settings is two_rooms
    with pytest.raises(ConfigError, match=r"'huge'; the presets are two_rooms, small, medium, alfworld"):
        HouseholdEnv("huge")


def test_the_share_of_randomized_houses_can_be_set_beside_a_preset() -> None:
    assert HouseholdEnv("two_rooms", randomized=0.25).settings.randomized == 0.25
    assert HouseholdEnv("two_rooms").settings.randomized == 0.0
    with pytest.raises(ConfigError, match="share"):
        HouseholdEnv(randomized=-1)
    with pytest.raises(ConfigError, match="got 'half'"):
        HouseholdEnv(randomized="half")  # type: ignore[arg-type]  # as a settings file may


def test_instructions_are_optional() -> None:
    assert HouseholdEnv().system_text() == ""
    assert "take (object) from (receptacle)" in HouseholdEnv(instructions=True).system_text()


def test_it_asks_for_a_reset_first() -> None:
    env = HouseholdEnv()
    for ask in (env.state_key, env.observation_key, env.admissible, env.snapshot):
        with pytest.raises(EnvironmentUsageError, match=r"call reset\(\) first"):
            ask()
    with pytest.raises(EnvironmentUsageError, match=r"needs what snapshot\(\) returned"):
        env.restore({})


def test_gymnasium_accepts_it() -> None:
    check_gymnasium_env(HouseholdEnv(), skip_render_check=True)


def test_the_package_names_what_it_lacks() -> None:
    with pytest.raises(AttributeError, match="HouseholdEnvironment"):
        _ = agentrl_envs.household.HouseholdEnvironment


# -- keys ------------------------------------------------------------------------------------------


def test_errors_and_idle_commands_keep_the_observation_key() -> None:
    env = begun("go to sidetable 1")
    key = env.observation_key()
    for command in (
        "dance",
        "go to sidetable 1",
        "look",
        "inventory",
        "help",
        "examine book 1",
        "examine sidetable 1",
    ):
        env.step(command)
        assert env.observation_key() == key


def test_what_the_agent_learns_or_does_changes_the_observation_key() -> None:
    env = begun()
    keys = [env.observation_key()]
    for command in (
        "go to fridge 1",
        "open fridge 1",
        "take egg 1 from fridge 1",
        "cool egg 1 with fridge 1",
        "close fridge 1",
        "go to microwave 1",
        "heat egg 1 with microwave 1",
        "go to sidetable 1",
        "use desklamp 1",
    ):
        env.step(command)
        keys.append(env.observation_key())
    assert len(set(keys)) == len(keys)


def test_the_observation_key_knows_only_what_was_read() -> None:
    # Elsewhere the egg is hot in one world only; the key of what is in view here is the same.
    warm = begun("go to fridge 1", "open fridge 1", "take egg 1 from fridge 1", "go to microwave 1")
    warm.step("heat egg 1 with microwave 1")
    for command in ("go to fridge 1", "move egg 1 to fridge 1", "go to countertop 1"):
        warm.step(command)
    cold = begun("go to fridge 1", "open fridge 1", "go to countertop 1")
    assert warm.observation_key() == cold.observation_key()
    assert warm.state_key() != cold.state_key()


def test_two_paths_to_one_state_share_both_keys() -> None:
    direct = begun("go to fridge 1", "go to countertop 1", "take mug 1 from countertop 1")
    detour = begun("go to cabinet 1", "look", "go to countertop 1", "take apple 1 from countertop 1")
    for command in ("move apple 1 to countertop 1", "dance", "take mug 1 from countertop 1"):
        detour.step(command)
    assert direct.observation_key() == detour.observation_key()
    assert direct.state_key() == detour.state_key()


def test_keys_have_digests() -> None:
    env = begun("go to sidetable 1", "use desklamp 1")
    assert digest(env.observation_key()) != digest(env.state_key())


def test_there_is_no_gold_answer() -> None:
    assert begun().gold() is None


# -- snapshots -------------------------------------------------------------------------------------


def test_restoring_brings_the_episode_back_here_and_elsewhere() -> None:
    env = begun("go to fridge 1", "open fridge 1")
    snapshot = pickle.loads(pickle.dumps(env.snapshot()))
    told = (env.state_key(), env.observation_key(), env.admissible(), env.render(), env.rng.random())
    env.step("take egg 1 from fridge 1")
    for other in (env, ExampleEnv(), HouseholdEnv()):
        other.restore(snapshot)
        again = (
            other.state_key(),
            other.observation_key(),
            other.admissible(),
            other.render(),
            other.rng.random(),
        )
        assert again == told
        assert other.step("take egg 1 from fridge 1")[0] == "You pick up the egg 1 from the fridge 1."


def test_a_snapshot_does_not_change_with_the_episode() -> None:
    env = begun("go to fridge 1")
    snapshot = env.snapshot()
    key = env.observation_key()
    env.step("open fridge 1")
    env.restore(snapshot)
    assert env.observation_key() == key


def test_a_finished_episode_stays_finished_when_restored() -> None:
    env = begun("go to sidetable 1", "take book 1 from sidetable 1")
    assert env.step("use desklamp 1")[2]
    snapshot = env.snapshot()
    env.reset(seed=1)
    env.restore(snapshot)
    with pytest.raises(EnvironmentUsageError, match="ended"):
        env.step("look")


# -- the contract -----------------------------------------------------------------------------------


def solution(split: str, index: int) -> list[str]:
    world = World(make_task(SMALL, split, index))
    expert = Expert(world.intro())
    commands = ["dance"]
    while not world.won():
        commands.append(expert.act())
        expert.observe(commands[-1], world.do(commands[-1]))
    return commands


@pytest.mark.parametrize("split", SPLITS)
def test_it_keeps_the_contract_of_environments(split: str) -> None:
    actions = solution(split, 0)
    check_env(HouseholdEnv, tasks=[(split, 0)], actions=actions, turns=len(actions)).raise_if_failed()

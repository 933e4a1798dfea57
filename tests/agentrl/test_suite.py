"""Evaluation suites: who plays, what is counted, what a comparison refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, ClassVar

import pytest

import agentrl
from agentrl.config import load
from agentrl.errors import ConfigError, PolicyError, RegistryError, RunDirectoryError
from agentrl.policy.scripted import RandomPolicy, ScriptedPolicy
from agentrl.rollout.easy import collect
from agentrl.run.compare import compare
from agentrl.run.evaluate import evaluate
from agentrl.run.players import player_of
from agentrl.run.scenarios import find
from agentrl.run.settings import TrainSettings
from agentrl.run.suite import EvaluationSuite
from agentrl.trajectory import Trajectory
from agentrl.trajectory.store import read_journal
from agentrl.world.env import TextEnv

if TYPE_CHECKING:
    from pathlib import Path

    from agentrl.world.env import StepResult


class Door(TextEnv):
    """Opens for "open door" on even tasks; on odd ones for "push" only. An error in task 7."""

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def num_tasks(self, split: str) -> int:
        self._check_split(split)
        return 10

    def step(self, action: str) -> StepResult:
        if self.task.index == 7:
            raise RuntimeError("the hinge broke")
        opened = action == ("push" if self.task.index % 2 else "open door")
        info: dict[str, object] = {"success": opened, "sandbox_tier": "landlock"}
        return "It opens." if opened else "It stays.", float(opened), True, False, info

    def admissible(self) -> list[str]:
        return ["open door", "push"]


class MuteDoor(Door):
    """Never says that it was a success."""

    def step(self, action: str) -> StepResult:
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {"sucess": True}


class ProudDoor(Door):
    """Says only that it was a success."""

    def step(self, action: str) -> StepResult:
        *rest, info = super().step(action)
        return *rest, info if info["success"] else {}  # type: ignore[return-value]  # the same five


WORLD = f"{__name__}:Door"
MUTE = f"{__name__}:MuteDoor"
PROUD = f"{__name__}:ProudDoor"


def suite(tasks: int = 6, **scenario: object) -> EvaluationSuite:
    content = {
        "name": "doors",
        "policies": ["random"],
        "processes": 1,
        "environment": {"id": "doors/Door-v0"},
        "scenario": [{"split": "test", "tasks": tasks, **scenario}],
    }
    return EvaluationSuite.model_validate(content)


@pytest.fixture(autouse=True)
def registered() -> None:
    agentrl.register("doors/Door-v0", Door)


def opener() -> ScriptedPolicy:
    return ScriptedPolicy(["open door"], name="opener")


def test_success_is_counted_by_task_with_an_interval() -> None:
    evaluation = evaluate(suite(), opener())
    row = evaluation.row("opener")
    # Tasks 0, 2, 4 of six open: Wilson's interval of 3 out of 6 is [0.188, 0.812].
    assert (row.success.mean, row.success.n_tasks) == (0.5, 6)
    assert row.success.low == pytest.approx(0.188, abs=1e-3)
    assert row.success.high == pytest.approx(0.812, abs=1e-3)
    assert "50.0% [18.8%, 81.2%]" in str(evaluation)


def test_several_rollouts_give_pass_at_k_clustered_by_task() -> None:
    row = evaluate(suite(rollouts=4)).row("random")
    assert row.success.n_tasks == 6
    assert row.success.n_rollouts == 24
    assert sorted(row.pass_at) == [1, 2, 4]
    assert row.pass_at[1] == pytest.approx(row.success.mean)
    assert row.pass_at[1] <= row.pass_at[2] <= row.pass_at[4]


def test_a_failed_rollout_is_a_column_of_its_own_and_no_zero() -> None:
    lenient = suite(tasks=8).model_copy(update={"most_invalid": 0.5})
    row = evaluate(lenient, opener()).row("opener")
    assert row.counts()["infrastructure"] == 1
    assert row.success.n_tasks == 7
    assert row.success.mean == pytest.approx(4 / 7)
    assert row.worst_case().mean == pytest.approx(4 / 8)


def test_scripted_players_play_once_and_policy_objects_in_every_mode() -> None:
    evaluation = evaluate(suite(), ["random", RandomPolicy(name="mine")])
    assert [(row.policy, row.mode) for row in evaluation.rows] == [
        ("random", "sampled"),
        ("mine", "sampled"),
        ("mine", "greedy"),
    ]


def test_the_same_suite_gives_the_same_outcomes_on_one_shard_or_three() -> None:
    one, three = (
        evaluate(suite(rollouts=2).model_copy(update={"shards": count})).row("random").verdict.outcomes
        for count in (1, 3)
    )
    assert one == three


def test_an_environment_is_evaluated_without_a_suite() -> None:
    assert (
        evaluate("doors/Door-v0", "random", split="test", tasks=4, rollouts=2).row("random").success.n_tasks
        == 4
    )


def test_the_folder_holds_the_numbers_and_every_trajectory(tmp_path: Path) -> None:
    evaluation = evaluate(suite(), out=tmp_path / "doors")
    content = json.loads((tmp_path / "doors" / "eval.json").read_text())
    assert content["rows"][0]["success"]["mean"] == evaluation.rows[0].success.mean
    assert content["rows"][0]["sandbox_tiers"] == ["landlock"]
    assert content["versions"]["agentrl"] == agentrl.__version__
    journal = read_journal(tmp_path / "doors" / "trajectories")
    assert len(journal.trajectories) == 6
    assert {item.policy for item in journal.trajectories} == {"random"}
    with pytest.raises(RunDirectoryError, match="already holds an evaluation"):
        evaluate(suite(), out=tmp_path / "doors")


def test_success_that_no_episode_says_is_unknown_and_no_zero(tmp_path: Path) -> None:
    mute = suite().model_copy(update={"environment": suite().environment.model_copy(update={"id": MUTE})})
    evaluation = evaluate(mute, opener(), out=tmp_path / "mute")
    row = evaluation.row("opener")
    assert (row.verdict.unknown, row.counts()["unjudged"], row.success.n_tasks) == (True, 6, 6)
    assert row.cells()[4] == "-"
    assert 'opener test sampled: 6 of 6 episodes ended without info["success"]' in str(evaluation)
    assert "the mean reward is 0.5" in str(evaluation)
    assert evaluation.below(0.0) == list(evaluation.rows)
    content = json.loads((tmp_path / "mute" / "eval.json").read_text())["rows"][0]
    assert content["success"] == {"mean": None, "low": None, "high": None, "tasks": 6, "rollouts": 6}
    assert (content["failed_counted_as_zero"]["mean"], content["pass_at"], content["outcomes"]) == (
        None,
        {},
        {},
    )
    assert content["by_type"]["all"]["mean"] is None
    with pytest.raises(ConfigError, match=r"the success of opener is unknown.*Let the world set it"):
        compare(tmp_path / "mute", tmp_path / "mute")


def test_a_world_that_names_only_its_successes_is_taken_at_its_word() -> None:
    verdict = evaluate(PROUD, opener(), split="test", tasks=6).rows[0].verdict
    assert (verdict.success.mean, verdict.unjudged, verdict.unknown) == (0.5, 3, False)


def test_a_comparison_is_paired_by_task(tmp_path: Path) -> None:
    evaluate(suite(), ScriptedPolicy(["wait"], name="waiter"), out=tmp_path / "a")
    evaluate(suite(), opener(), out=tmp_path / "b")
    sampled, greedy = compare(tmp_path / "a", tmp_path / "b")
    assert (sampled.before, sampled.after, sampled.mode, greedy.mode) == (
        "waiter",
        "opener",
        "sampled",
        "greedy",
    )
    assert sampled.paired.difference == 0.5
    # Three tasks gained, none lost: McNemar's exact p is 2 / 2^3; Holm doubles it for two comparisons.
    assert sampled.paired.p_value == pytest.approx(0.25)
    assert sampled.corrected == pytest.approx(0.5)


def test_a_comparison_refuses_other_tasks_other_worlds_and_unclear_policies(tmp_path: Path) -> None:
    evaluate(suite(), ["random", opener()], out=tmp_path / "a")
    evaluate(suite(tasks=4), "random", out=tmp_path / "b")
    evaluate(WORLD, opener(), split="test", tasks=6, out=tmp_path / "c")
    with pytest.raises(ConfigError, match=r"test/4.* only before"):
        compare(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ConfigError, match="same environment"):
        compare(tmp_path / "a", tmp_path / "c")
    with pytest.raises(ConfigError, match="choose one with --policy-before"):
        compare(tmp_path / "a", tmp_path / "a", policy_after="opener")
    with pytest.raises(ConfigError, match="Did you mean 'opener'"):
        compare(tmp_path / "a", tmp_path / "a", policy_after="openr")
    with pytest.raises(ConfigError, match="agentrl eval"):
        compare(tmp_path / "nothing", tmp_path / "a")


def test_a_gate_looks_at_the_lower_bound() -> None:
    evaluation = evaluate(suite(threshold=0.9), ["random", opener()])
    low = evaluation.row("opener").success.low
    assert [row.policy for row in evaluation.below(low + 0.01, ["opener"])] == ["opener", "opener"]
    assert evaluation.below(low - 0.01, ["opener"]) == []
    assert {row.policy for row in evaluation.below(None)} == {"random", "opener"}


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ({"split": "tset"}, "has train, test"),
        ({"tasks": 11}, "lower its tasks"),
        ({"first_task": 9}, "0? ?to 14"),
    ],
)
def test_tasks_that_a_world_does_not_have_are_refused(scenario: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate(suite(**{"tasks": 6, **scenario}))  # type: ignore[arg-type]  # tasks is an int


def test_unknown_policies_and_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'expert'"):
        player_of("exprt")
    with pytest.raises(PolicyError, match="no model folder"):
        evaluate(suite(), "hf:./nowhere")
    (tmp_path / "checkpoints" / "trained" / "model").mkdir(parents=True)
    (tmp_path / "run.toml").write_text("[settings.model]\ncontext = 99\n")
    with pytest.raises(RunDirectoryError, match="Did you mean 'trained'"):
        player_of(f"{tmp_path}:traind")
    player = player_of(str(tmp_path))
    assert player.folder == tmp_path / "checkpoints" / "trained" / "model"
    assert player.shape is not None
    assert player.shape.context == 99


def test_two_scenarios_of_one_name_are_refused() -> None:
    twice = [{"split": "test"}, {"split": "test"}]
    with pytest.raises(ValueError, match="two scenarios are called 'test'"):
        EvaluationSuite.model_validate({"environment": {"id": "doors/Door-v0"}, "scenario": twice})


def test_the_household_is_judged_as_it_is_trained() -> None:
    trained = load(TrainSettings, find("household/train"))
    judged = load(EvaluationSuite, find("household/eval"))
    assert judged.environment == trained.environment
    assert judged.limits == trained.limits
    assert judged.model.context == trained.model.context


def test_a_suite_without_models_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from agentrl.run.cli import run\n"
        "code = run(['eval', 'household/eval', 'scenario.0.tasks=2', 'scenario.1.tasks=2'])\n"
        "assert code == 0; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n")
    assert list(tmp_path.glob("runs/eval-household-*/eval.json"))


# -- agentrl.collect -----------------------------------------------------------------------------------------


def successes(results: object) -> list[bool | None]:
    assert isinstance(results, list)
    return [item.success for item in results if isinstance(item, Trajectory)]


def test_collect_takes_a_class_an_instance_or_an_id() -> None:
    for world in (Door, Door(), "doors/Door-v0"):
        assert successes(collect(world, opener(), split="test", tasks=3)) == [True, False, True]


def test_collect_takes_indices_members_and_a_seed() -> None:
    results = collect(Door, "random", tasks=[2, 5], members=3, seed=4)
    assert [item.task for item in results] == ["train/2"] * 3 + ["train/5"] * 3
    again = collect(Door, "random", tasks=[2, 5], members=3, seed=4)
    assert successes(results) == successes(again)


def test_collect_says_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="there is no split 'tset'"):
        collect(Door, "random", split="tset")
    with pytest.raises(ConfigError, match="has 10 tasks"):
        collect(Door, "random", tasks=11)
    with pytest.raises(PolicyError, match="names no policy"):
        collect(Door, "rnadom")
    with pytest.raises(PolicyError, match="no expert"):
        collect(Door, "expert")
    with pytest.raises(RegistryError, match="Did you mean"):
        collect("doors/Dor-v0", "random")

"""What each part of a run does: slots, optimizers, controls, demonstrations, its figures."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
import pytest

from agentrl.credit.advantage import Relative, one, over_past_mean
from agentrl.credit.keep import NoVoid, no_parsed_action
from agentrl.credit.objective import Members, Regression
from agentrl.credit.peers import same_observation
from agentrl.errors import (
    ConfigError,
    MissingColumnError,
    RolloutError,
)
from agentrl.learn.optimizer import AdamW
from agentrl.policy.load import load_model
from agentrl.policy.scripted import ScriptedPolicy
from agentrl.recipes import DAPO, GIGPO_VERL_AGENT, GRPO, REG_GRPO
from agentrl.rollout.demonstrate import demonstrate
from agentrl.run.commands.training import headlines
from agentrl.run.reinforce import minibatches
from agentrl.run.train import train
from agentrl.testing.worlds import WordWorld
from agentrl.trajectory.store import read_journal
from agentrl.world import Tags, TextEnv
from agentrl.world.tool import tool
from tests.agentrl.training import WORLD, Fails, rl, rows, tiny, weights

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from agentrl.world.env import StepResult


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this file importable under a name, for the registry."""
    import sys

    monkeypatch.setitem(sys.modules, "tests_of_train", sys.modules[__name__])


@pytest.fixture(scope="module")
def verl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything on: reference, truncated draws, two passes in two minibatches, a control."""
    folder = tmp_path_factory.mktemp("verl") / "run"
    algorithm = replace(GIGPO_VERL_AGENT, epochs=2, minibatches=2)
    train(
        tiny(reproducible=False, control={"enabled": True}, rl=rl(top_p=0.8, steps=3)),
        algorithm=algorithm, out=folder,
    )  # fmt: skip
    return folder


def test_the_reference_is_the_warm_start(verl: Path) -> None:
    first, *later = rows(verl)
    assert first["kl_to_reference"] == pytest.approx(0.0, abs=1e-9)
    assert later[-1]["kl_to_reference"] > 1e-7
    assert all(row["loss_KlToReference"] >= 0 for row in rows(verl))


def test_every_pass_takes_every_minibatch(verl: Path) -> None:
    assert [row["optimizer_steps"] for row in rows(verl)] == [4.0] * 3


class Said(WordWorld):
    """Names a component of its reward: a point for every turn."""

    def step(self, action: str) -> StepResult:
        """Answer as the world does."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "rewards": {"said": 1.0}}


@pytest.mark.usefixtures("few")
def test_named_components_join_the_reward(tmp_path: Path) -> None:
    def run(name: str, **weights: float) -> Path:
        train(
            tiny(environment={"id": "tests_of_train:Said"}, rl=rl(rewards=weights, steps=1)),
            algorithm=GRPO, out=tmp_path / name,
        )  # fmt: skip
        return tmp_path / name

    with pytest.raises(ValueError, match="finite number"):
        run("infinite", said=float("nan"))
    with pytest.raises(MissingColumnError, match="reads 'reward:sad'"):
        run("refused", sad=1.0)
    card = tomllib.loads((run("run", said=0.5) / "run.toml").read_text())["algorithm"]["reward"]
    own, added = card["terms"]
    assert own["part"].endswith("EnvironmentReward")
    assert (added["weight"], added["reward"]["name"]) == (0.5, "said")


SEEN: list[float] = []


@dataclass(frozen=True)
class Watched(Regression):
    """Notes how far the policy has moved whenever slopes are computed."""

    def slope(self, members: Members, /) -> NDArray[np.float64]:
        SEEN.append(float(np.abs(members.log_ratio).max()))
        return super().slope(members)


def test_objectives_over_groups_see_the_policy_of_each_step(tmp_path: Path) -> None:
    SEEN.clear()
    algorithm = replace(REG_GRPO, advantage=Watched(), keep=GRPO.keep, epochs=2)
    train(tiny(processes=1, rl=rl(steps=1)), algorithm=algorithm, out=tmp_path / "run")
    assert [row["optimizer_steps"] for row in rows(tmp_path / "run")] == [2.0]
    groups = len(SEEN) // 2
    assert max(SEEN[:groups]) == 0.0
    assert max(SEEN[-groups:]) > 0.0


def test_columns_measured_by_a_helper_are_the_same_bits(tmp_path: Path) -> None:
    algorithm = replace(GIGPO_VERL_AGENT, minibatches=2)
    for processes in (1, 2):
        train(tiny(processes=processes, rl=rl(top_p=0.8)), algorithm=algorithm, out=tmp_path / str(processes))
    assert weights(tmp_path / "1") == weights(tmp_path / "2") != weights(tmp_path / "1", "warm-start")


def test_health_is_measured_each_step(verl: Path) -> None:
    for row in rows(verl):
        names = {
            "entropy", "kl", "clip_share", "clip_share_turn_0", "clip_share_turn_2", "logprob_gap",
            "anchored_share", "anchor_group_size", "void_share", "invalid_share", "dropped_share",
            "empty_batches",
        }  # fmt: skip
        assert names <= row.keys()
        assert row["entropy"] > 0
        assert row["dropped_share"] == 0.0
        assert row["void_share"] == row["invalid_share"]
        assert row["void_share"] <= row["void_trajectory_share"] <= 1.0
        # The draws were renormalised over 0.8 of the mass or more; the ratios begin at 1 all the same.
        assert 0.001 < row["logprob_gap"] < -np.log(0.8) + 1e-3
        assert row["logprob_gap_max"] < 1e-4


def test_samples_show_the_parts_and_the_algorithms_own_anchors(verl: Path) -> None:
    samples = [json.loads(line) for line in (verl / "samples.jsonl").read_text().splitlines()]
    turns = [turn for sample in samples for turn in sample["turns"]]
    for turn in turns:
        assert set(turn["advantage_parts"]) == {"episode", "step"}
        assert sum(turn["advantage_parts"].values()) == pytest.approx(turn["advantage"], abs=1e-9)
    for sample in samples:
        for turn, beside in zip(sample["turns"], samples[0]["turns"], strict=False):
            if sample["group"] == samples[0]["group"] and sample["step"] == samples[0]["step"]:
                same = turn["observation"] == beside["observation"]
                assert not same or turn["anchor"] == beside["anchor"]


def test_the_control_spends_what_reinforcement_spent_and_decays_over_it(verl: Path) -> None:
    summary = json.loads((verl / "summary.json").read_text())
    spent = summary["cpu_seconds"]
    steps = rows(verl, "control")
    longest = spent["control"] / max(steps[-1]["step"], 1) * 5 + 0.05
    assert spent["rl"] <= spent["control"] < spent["rl"] + longest
    rates = [row["learning_rate"] for row in steps]
    assert rates[-1] == min(rates)
    assert rates[-1] < 0.2 * 3e-3  # the warm start's rate falls to a twentieth of 3e-3


def test_the_run_says_which_optimizer_was_in_effect(verl: Path) -> None:
    card = tomllib.loads((verl / "run.toml").read_text())
    assert card["algorithm"]["optimizer"]["lr"]["peak"] == 4e-4
    assert {row["learning_rate"] for row in rows(verl)} != {1e-6}


def test_without_a_setting_the_algorithms_own_optimizer_steps(tmp_path: Path) -> None:
    algorithm = replace(GRPO, optimizer=AdamW(lr=3e-5))
    train(tiny(rl=rl(optimizer=None)), algorithm=algorithm, out=tmp_path)
    assert {row["learning_rate"] for row in rows(tmp_path)} == {3e-5}


def test_minibatches_are_disjoint_complete_and_reproducible() -> None:
    algorithm = replace(GRPO, epochs=2, minibatches=3)
    found = [mask for mask in minibatches(algorithm, 8, [1, 3, 0]) if mask is not None]
    again = [mask for mask in minibatches(algorithm, 8, [1, 3, 0]) if mask is not None]
    assert len(found) == 6
    for first in (0, 3):
        assert (np.sum(found[first : first + 3], axis=0) == 1).all()
    assert all((one == other).all() for one, other in zip(found, again, strict=True))
    assert any((found[k] != found[k + 3]).any() for k in range(3))
    assert list(minibatches(GRPO, 8, [1, 3, 0])) == [None]


def test_one_step_on_two_passes_is_two_steps_on_the_same_old_probabilities(tmp_path: Path) -> None:
    # The second pass moves away from what was drawn: its ratios leave 1, the first pass's do not.
    train(tiny(rl=rl(steps=1, optimizer={"warmup": 0.0})), algorithm=replace(GRPO, epochs=3), out=tmp_path)
    (row,) = rows(tmp_path)
    assert row["optimizer_steps"] == 3.0
    assert row["logprob_gap"] < 1e-4
    assert row["kl"] > 1e-9


def test_the_past_mean_of_a_task_is_a_column(tmp_path: Path) -> None:
    algorithm = replace(GRPO, advantage=Relative(over_past_mean, scale=one))
    done = train(tiny(), algorithm=algorithm, out=tmp_path)
    assert len(rows(tmp_path)) == 2
    assert done.summary["steps"] == {"taken": 2, "empty": 0}
    assert "changed the weights" not in "\n".join(headlines(done))


def test_batches_of_which_nothing_is_left_are_skipped_and_counted(tmp_path: Path) -> None:
    algorithm = replace(DAPO, keep=NoVoid(in_baseline=False) & DAPO.keep)
    done = train(tiny(warm_start={"demonstrations": 0}), algorithm=algorithm, out=tmp_path)
    assert done.summary["steps"] == {"taken": 2, "empty": 2}
    assert "None of the 2 steps of reinforcement changed the weights" in "\n".join(headlines(done))
    assert [row["empty_batches"] for row in rows(tmp_path)] == [1, 2]
    assert [row["empty_steps"] for row in rows(tmp_path)] == [1.0, 1.0]
    assert [row["dropped_share"] for row in rows(tmp_path)] == [1.0, 1.0]
    assert weights(tmp_path) == weights(tmp_path, "warm-start")


def test_void_turns_are_those_of_the_filter(tmp_path: Path) -> None:
    algorithm = replace(GRPO, keep=NoVoid(no_parsed_action, scope="turn"))
    train(tiny(), algorithm=algorithm, out=tmp_path)
    for row in rows(tmp_path):
        assert row["void_share"] == 0.0
        assert row["invalid_share"] > 0.0


def test_a_warm_start_made_before_is_taken_over(tmp_path: Path) -> None:
    first = train(tiny(control={"enabled": True, "steps": 2}), out=tmp_path / "first").path
    for number, path in enumerate((first, first / "checkpoints" / "warm-start" / "model")):
        warm = {"demonstrations": 6, "noise": 0.0, "batch": 3, "evaluate_every": 0, "path": str(path)}
        again = train(
            tiny(warm_start=warm, control={"enabled": True, "steps": 2}), out=tmp_path / f"again{number}"
        ).path
        assert not rows(again, "warm_start")
        for name in ("warm-start", "trained", "control"):
            assert weights(again, name) == weights(first, name)
        tokenizers = {
            (folder / "model" / "tokenizer.json").read_text()
            for folder in (first / "checkpoints" / "trained", again / "checkpoints" / "trained")
        }
        assert len(tokenizers) == 1


def test_the_journal_holds_every_rollout_once(verl: Path) -> None:
    journal = read_journal(verl / "trajectories" / "rl.jsonl.zst")
    assert len({item.id for item in journal.trajectories}) == len(journal.trajectories) == 3 * 2 * 3


class Shelf(TextEnv):
    """A world of one tool, which writes its turns in tags."""

    @tool
    def say(self, word: str) -> str:
        """Say a word.

        Args:
            word: the word.
        """
        self.finish(float(word == "lamp"))
        return "Over."


def test_the_protocol_is_the_worlds_own_unless_named(few: None) -> None:
    from agentrl.run.settings import EnvironmentSettings
    from agentrl.run.shard import protocol_of
    from agentrl.world import JsonCalls, PlainText
    from agentrl.world.registry import make

    del few

    def chosen(world: str, name: str = "auto") -> object:
        return protocol_of(EnvironmentSettings(id=world, protocol=name), make(world))

    assert chosen(WORLD) == PlainText()
    assert chosen("tests_of_train:Shelf") == Tags()
    assert chosen("tests_of_train:Shelf", "json") == JsonCalls()
    assert chosen(WORLD, "plain") == PlainText()
    with pytest.raises(ConfigError, match="Did you mean 'auto'"):
        chosen(WORLD, "aut")


class Mute(WordWorld):
    """Never says whether it was a success."""

    def step(self, action: str) -> StepResult:
        """Answer as the world does."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {"valid": info["valid"]}


@pytest.mark.usefixtures("few")
def test_success_that_no_episode_says_is_unknown_and_no_zero(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = {"curve_tasks": 2, "final_tasks": 3}
    settings = tiny(
        environment={"id": "tests_of_train:Mute"}, control={"enabled": True, "steps": 1},
        rl=rl(steps=1, evaluate_every=1), evaluation=evaluation,
    )  # fmt: skip
    done = train(settings, out=tmp_path / "run")
    assert 'ended without info["success"]' in caplog.text
    assert [row["success"] for row in rows(done.path)] == [None]
    assert {row["success"]["mean"] for row in rows(done.path, "evaluation")} == {None}  # type: ignore[index]  # an object
    final = cast("dict[str, object]", done.summary["final"])
    assert (final["success"], final["ci"], final["unjudged"]) == (None, [None, None], 3)
    assert final["reward"] != 0.0
    assert not {"lift", "lift_over_control"} & set(done.summary)
    assert done.summary["best"] is None
    assert "-  (3 of 3 episodes ended without" in "\n".join(headlines(done))
    assert "nan" not in done.report.read_text().lower().replace("nanotron", "")


class Guarded(Shelf):
    """Its own step stands around the inherited one."""

    def step(self, action: str) -> StepResult:
        """Call the tool."""
        return super().step(action)


def test_a_protocol_that_every_turn_would_break_is_refused(few: None, tmp_path: Path) -> None:
    from agentrl.run.evaluate import evaluate
    from agentrl.run.suite import EvaluationSuite

    del few

    def judged(world: str, name: str) -> float:
        suite = {"environment": {"id": world, "protocol": name}, "scenario": [{"split": "train", "tasks": 1}]}
        done = evaluate(EvaluationSuite.model_validate(suite), ScriptedPolicy(["<say>lamp</say>"]))
        return done.rows[0].success.mean

    for name in ("tags", "fenced", "json", "native"):
        with pytest.raises(ConfigError, match=rf"{name}', and {WORLD} reads plain text and has no tools"):
            judged(WORLD, name)
    with pytest.raises(ConfigError, match=r"Shelf reads calls of its tools, never plain text.*auto, tags"):
        judged("tests_of_train:Shelf", "plain")
    assert judged("tests_of_train:Guarded", "tags") == 1.0
    with pytest.raises(ConfigError, match="reads plain text"):
        train(tiny(environment={"id": WORLD, "protocol": "tags"}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("world", ["agentrl/SearchQA-v0", "agentrl/SQL-v0", "agentrl/Code-v0"])
def test_our_worlds_of_tools_read_every_form_of_calls(world: str) -> None:
    from agentrl.run.settings import EnvironmentSettings
    from agentrl.run.shard import protocol_of
    from agentrl.world.registry import make

    env = make(world)
    for name in ("auto", "tags", "fenced", "json", "native"):
        protocol_of(EnvironmentSettings(id=world, protocol=name), env)
    with pytest.raises(ConfigError, match="never plain text"):
        protocol_of(EnvironmentSettings(id=world, protocol="plain"), env)
    env.close()


class Vault(TextEnv):
    """A door that only its expert opens in time; every random command locks it for good."""

    locks: ClassVar[int] = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        super().reset(seed=seed, options=options)
        self.pushed, self.locked = 0, False
        return "A door.", {}

    def admissible(self) -> tuple[str, ...]:
        return ("lock",)

    def expert(self, observation: str) -> Pusher:
        del observation
        return Pusher()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, object]]:
        if action == "lock":
            Vault.locks += 1
            self.locked = True
        self.pushed += 1
        over = self.pushed == 4
        return "A door.", float(over), over, False, {"success": over and not self.locked}


class Pusher:
    """Pushes."""

    def act(self) -> str:
        return "push"

    def observe(self, command: str, feedback: str) -> None:
        """There is nothing to see."""


def test_disturbances_that_lock_the_goal_are_drawn_again() -> None:
    Vault.locks = 0
    shown = demonstrate(Vault(), "train", [0, 0], noise=0.25, seed=0)
    assert all(turn.action == "push" for item in shown for turn in item.turns)
    assert Vault.locks > 0
    assert shown[0] == shown[1]
    with pytest.raises(RolloutError, match=r"6 draws of its disturbances.*warm_start\.noise, now 0\.99"):
        demonstrate(Vault(), "train", [0], noise=0.99, seed=0)


def test_names_stay_whole_in_the_tokenizer_that_a_run_loads(tmp_path: Path) -> None:
    model = {**tiny().model.model_dump(), "context": 512}
    settings = tiny(environment={"id": "agentrl/Household-v0"}, limits={"turn_tokens": 6}, model=model)
    with pytest.raises(KeyboardInterrupt):
        train(settings, out=tmp_path, progress=Fails())
    _, renderer = load_model(str(tmp_path / "start"))
    seen = json.loads((tmp_path / "start" / "tokenizer.json").read_text())["model"]["vocab"]
    name = next(entry for entry in seen if entry.startswith("Ġ") and entry.endswith("Ġ1"))
    assert len(renderer.encode(name.replace("Ġ", " "))) == 1


def test_the_step_part_names_the_anchors() -> None:
    from agentrl.credit.advantage import step_peers

    assert step_peers(GIGPO_VERL_AGENT.advantage) is same_observation
    assert step_peers(GRPO.advantage) is None

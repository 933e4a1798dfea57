"""A run from outside: its folder, what is refused at once, what each slot does, its figures."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest

from agentrl.credit.advantage import Relative, one, over_past_mean
from agentrl.credit.keep import NoVoid, no_parsed_action
from agentrl.credit.peers import same_observation
from agentrl.errors import (
    AgentrlError,
    AlgorithmError,
    ConfigError,
    MissingColumnError,
    RolloutError,
    RunDirectoryError,
)
from agentrl.learn.algorithm import Algorithm, describe, from_description
from agentrl.learn.optimizer import AdamW
from agentrl.learn.penalty import Entropy
from agentrl.policy.load import load_model
from agentrl.recipes import DAPO, GIGPO, GIGPO_VERL_AGENT, GRPO
from agentrl.rollout.demonstrate import demonstrate
from agentrl.run.directory import RunDirectory, to_toml
from agentrl.run.progress import SilentProgress
from agentrl.run.reinforce import minibatches
from agentrl.run.settings import TrainSettings
from agentrl.run.train import train
from agentrl.testing import WordWorld
from agentrl.trajectory.batch import GOLD_LOGPROB
from agentrl.trajectory.store import read_journal
from agentrl.world import Tags, TextEnv
from agentrl.world.tool import tool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

WORLD = "agentrl.testing.worlds:WordWorld"


def tiny(**changes: object) -> TrainSettings:
    """A run of about a second."""
    return TrainSettings.model_validate(
        {
            "name": "tiny", "seed": 3, "reproducible": True, "processes": 1, "shards": 2,
            "checkpoint_every": 2,
            "environment": {"id": WORLD},
            "model": {
                "hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate": 48, "slots": 8,
                "context": 96, "vocabulary": 300,
            },
            "warm_start": {"demonstrations": 6, "noise": 0.0, "steps": 4, "batch": 3, "evaluate_every": 0},
            "rl": {"steps": 2, "tasks": 2, "members": 3, "evaluate_every": 0, "optimizer": {}},
            "limits": {"turn_tokens": 6},
            "evaluation": {"curve_tasks": 0, "final_tasks": 3},
            **changes,
        }
    )  # fmt: skip


def rl(**changes: object) -> dict[str, object]:
    return {"steps": 2, "tasks": 2, "members": 3, "evaluate_every": 0, "optimizer": {}, **changes}


def rows(folder: Path, phase: str = "rl") -> list[dict[str, float]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["phase"] == phase]


def weights(folder: Path, name: str = "trained") -> str:
    path = folder / "checkpoints" / name / "model" / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Fails(SilentProgress):
    """Ends a run at its first sign of life."""

    phase: str = "warm_start"
    step: int = 1

    def update(self, phase: str, step: int, total: int | None, metrics: Mapping[str, object]) -> None:
        del total, metrics
        if (phase, step) == (self.phase, self.step):
            raise KeyboardInterrupt


# -- the folder --------------------------------------------------------------------------------------------


def test_a_second_run_takes_the_next_free_folder(tmp_path: Path) -> None:
    settings = tiny(out=tmp_path, rl=rl(steps=0), warm_start={"demonstrations": 2, "steps": 1, "noise": 0.0})
    folders = [train(settings).path.name for _ in range(3)]
    assert folders == ["tiny", "tiny-2", "tiny-3"]
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        train(settings, out=tmp_path / "tiny")


def test_a_run_that_failed_before_any_work_is_started_over(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "tiny"):
        with pytest.raises(KeyboardInterrupt):
            train(tiny(out=tmp_path), out=folder, progress=Fails())
        assert (tmp_path / "tiny" / "start" / "config.json").exists()
    other = tiny(out=tmp_path, model={"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1, "context": 96})
    (tmp_path / "tiny" / "notes.txt").write_text("mine")
    assert train(other, out=tmp_path / "tiny").path == tmp_path / "tiny"
    shape = json.loads((tmp_path / "tiny" / "start" / "config.json").read_text())
    assert shape["hidden_size"] == 16
    assert (tmp_path / "tiny" / "notes.txt").read_text() == "mine"


def test_the_folder_of_a_run_at_work_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny(out=tmp_path), progress=Fails())
    with RunDirectory(tmp_path / "tiny").held():
        with pytest.raises(RunDirectoryError, match="another process is at work"):
            train(tiny(), out=tmp_path / "tiny")
        with pytest.raises(RunDirectoryError, match="another process is at work"):
            train(tiny(), out=tmp_path / "tiny", resume=True)
        assert train(tiny(out=tmp_path)).path.name == "tiny-2"


def test_the_starting_model_has_the_mode_of_other_folders(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), out=tmp_path / "run", progress=Fails())
    (beside := tmp_path / "beside").mkdir()
    assert (tmp_path / "run" / "start").stat().st_mode == beside.stat().st_mode


def test_the_card_holds_the_algorithm_and_a_resume_lists_what_changed(tmp_path: Path) -> None:
    mine = replace(GIGPO, optimizer=AdamW(max_grad_norm=None))
    settings = tiny(rl=rl(optimizer=None))
    train(settings, algorithm=mine, out=tmp_path)
    assert without_empty(RunDirectory(tmp_path).algorithm()) == describe(mine)
    assert from_description(without_empty(RunDirectory(tmp_path).algorithm())) == mine  # type: ignore[arg-type]  # as describe wrote it
    other = replace(mine, advantage=Relative(scale=one) + 0.5 * Relative(scale=one))
    changed = tiny(rl=rl(optimizer=None, steps=3))
    with pytest.raises(
        RunDirectoryError, match=r"(?s)rl\.steps: was 2, now 3.*advantage\.terms\.1\.weight: was 1"
    ):
        train(changed, algorithm=other, out=tmp_path, resume=True)
    train(changed, algorithm=other, out=tmp_path, resume=True, accept_changes=True)
    card = tomllib.loads((tmp_path / "run.toml").read_text())
    assert card["settings"]["rl"]["steps"] == 3
    assert any("rl.steps: was 2, now 3" in item for item in card["changes"])
    train(changed, algorithm=other, out=tmp_path, resume=True)


def without_empty(value: object) -> object:
    """A description as it was before TOML, which has no null."""
    if value == {}:
        return None
    if isinstance(value, dict):
        return {name: without_empty(item) for name, item in value.items()}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def test_toml_holds_lists_of_tables_and_odd_numbers() -> None:
    values = {"a": [{"x": 1, "y": [1.5, "two"]}, {}], "big": float("inf"), "t": {"deep": {"z": 1e-6}}}
    assert tomllib.loads(to_toml(values)) == values


# -- refused before anything is spent ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"environment": {"id": WORLD, "split": "trian"}},
         r"environment\.split is 'trian'.*Did you mean 'train'"),
        ({"evaluation": {"final_split": "test"}},
         r"evaluation\.final_split is 'test'.*valid_unseen; name one"),
        ({"environment": {"id": "tests_of_train:Few"}, "evaluation": {"curve_tasks": 0, "final_tasks": 8}},
         r"evaluation\.final_tasks asks for 8 tasks, but split 'valid_unseen' has 7"),
        ({"environment": {"id": "tests_of_train:Few"}, "evaluation": {"first_task": 5, "curve_tasks": 3}},
         r"curve_tasks asks for 3 tasks from number 5 on, but"),
        ({"warm_start": {"path": "nothing/here"}}, r"warm_start\.path is 'nothing/here'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_at_once(
    tmp_path: Path, changes: dict[str, object], sentence: str, few: None
) -> None:
    del few
    with pytest.raises(ConfigError, match=sentence):
        train(tiny(**changes), out=tmp_path / "run")


class Few(WordWorld):
    """Seven tasks in each split."""

    def num_tasks(self, split: str) -> int:  # type: ignore[override]  # a world that ends
        self._check_split(split)
        return 7


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this file importable under a name, for the registry."""
    import sys

    monkeypatch.setitem(sys.modules, "tests_of_train", sys.modules[__name__])


def closure() -> Relative:
    return Relative(target=lambda batch, reward: reward)


@dataclass(frozen=True)
class NeedsGold:
    """Reads a column that no run measures."""

    def __call__(self, batch: Batch, /) -> NDArray[np.float64]:
        return batch[GOLD_LOGPROB].astype(np.float64)


@dataclass(frozen=True)
class NeedsMore(Entropy):
    """Needs a figure that no run measures."""

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # on purpose
        return ("entropi",)


@pytest.mark.parametrize(
    ("algorithm", "kind", "sentence"),
    [
        (replace(GRPO, advantage=closure()), AlgorithmError, "cannot be written|local to a function"),
        (replace(GRPO, reward=NeedsGold()), MissingColumnError, "gold_logprob"),
        (replace(GRPO, penalties=(NeedsMore(0.1),)), AlgorithmError,  # type: ignore[arg-type]  # on purpose
         "Did you mean 'entropy'"),
        (replace(GRPO, minibatches=7), AlgorithmError, r"7 minibatches from 6 trajectories.*rl\.tasks"),
    ],
)  # fmt: skip
def test_an_algorithm_that_cannot_work_is_refused_at_once(
    tmp_path: Path, algorithm: Algorithm, kind: type[AgentrlError], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        train(tiny(), algorithm=algorithm, out=tmp_path / "run")
    assert not RunDirectory(tmp_path / "run").worked


def test_epochs_and_minibatches_are_at_least_one() -> None:
    for name in ("epochs", "minibatches"):
        with pytest.raises(AlgorithmError, match=f"{name} must be at least 1"):
            Algorithm(**{name: 0})  # type: ignore[arg-type]  # a number by name


def test_two_models_to_start_from_are_one_too_many() -> None:
    with pytest.raises(ValueError, match=r"warm_start\.path and model\.path"):
        tiny(model={"path": "a"}, warm_start={"path": "b"})


# -- the slots ---------------------------------------------------------------------------------------------


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
    train(tiny(), algorithm=algorithm, out=tmp_path)
    assert len(rows(tmp_path)) == 2


def test_batches_of_which_nothing_is_left_are_skipped_and_counted(tmp_path: Path) -> None:
    algorithm = replace(DAPO, keep=NoVoid(in_baseline=False) & DAPO.keep)
    train(tiny(warm_start={"demonstrations": 0}), algorithm=algorithm, out=tmp_path)
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
    from agentrl.rollout import Stock
    from agentrl.run.settings import EnvironmentSettings
    from agentrl.run.shard import protocol_of
    from agentrl.world import PlainText
    from agentrl.world.registry import make

    del few

    def chosen(world: str, name: str = "auto") -> object:
        stock = Stock(lambda: make(world))
        return protocol_of(EnvironmentSettings(id=world, protocol=name), stock)

    assert chosen(WORLD) == PlainText()
    assert chosen("tests_of_train:Shelf") == Tags()
    assert chosen("tests_of_train:Shelf", "plain") == PlainText()
    with pytest.raises(ConfigError, match="Did you mean 'auto'"):
        chosen(WORLD, "aut")


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
    with pytest.raises(KeyboardInterrupt):
        train(tiny(environment={"id": "agentrl/Household-v0"}, limits={"turn_tokens": 6}), out=tmp_path,
              progress=Fails())  # fmt: skip
    _, renderer = load_model(str(tmp_path / "start"))
    seen = json.loads((tmp_path / "start" / "tokenizer.json").read_text())["model"]["vocab"]
    name = next(entry for entry in seen if entry.startswith("Ġ") and entry.endswith("Ġ1"))
    assert len(renderer.encode(name.replace("Ġ", " "))) == 1


def test_the_step_part_names_the_anchors() -> None:
    from agentrl.credit.advantage import step_peers

    assert step_peers(GIGPO_VERL_AGENT.advantage) is same_observation
    assert step_peers(GRPO.advantage) is None

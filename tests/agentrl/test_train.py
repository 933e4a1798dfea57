"""A run from outside: its folder, and what is refused at once."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydantic import ValidationError

from agentrl.credit.advantage import Relative, one
from agentrl.errors import (
    AgentrlError,
    AlgorithmError,
    ConfigError,
    MissingColumnError,
    RunDirectoryError,
)
from agentrl.learn.algorithm import Algorithm, describe, from_description
from agentrl.learn.optimizer import AdamW
from agentrl.learn.penalty import Entropy
from agentrl.recipes import GIGPO, GRPO
from agentrl.run.card import to_toml
from agentrl.run.directory import RunDirectory
from agentrl.run.draw import first_task
from agentrl.run.train import train
from agentrl.testing import WordWorld
from agentrl.trajectory.batch import GOLD_LOGPROB
from tests.agentrl.training import WORLD, Fails, rl, tiny

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch


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
        ({"evaluation": {"final_tasks": 0}}, r"final_tasks is 0.*at least 1 task"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_at_once(
    tmp_path: Path, changes: dict[str, object], sentence: str, few: None
) -> None:
    del few
    with pytest.raises(ConfigError, match=sentence):
        train(tiny(**changes), out=tmp_path / "run")


@pytest.mark.parametrize("name", ["../outside", "a/b", "..", "", "a\\b"])
def test_a_name_stays_inside_of_the_folder_for_runs(name: str) -> None:
    with pytest.raises(ValidationError, match="without slashes"):
        tiny(name=name)


def test_every_seed_that_is_accepted_begins_inside_of_a_large_split() -> None:
    size, first = 2**31, 1_000_000
    for seed in (0, 11, 21_464, 21_465, 20_261_129, 2**32 - 1):
        place = first_task(tiny(seed=seed, rl=rl(first_task=first)), size)
        assert first <= place < size
        assert place == first + seed * 100_003 or seed > 21_464, "small seeds begin where they always did"
    assert first_task(tiny(seed=3), 7) == 1_000_000 + 300_009, "a small split is shuffled, round by round"
    with pytest.raises(ValidationError, match="less than 4294967296"):
        tiny(seed=2**32)


def test_the_best_checkpoint_may_be_that_of_the_start(tmp_path: Path) -> None:
    done = train(
        tiny(rl=rl(evaluate_every=1), evaluation={"curve_tasks": 3, "final_tasks": 3}), out=tmp_path / "run"
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    curve = {
        int(row["step"]): float(row["success"]["mean"])
        for row in lines
        if row["phase"] == "evaluation" and row["stage"] == "rl" and row["step"] >= 0
    }
    assert list(curve) == [0, 1, 2]
    most = max(curve.values())
    assert done.summary["best"] == [most, next(step for step, mean in curve.items() if mean == most)]


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

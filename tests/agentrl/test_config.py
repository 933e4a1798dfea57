"""Settings: where a wrong value was given, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentrl.config import load, read_toml, validate
from agentrl.errors import ConfigError
from agentrl.run.scenarios import find, names
from agentrl.run.settings import TrainSettings
from agentrl.run.suite import EvaluationSuite

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
name = "mine"  # a comment

[environment]
id = "agentrl/Household-v0"

[rl]
steps = 3

[rl.optimizer]
learning_rate = 1e-4
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "train.toml"
    path.write_text(text)
    return path


def problem(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(TrainSettings, write(folder, text), overrides)
    return str(caught.value)


def test_a_file_and_overrides_give_settings(tmp_path: Path) -> None:
    settings = load(TrainSettings, write(tmp_path, GOOD), ["rl.steps=7", "rl.algorithm=GRPO", "seed=5"])
    assert (settings.rl.steps, settings.rl.algorithm, settings.seed) == (7, "GRPO", 5)
    assert settings.rl.optimizer is not None
    assert settings.rl.optimizer.learning_rate == 1e-4


def test_one_rate_of_the_warm_start_may_be_set_and_the_rest_stays(tmp_path: Path) -> None:
    usual = load(TrainSettings, write(tmp_path, GOOD)).warm_start.optimizer
    changed = load(TrainSettings, tmp_path / "train.toml", ["warm_start.optimizer.weight_decay=0.1"])
    assert usual.kind == "muon"
    assert changed.warm_start.optimizer == usual.model_copy(update={"weight_decay": 0.1})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[rl.optimizer]\nlearning_rate = -1", ["line 4", "rl.optimizer.learning_rate", "greater than 0"]),
        ("[rl]\nstepps = 3", ["line 4", "'rl.stepps'", "Did you mean 'rl.steps'?"]),
        ("[rl]\nsteps = 'three'", ["line 4", "rl.steps = 'three'", "valid integer"]),
        ("[reinforce]\nsteps = 3", ["line 3", "no setting 'reinforce'"]),
        ("[model]\nhidden = 30", ["line 3", "multiple of heads"]),
        ("[environment.kwargs]\nsettings = {a = [1]}", ["line 4", "environment.kwargs.settings"]),
    ],
)
def test_a_wrong_value_is_named_with_file_and_line(tmp_path: Path, line: str, said: list[str]) -> None:
    text = problem(tmp_path, 'environment.id = "agentrl/Household-v0"\nseed = 2\n' + line)
    for part in ["train.toml", *said]:
        assert part in text


def test_the_line_is_the_one_of_the_right_table(tmp_path: Path) -> None:
    text = GOOD + "[warm_start.optimizer]\nlearning_rate = 'much'\n"
    assert "line 12: warm_start.optimizer.learning_rate" in problem(tmp_path, text)


def test_a_wrong_override_blames_the_command_line_and_not_the_file(tmp_path: Path) -> None:
    text = problem(tmp_path, GOOD, "rl.steps=many")
    assert text.startswith("on the command line: rl.steps = 'many'")
    assert "line" not in text.removeprefix("on the command line")


def test_an_unknown_override_is_mended_as_it_is_written(tmp_path: Path) -> None:
    assert "Did you mean 'rl.steps'?" in problem(tmp_path, GOOD, "rl.step=5")
    assert "Did you mean 'seed'?" in problem(tmp_path, GOOD, "sed=5")


def test_settings_that_do_not_fit_together_may_stand_in_the_file_and_on_the_command_line(
    tmp_path: Path,
) -> None:
    text = problem(tmp_path, GOOD, "reproducible=true", "control.enabled=true", "control.beside=true")
    assert "train.toml, with the command line: " in text
    assert "control.steps" in text
    alone = problem(tmp_path, GOOD + "[limits]\ntrajectory_seconds = 3\n", "reproducible=true")
    assert "limits.trajectory_seconds" in alone


def test_a_file_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_bytes(b'seed = 1\nname = "caf\xe9"\n')
    with pytest.raises(ConfigError, match=r"line 2 of the settings file .*train\.toml is not UTF-8"):
        read_toml(path)


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = problem(tmp_path, 'seed = "x"\n' + GOOD.replace("steps = 3", "steps = []"))
    assert len(text.splitlines()) == 2


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    assert "'environment' is missing" in problem(tmp_path, "seed = 1\n")


def test_broken_toml_is_named_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.toml is not valid TOML: .*line 2"):
        read_toml(write(tmp_path, "seed = 1\nname = \n"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps", "section.name=value"),
        ("seed.x=1", "is a value"),
        ("scenario.4.tasks=1", "entries 0 to"),
    ],
)
def test_an_override_that_fits_nowhere_is_refused(override: str, said: str) -> None:
    values: dict[str, object] = {"seed": 1, "scenario": [{}]}
    with pytest.raises(ConfigError, match=said):
        validate(TrainSettings, values, overrides=[override])


def test_the_entries_of_a_suite_are_numbered_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "eval.toml"
    path.write_text(
        'environment.id = "a/B-v0"\n[[scenario]]\nsplit = "x"\n[[scenario]]\nsplit = "y"\ntask = 2\n'
    )
    with pytest.raises(ConfigError, match=r"line 6: .*scenario\.1\.task.*Did you mean 'scenario\.1\.tasks'"):
        load(EvaluationSuite, path)


@pytest.mark.parametrize("name", names())
def test_every_scenario_is_valid(name: str) -> None:
    settings = load(EvaluationSuite, find(name)) if name.endswith("eval") else load(TrainSettings, find(name))
    assert settings.environment.id


def test_an_unknown_scenario_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'household/train'"):
        find("houshold/train")

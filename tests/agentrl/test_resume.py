"""Runs that are killed, stopped, damaged and resumed: a reproducible run ends the same, bit for bit."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import RolloutError, RunDirectoryError
from agentrl.run.bench import Interrupted
from agentrl.run.directory import RunDirectory
from agentrl.run.progress import SilentProgress
from agentrl.run.settings import EnvironmentSettings, ReinforcementSettings, TrainSettings
from agentrl.run.train import Run, train
from agentrl.trajectory.store import read_journal

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMES = {"seconds", "cpu_seconds", "step_seconds", "tokens_per_second"}
CHECKPOINTS = ("warm-start", "best", "trained", "control")
RUN = """
import sys
from pathlib import Path
from agentrl.run.settings import TrainSettings
from agentrl.run.train import train
settings = TrainSettings.model_validate_json(sys.argv[1])
if __name__ == "__main__":
    train(settings, out=Path(sys.argv[2]), resume=Path(sys.argv[2], "run.toml").exists())
"""


def tiny(**changes: object) -> TrainSettings:
    """A run of about two seconds that goes through every phase and really moves its weights."""
    return TrainSettings.model_validate(
        {
            "name": "tiny",
            "seed": 3,
            "reproducible": True,
            "processes": 1,
            "shards": 2,
            "checkpoint_every": 2,
            "environment": {"id": "agentrl.testing.worlds:WordWorld"},
            "model": {
                "hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate": 48, "slots": 8,
                "context": 96, "vocabulary": 300,
            },
            "warm_start": {"demonstrations": 6, "noise": 0.0, "steps": 5, "batch": 3, "evaluate_every": 3},
            "rl": {"algorithm": "GIGPO", "steps": 5, "tasks": 2, "members": 3, "evaluate_every": 2},
            "control": {"enabled": True, "steps": 3},
            "limits": {"turn_tokens": 6},
            "evaluation": {"curve_tasks": 3, "final_tasks": 3},
            **changes,
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Everything of a run that has to be reproducible."""

    weights: Mapping[str, str]
    metrics: list[dict[str, object]]
    samples: list[str]
    summary: dict[str, object]
    trajectories: list[tuple[str, float, tuple[str, ...]]]


def outcome(folder: Path) -> Outcome:
    def weights(name: str) -> str:
        return hashlib.sha256(
            (folder / "checkpoints" / name / "model/model.safetensors").read_bytes()
        ).hexdigest()

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    journal = read_journal(folder / "trajectories" / "rl.jsonl.zst")
    assert journal.dropped_bytes == 0
    return Outcome(
        {name: weights(name) for name in CHECKPOINTS},
        [{key: value for key, value in row.items() if key not in TIMES} for row in rows],
        (folder / "samples.jsonl").read_text().splitlines(),
        {key: value for key, value in summary.items() if key not in TIMES},
        [(item.id, item.reward, tuple(turn.text for turn in item.turns)) for item in journal.trajectories],
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(tiny(), out=folder)
    result = outcome(folder)
    assert len(set(result.weights.values())) >= 3  # something was learned in every phase
    assert len(result.trajectories) == 5 * 2 * 3
    return result


def check(folder: Path, whole: Outcome) -> None:
    result = outcome(folder)
    assert result.weights == whole.weights
    assert result.metrics == whole.metrics
    assert result == whole
    left = [
        path.name for path in folder.rglob("*") if path.name.startswith((".writing", ".replaced", ".start"))
    ]
    assert not left


def resume(folder: Path, **changes: object) -> Run:
    return train(tiny(**changes), out=folder, resume=True)


@dataclass
class Acting(SilentProgress):
    """Does something when a phase reaches a step: the seam where a test stands inside of a run."""

    phase: str = ""
    step: int = 0
    signals: tuple[int, ...] = ()
    error: BaseException | None = None
    seen: list[tuple[str, int]] = field(default_factory=list)

    def update(self, phase: str, step: int, total: int | None, metrics: Mapping[str, object]) -> None:
        self.seen.append((phase, step))
        if (phase, step) != (self.phase, self.step):
            return
        for number in self.signals:
            os.kill(os.getpid(), number)
        if self.error is not None:
            error, self.error = self.error, None
            raise error


class Kill(BaseException):
    """Ends a run where it stands, as SIGKILL would: nothing catches it and nothing is saved."""


# -- the same again ----------------------------------------------------------------------------------------


def test_two_runs_with_one_seed_are_identical_and_another_seed_is_not(tmp_path: Path, whole: Outcome) -> None:
    train(tiny(), out=tmp_path / "again")
    check(tmp_path / "again", whole)
    train(tiny(seed=4), out=tmp_path / "other")
    assert outcome(tmp_path / "other").weights["trained"] != whole.weights["trained"]


def test_two_processes_are_one(tmp_path: Path, whole: Outcome) -> None:
    train(tiny(processes=2), out=tmp_path / "run")
    check(tmp_path / "run", whole)


# -- kills -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "step"),
    [("warm_start", 1), ("warm_start", 3), ("warm_start", 5), ("evaluation", 0), ("rl", 1), ("rl", 2),
     ("rl", 3), ("rl", 5), ("control", 1), ("control", 3)],
)  # fmt: skip
def test_a_run_that_breaks_off_anywhere_ends_the_same(
    tmp_path: Path, whole: Outcome, phase: str, step: int
) -> None:
    with pytest.raises(Kill):
        train(tiny(), out=tmp_path, progress=Acting(phase, step, error=Kill()))
    resume(tmp_path)
    check(tmp_path, whole)


def test_two_breaks_in_a_row_end_the_same(tmp_path: Path, whole: Outcome) -> None:
    for number, (phase, step) in enumerate([("rl", 1), ("rl", 1), ("rl", 4), ("rl", 4), ("control", 2)]):
        with pytest.raises(Kill):
            train(tiny(), out=tmp_path, resume=number > 0, progress=Acting(phase, step, error=Kill()))
    resume(tmp_path)
    check(tmp_path, whole)


def test_the_number_of_processes_may_change_at_a_resume(tmp_path: Path, whole: Outcome) -> None:
    with pytest.raises(Kill):
        train(tiny(processes=2), out=tmp_path, progress=Acting("rl", 3, error=Kill()))
    resume(tmp_path, processes=1)
    check(tmp_path, whole)


def test_resuming_a_finished_run_rebuilds_its_end_only(tmp_path: Path, whole: Outcome) -> None:
    train(tiny(), out=tmp_path)
    (tmp_path / "summary.json").unlink()
    (tmp_path / "report.html").unlink()
    shown = Acting()
    train(tiny(), out=tmp_path, resume=True, progress=shown)
    assert {phase for phase, _ in shown.seen} == {"evaluation"}
    assert (tmp_path / "report.html").exists()
    check(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_kill_9_at_random_moments_ends_the_same(tmp_path: Path, whole: Outcome, processes: int) -> None:
    # Moments are drawn over the whole run, so they fall into imports, saves, rollouts and evaluations alike.
    noise = random.Random(processes)
    given = tiny(processes=processes).model_dump_json()
    command = [sys.executable, "-c", RUN, given, str(tmp_path)]
    killed = 0
    for _ in range(12):
        with subprocess.Popen(command, start_new_session=True) as process:
            wait_for_run(tmp_path, process)
            time.sleep(noise.uniform(0.0, 2.5))
            if process.poll() is None:
                killed += 1
            process.kill()
        time.sleep(0.3)
        assert not helpers_of(tmp_path)
        if (tmp_path / "summary.json").exists():
            shutil.rmtree(tmp_path / "checkpoints" / "trained")
            (tmp_path / "summary.json").unlink()
    assert killed >= 6
    subprocess.run(command, check=True, timeout=120)
    check(tmp_path, whole)


def wait_for_run(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until imports are over and the run's directory is there."""
    for _ in range(600):
        if (folder / "run.toml").exists() or process.poll() is not None:
            return
        time.sleep(0.05)


def helpers_of(folder: Path) -> list[int]:
    """Processes that still name the run's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                if str(folder) in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rename", "fsync", "write_text"])
def test_kill_9_during_a_save_ends_the_same(tmp_path: Path, whole: Outcome, name: str) -> None:
    owner = "os" if name == "fsync" else "pathlib.Path"
    for count in (2, 9, 12):
        folder = tmp_path / str(count)
        dying = f"""
import os, pathlib, signal
original, calls = {owner}.{name}, [0]
def call(*args, **kwargs):
    calls[0] += "checkpoints" in str(args[0]) or {owner == "os"}
    if calls[0] == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
{owner}.{name} = call
"""
        command = [sys.executable, "-c", dying + RUN, tiny().model_dump_json(), str(folder)]
        assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
        resume(folder)
        check(folder, whole)


# -- signals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("phase", "step"), [("warm_start", 3), ("rl", 1), ("evaluation", 0), ("control", 2)])
def test_a_signal_in_any_phase_stops_where_the_run_can_go_on(
    tmp_path: Path, whole: Outcome, number: int, phase: str, step: int
) -> None:
    shown = Acting(phase, step, (number,))
    with pytest.raises(Interrupted, match=r"everything is kept.*--resume"):
        train(tiny(), out=tmp_path, progress=shown)
    after = [entry for entry in shown.seen[shown.seen.index((phase, step)) + 1 :] if entry[0] != "evaluation"]
    assert len(after) <= 1  # the step at work was finished, and no other begun
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    resume(tmp_path)
    check(tmp_path, whole)


def test_a_signal_during_the_last_evaluation_stops_it(tmp_path: Path, whole: Outcome) -> None:
    shown = Acting("control", 3, (signal.SIGTERM,))
    with pytest.raises(Interrupted):
        train(tiny(), out=tmp_path, progress=shown)
    assert not (tmp_path / "summary.json").exists()
    resume(tmp_path)
    check(tmp_path, whole)


def test_a_second_signal_stops_at_once(tmp_path: Path, whole: Outcome) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), out=tmp_path, progress=Acting("rl", 3, (signal.SIGINT, signal.SIGINT)))
    resume(tmp_path)
    check(tmp_path, whole)


# -- damage ------------------------------------------------------------------------------------------------


def broken_off(folder: Path, step: int = 5) -> list[Path]:
    with pytest.raises(Kill):
        train(tiny(), out=folder, progress=Acting("rl", step, error=Kill()))
    return sorted((folder / "checkpoints").glob("1-rl-*"))


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, whole: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    first, last = broken_off(tmp_path)
    weights = last / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(bytes(content))
    with caplog.at_level(logging.WARNING):
        resume(tmp_path)
    (warning,) = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert last.name in warning
    assert f"continues from {first.name}" in warning
    check(tmp_path, whole)


def test_where_no_numbered_checkpoint_is_whole_a_named_one_is_taken(
    tmp_path: Path, whole: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    for path in broken_off(tmp_path):
        (path / "optimizer.pt").unlink()
    assert (tmp_path / "checkpoints" / "best").exists()
    resume(tmp_path)
    assert "continues from best" in caplog.text
    check(tmp_path, whole)


def test_without_a_whole_checkpoint_the_run_starts_again_and_says_so(
    tmp_path: Path, whole: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    for path in [*broken_off(tmp_path), *(tmp_path / "checkpoints").glob("[a-z]*")]:
        (path / "optimizer.pt").unlink()
    resume(tmp_path)
    assert "starts again" in caplog.text
    check(tmp_path, whole)


def test_damaged_ones_are_not_counted_as_kept(tmp_path: Path, whole: Outcome) -> None:
    for path in broken_off(tmp_path)[-1:]:
        (path / "state.json").write_text("{")
    with pytest.raises(Kill):
        train(tiny(), out=tmp_path, resume=True, progress=Acting("rl", 5, error=Kill()))
    assert len(list((tmp_path / "checkpoints").glob("[0-9]-*"))) == 2
    resume(tmp_path)
    check(tmp_path, whole)


def test_what_was_written_after_the_checkpoint_is_forgotten(tmp_path: Path, whole: Outcome) -> None:
    broken_off(tmp_path, step=4)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "rl", "step": 99}\n{"torn')
    with (tmp_path / "trajectories" / "rl.jsonl.zst").open("ab") as journal:
        journal.write(b"\x28\xb5\x2f\xfdtorn")
    resume(tmp_path)
    check(tmp_path, whole)


# -- refusals ----------------------------------------------------------------------------------------------


def test_changed_settings_are_shown_and_refused_unless_told(tmp_path: Path) -> None:
    broken_off(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"(?s)rl\.steps: was 5, now 6.*--accept-changes"):
        train(tiny(rl={"steps": 6, "tasks": 2, "members": 3, "evaluate_every": 2}), out=tmp_path, resume=True)
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        train(tiny(), out=tmp_path)
    run = train(
        tiny(rl={"steps": 6, "tasks": 2, "members": 3, "evaluate_every": 2}), out=tmp_path, resume=True,
        accept_changes=True,
    )  # fmt: skip
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows if row["phase"] == "rl") == 6


def test_a_setting_that_an_older_version_did_not_know_is_no_change(tmp_path: Path) -> None:
    settings = TrainSettings(environment=EnvironmentSettings(id="agentrl/Household-v0"))
    directory = RunDirectory.create(tmp_path, settings)
    card = tmp_path / "run.toml"
    lines = card.read_text().splitlines()
    card.write_text("\n".join(line for line in lines if not line.startswith("sampled_tokens")))
    assert directory.changes(settings) == []
    other = settings.model_copy(update={"rl": ReinforcementSettings(sampled_tokens=5)})
    assert directory.changes(other) == ["rl.sampled_tokens: was 0, now 5"]


def test_nothing_to_resume_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"holds no run\.toml"):
        resume(tmp_path)


def test_a_world_that_fails_stops_the_run_before_anything_is_spent(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match=r"preflight episode.*Repair the environment"):
        train(
            tiny(
                environment={"id": "agentrl.testing.worlds:WordWorld", "kwargs": {"length": 0}},
                warm_start={"demonstrations": 0},
                limits={"turn_tokens": 6, "trajectory_seconds": 1e-9},
                reproducible=False,
            ),
            out=tmp_path,
        )

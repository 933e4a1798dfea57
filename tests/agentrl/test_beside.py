"""The control in a process of its own beside reinforcement: it equals the one that comes afterwards."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import RolloutError
from agentrl.learn.checkpoint import is_whole
from agentrl.run.beside import Beside, Following
from agentrl.run.train import train
from tests.agentrl.test_resume import RUN, TIMES, Acting, Kill, outcome, tiny

if TYPE_CHECKING:
    from agentrl.run.settings import TrainSettings
    from tests.agentrl.test_resume import Outcome

CONTROL = {"enabled": True, "steps": 3, "beside": True}


def beside(**changes: object) -> TrainSettings:
    return tiny(**{"control": CONTROL, **changes})


def check(folder: Path, after: Outcome) -> None:
    """Everything is as where the control came afterwards; its rows stand at the end there, too."""
    found = outcome(folder)
    assert found.weights == after.weights
    assert found.metrics == after.metrics
    assert found == after


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("after") / "run"
    train(tiny(), out=folder)
    return outcome(folder)


def test_beside_is_afterwards(tmp_path: Path, after: Outcome) -> None:
    run = train(beside(), out=tmp_path / "run")
    check(run.path, after)
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "step"), [("rl", 1), ("rl", 5), ("evaluation", 0)])
def test_a_run_that_breaks_off_goes_on(tmp_path: Path, after: Outcome, phase: str, step: int) -> None:
    with pytest.raises(Kill):
        train(beside(), out=tmp_path, progress=Acting(phase, step, error=Kill()))
    train(beside(), out=tmp_path, resume=True)
    check(tmp_path, after)


@pytest.mark.slow
def test_both_processes_end_with_a_killed_run_and_both_go_on(tmp_path: Path, after: Outcome) -> None:
    folder = tmp_path / "run"
    command = [
        sys.executable,
        "-c",
        RUN,
        beside().model_dump_json(),
        str(folder),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 60
        while not (folder / "control" / "run.toml").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert subprocess.run(command, env=environment, timeout=120, check=False).returncode == 0
    check(folder, after)


def test_equal_cpu_seconds(tmp_path: Path) -> None:
    run = train(beside(control={"enabled": True, "beside": True}, reproducible=False), out=tmp_path / "run")
    spent = json.loads((run.path / "summary.json").read_text())["cpu_seconds"]
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["phase"] == "control"]
    assert spent["control"] >= spent["rl"]
    assert spent["total"] > spent["control"] + spent["rl"] + spent["warm_start"]
    # It stops at the first step that reaches what reinforcement spent.
    assert spent["control"] <= spent["rl"] + 3 * spent["control"] / max(steps) + 0.05


class Dead(Beside):
    """A control whose process dies as soon as it is started."""

    def _start(self) -> None:
        super()._start()
        self._process.kill()


def test_a_control_that_dies_twice_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.run.train.Beside", Dead)
    with pytest.raises(RolloutError, match=r"ended twice without a result.*can be resumed"):
        train(beside(), out=tmp_path / "run")
    assert is_whole(tmp_path / "run" / "checkpoints" / "trained")  # nothing of reinforcement is lost


def test_the_budget_waits_for_what_reinforcement_may_still_spend() -> None:
    ours, theirs = multiprocessing.Pipe()
    budget = Following(theirs)
    assert budget.more(0, 0.0)
    assert budget.planned(3, 1.0) == budget.steps
    ours.send((2.0, 0.5))
    assert budget.more(10, 3.9)
    assert budget.planned(10, 2.0) == 20
    later = threading.Timer(0.05, ours.send, [(3.0, 1.0)])
    later.start()
    assert not budget.more(20, 4.0)  # it had spent all there seemed to be, and waited for the end
    assert budget.cpu_seconds == 3.0
    later.join()
    ours.close()
    with pytest.raises(OSError, match="pipe"):
        budget.more(20, 4.0)


def test_rows_are_those_of_the_run(tmp_path: Path) -> None:
    run = train(beside(), out=tmp_path / "run")
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    control = [row for row in rows if "control" in (row["phase"], row.get("stage"))]
    first = min(row["seconds"] for row in rows if row["phase"] == "rl")
    assert control
    assert all(TIMES & set(row) for row in control)
    assert min(row["seconds"] for row in control) > 0.5 * first  # the clock is the run's, not the process's

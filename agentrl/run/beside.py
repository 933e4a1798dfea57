"""The control beside the reinforcement phase: on the other core, in a process and a folder of its own.

It starts from the same warm start and spends as many CPU-seconds as reinforcement does, which tells it after
each step what it has spent. The folder `control/` of the run holds its checkpoints, so both halves of a run
that was killed go on. At the end its weights and its rows of metrics go to the run.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import time
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from agentrl.errors import AgentrlError, RolloutError, RunDirectoryError
from agentrl.learn.checkpoint import is_whole
from agentrl.run.bench import Interrupted, open_bench
from agentrl.run.crew import ignore_interrupts, interrupts_blocked
from agentrl.run.directory import RunDirectory
from agentrl.run.progress import SilentProgress
from agentrl.run.state import RunState
from agentrl.run.supervise import ENDLESS, supervise

if TYPE_CHECKING:
    from collections.abc import Generator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from pathlib import Path

    from agentrl.learn.algorithm import Algorithm
    from agentrl.run.bench import Bench
    from agentrl.run.settings import TrainSettings

FOLDER = "control"
PATIENCE = 900.0
"""Seconds after which a silent process counts as dead."""
LOCK_PATIENCE = 60.0
"""Seconds until the process of a run that was killed has left the folder."""


@dataclass
class Following:
    """A budget that grows with what reinforcement spends; see `agentrl.run.supervise.Budget`.

    Attributes:
        connection: brings (CPU-seconds that reinforcement has spent, the share of it that is done).
        steps: the number of steps where it is fixed; CPU-seconds count for nothing then.
        cpu_seconds: what reinforcement will have spent at its end, as it looks now.
    """

    connection: Connection
    steps: int = ENDLESS
    cpu_seconds: float = field(init=False, default=math.inf)
    _whole: bool = field(init=False, default=False)

    def more(self, step: int, spent: float) -> bool:
        """Whether there is another step to do; waits where reinforcement may still spend more."""
        self.connection.send(step)
        while self.connection.poll(0):
            self._listen()
        if self.steps < ENDLESS:
            return step < self.steps
        while spent >= self.cpu_seconds and not self._whole:
            self._listen()
        return spent < self.cpu_seconds

    def planned(self, step: int, spent: float) -> int:
        """How many steps there will be, as it looks now."""
        if self.steps < ENDLESS or math.isinf(self.cpu_seconds) or spent <= 0:
            return self.steps
        return max(step, round(step * self.cpu_seconds / spent))

    def _listen(self) -> None:
        if not self.connection.poll(PATIENCE):
            raise EOFError
        spent, done = self.connection.recv()
        if self.steps == ENDLESS and done > 0:
            self.cpu_seconds, self._whole = spent / done, done >= 1


@dataclass
class Beside:
    """The control of a run, at work in another process."""

    bench: Bench
    _connection: Connection = field(init=False)
    _process: SpawnProcess = field(init=False)
    _told: tuple[float, float] = field(init=False, default=(0.0, 0.0))
    _error: str = field(init=False, default="")

    @property
    def folder(self) -> Path:
        """Where the control keeps its checkpoints and metrics."""
        return self.bench.directory.path / FOLDER

    @property
    def finished(self) -> bool:
        """Whether its last checkpoint is written."""
        return is_whole(self.folder / "checkpoints" / "control")

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def tell(self, cpu_seconds: float, done: float) -> None:
        """Say what reinforcement has spent, and which share of it is done."""
        self._told = (cpu_seconds, done)
        self._read()
        with contextlib.suppress(OSError):
            self._connection.send(self._told)

    def finish(self) -> None:
        """Wait for the control's end, and take its weights, its CPU-seconds and its metrics into the run.

        Raises:
            RolloutError: its process died twice, or was silent too long. Interrupted: the run was stopped.
        """
        if not self._waited():
            self._end()
            self._start()
        if not self.finished and not self._waited():
            raise RolloutError(
                f"the control beside the reinforcement phase ended twice without a result: "
                f"{self._error or 'its process died or was silent (out of memory?)'}. Its folder is "
                f"{self.folder}; the run can be resumed. Without control.beside it is trained afterwards. A "
                'script that calls train() itself must do so below `if __name__ == "__main__":`.'
            )
        self._take()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        settings = _settings_of(self.bench)
        arguments = (theirs, settings, self.bench.algorithm, self.folder, self.bench.seconds)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        with interrupts_blocked():
            self._process.start()
        theirs.close()
        self.tell(*self._told)

    def _waited(self) -> bool:
        """Read what the process says until it ends; whether it has finished."""
        heard = time.monotonic()
        while self._process.is_alive() and time.monotonic() - heard < PATIENCE:
            self.bench.stop_if_asked("the control")
            if self._read(0.2):
                heard = time.monotonic()
        self._read()
        return self.finished

    def _read(self, wait: float = 0.0) -> bool:
        """Take in what the process has said, after at most `wait` seconds; whether it said anything."""
        heard = False
        try:
            while self._connection.poll(0.0 if heard else wait):
                said = self._connection.recv()
                heard = True
                if isinstance(said, str):
                    self._error = said
                elif isinstance(said, float):
                    self.bench.elsewhere += said
                elif self._told[1] >= 1:
                    self.bench.progress.update("control", said, None, {})
        except (EOFError, OSError):  # it has ended
            self._process.join(wait)
        return heard

    def _end(self) -> None:
        self._connection.close()  # the process ends at its next step
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(10)

    def _take(self) -> None:
        bench, found = self.bench, RunDirectory(self.folder).checkpoints / "control"
        bench.load_weights(found)
        bench.learner = bench.critic = None
        theirs = RunState.read(found / "state.json")
        spent = {**bench.state.cpu_seconds, "control": theirs.cpu_seconds.get("control", 0.0)}
        bench.state = replace(bench.state, phase="control", step=theirs.step, cpu_seconds=spent)
        for line in (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            bench.directory.add_metrics(json.loads(line))


def _settings_of(bench: Bench) -> TrainSettings:
    """The settings of the control as a run: from the run's warm start, in one process."""
    settings = bench.settings
    evaluation = settings.evaluation.model_copy(update={"final_tasks": 0})
    path = str(bench.checkpoint("warm-start") / "model")
    return settings.model_copy(
        update={
            "processes": 1,
            "evaluation": evaluation,
            "model": settings.model.model_copy(update={"path": ""}),
            "warm_start": settings.warm_start.model_copy(update={"path": path}),
        }
    )


def _work(
    connection: Connection, settings: TrainSettings, algorithm: Algorithm, folder: Path, begun: float
) -> None:
    """The life of the process: train, or go on, and end when the other end goes away."""
    ignore_interrupts()
    try:
        with contextlib.suppress(EOFError, OSError, Interrupted, KeyboardInterrupt):
            _train(connection, settings, algorithm, folder, begun)
    except AgentrlError as error:
        connection.send(str(error))
    except Exception:  # noqa: BLE001  # crosses to the parent, which raises it
        connection.send(traceback.format_exc())


def _train(
    connection: Connection, settings: TrainSettings, algorithm: Algorithm, folder: Path, begun: float
) -> None:
    resume = (folder / "run.toml").exists()
    directory = RunDirectory(folder) if resume else RunDirectory.create(folder, settings)
    if is_whole(directory.checkpoints / "control"):
        return
    with (
        _held(directory),
        SilentProgress() as shown,
        open_bench(settings, algorithm, directory, shown, resume=resume) as bench,
    ):
        if not resume:
            bench.state = replace(bench.state, seconds=begun)
        supervise(bench, "control", Following(connection, settings.control.steps or ENDLESS))
        bench.save("control")
        connection.send(bench.crew.cpu_seconds)


@contextlib.contextmanager
def _held(directory: RunDirectory) -> Generator[None]:
    """Hold the folder, waiting for the process of a run that was just killed."""
    deadline = time.monotonic() + LOCK_PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(directory.held())
                break
            except RunDirectoryError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield

"""The workbench of a training run: what every phase needs, built once, checkpointed and resumed."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from agentrl.errors import RunDirectoryError
from agentrl.learn.checkpoint import clean, is_whole, newest, set_aside, write_checkpoint
from agentrl.learn.gradient import load_flat
from agentrl.learn.learner import Learner
from agentrl.plan import groups_of
from agentrl.policy.load import load_model, load_weights, save_model
from agentrl.run.crew import Recipe
from agentrl.run.ranks import crew_of
from agentrl.run.signals import stopping_by
from agentrl.run.start import demonstrations_of, make_start
from agentrl.run.state import RunState
from agentrl.trajectory.store import JournalWriter, read_journal

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path
    from types import FrameType

    import torch
    from transformers import PreTrainedModel

    from agentrl.learn.algorithm import Algorithm
    from agentrl.learn.checkpoint import Found
    from agentrl.learn.learner import Learns
    from agentrl.learn.optimizer import Optimizer
    from agentrl.learn.supervised import Example
    from agentrl.plan import Group
    from agentrl.policy.render import Renderer
    from agentrl.run.crew import Crew
    from agentrl.run.directory import RunDirectory
    from agentrl.run.progress import Progress
    from agentrl.run.settings import TrainSettings
    from agentrl.run.torchrun import Ranks
    from agentrl.trajectory import Invalid, Trajectory
    from agentrl.trajectory.batch import Column

_logger = logging.getLogger(__name__)
JOURNAL = "trajectories/rl.jsonl.zst"
SHELF = "replay.jsonl.zst"
GROWING = ("metrics.jsonl", "samples.jsonl", JOURNAL)


STOPPING = b"Stopping after this step; once more (Ctrl-C) stops at once.\n"
STOPPING_RANKS = b"Stopping after this step, if it ends before torchrun's patience does.\n"


class Interrupted(Exception):  # control flow: the run stopped where it can be resumed
    """The user asked the run to stop; a checkpoint has been written."""


@dataclass
class Bench:
    """A run at work.

    Attributes:
        shelf: the groups that a plan may replay.
        elsewhere: CPU-seconds of processes that are not the crew's.
    """

    settings: TrainSettings
    algorithm: Algorithm
    directory: RunDirectory
    model: PreTrainedModel
    renderer: Renderer
    crew: Crew
    progress: Progress
    examples: list[Example]
    state: RunState = field(default_factory=RunState)
    learner: Learns | None = None
    critic: Learner | None = None
    columns: tuple[Column, ...] = ()
    stopping: bool = False
    shelf: tuple[Group, ...] = ()
    elsewhere: float = 0.0
    _begun: float = field(default_factory=time.monotonic)
    _restored: dict[str, object] | None = None
    _restored_critic: dict[str, object] | None = None
    _journal: JournalWriter | None = None

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run, earlier parts of a resumed run included."""
        return self.state.seconds + time.monotonic() - self._begun

    # -- phases --------------------------------------------------------------------------------------------

    def begin(self, phase: str, optimizer: Optimizer, most_skipped: int = 20) -> int:
        """Enter a phase with a fresh optimizer, or with the restored one; return the steps already done."""
        self.learner = self.crew.learner(self.model, optimizer, most_skipped)
        critic = self.algorithm.critic if phase == "rl" else None
        self.critic = Learner(critic.build(self.model), critic.optimizer, most_skipped) if critic else None
        if self.state.phase != phase:
            self.state = replace(self.state, phase=phase, step=0)
        elif self._restored is not None:
            self.learner.restore(self._restored)
            self._restore_critic()
        self._restored = self._restored_critic = None
        return self.state.step

    def _restore_critic(self) -> None:
        if self.critic is None:
            return
        if self._restored_critic is None:
            raise RunDirectoryError(
                "the checkpoint holds no critic, and the algorithm has one; resume with the algorithm that "
                "the run was started with."
            )
        load_flat(self.critic.model, cast("torch.Tensor", self._restored_critic["weights"]))
        self.critic.restore(self._restored_critic)

    @contextmanager
    def working(self, phase: str) -> Generator[None]:
        """Count the CPU-seconds of the enclosed work towards a phase."""
        before = self.crew.cpu_seconds
        yield
        self.state = self.state.spend(phase, self.crew.cpu_seconds - before)

    def after_step(self, phase: str, step: int, *, last: bool = False) -> None:
        """Note that a step is done; write a checkpoint now and then; stop here if asked to."""
        self.state = replace(self.state, phase=phase, step=step)
        due = step % self.settings.checkpoint_every == 0 or last
        if due or self.stopping:
            self.save()
        self.stop_if_asked(f"{phase} step {step}")

    def stop_if_asked(self, where: str) -> None:
        """Raise `Interrupted` where a signal has come and the last checkpoint holds what has been done."""
        if self.stopping:
            raise Interrupted(
                f"stopped at {where}; everything is kept. Go on with: "
                f"agentrl train --resume {self.directory.path}"
            )

    def keep(self, results: Sequence[Trajectory | Invalid]) -> None:
        """Append rollouts to the journal, which stays open for the whole run."""
        if self._journal is None:
            self._journal = JournalWriter(self.directory.path / JOURNAL)
        self._journal.append(results)

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    # -- checkpoints ---------------------------------------------------------------------------------------

    def save(self, name: str = "") -> Path:
        """Write a checkpoint of the state as it is now."""
        sizes = {file: self.directory.size(file) for file in GROWING}
        state = replace(self.state, sizes=sizes, seconds=self.seconds)

        def fill(folder: Path) -> None:
            import torch

            save_model(self.model, self.renderer, folder / "model")
            if self.learner is not None:
                torch.save(self.learner.state(), folder / "optimizer.pt")
            if self.critic is not None:
                state_of = {**self.critic.state(), "weights": self.critic.weights()}
                torch.save(state_of, folder / "critic.pt")
            state.save(folder / "state.json")
            if self.shelf:
                with JournalWriter(folder / SHELF) as shelf:
                    shelf.append([item for group in self.shelf for item in group])

        path = write_checkpoint(self.directory.checkpoints, name or state.name, fill)
        if not name:
            self._forget_old()
        return path

    def _forget_old(self) -> None:
        for name in self._names()[self.settings.keep_checkpoints :]:
            shutil.rmtree(self.directory.checkpoints / name, ignore_errors=True)

    def _names(self) -> list[str]:
        found = [path.name for path in self.directory.checkpoints.glob("[0-9]-*-*") if path.is_dir()]
        return sorted(
            (name for name in found if name.rpartition("-")[2].isdigit()), key=_progress, reverse=True
        )

    def _named(self) -> list[str]:
        """Checkpoints under a name, such as "best", the one with the most progress first."""
        progress: dict[str, tuple[int, int]] = {}
        for path in self.directory.checkpoints.glob("[!0-9.]*/state.json"):
            with suppress(RunDirectoryError):
                progress[path.parent.name] = _progress(RunState.read(path).name)
        return sorted(
            (name for name in progress if not name.startswith("damaged-")),
            key=progress.__getitem__,
            reverse=True,
        )

    def restore(self) -> tuple[str, ...]:
        """Go back to the newest whole checkpoint; return the names of damaged ones that were passed over."""
        import torch

        clean(self.directory.checkpoints)
        found = newest(self.directory.checkpoints, self._names())
        set_aside(self.directory.checkpoints, found.damaged)
        if found.path is None:
            found = replace(found, path=newest(self.directory.checkpoints, self._named()).path)
        if found.damaged:
            _logger.warning("%s", _passed_over(found, self.directory))
        if found.path is None:
            for file in GROWING:
                self.directory.cut(file, 0)
            return found.damaged
        self.load_weights(found.path)
        self.state = RunState.read(found.path / "state.json")
        optimizer = found.path / "optimizer.pt"
        self._restored = torch.load(optimizer, weights_only=True) if optimizer.exists() else None
        critic = found.path / "critic.pt"
        self._restored_critic = torch.load(critic, weights_only=True) if critic.exists() else None
        if (found.path / SHELF).exists():
            self.shelf = tuple(groups_of(read_journal(found.path / SHELF).trajectories))
        for file, size in self.state.sizes.items():
            self.directory.cut(file, size)
        return found.damaged

    def load_weights(self, checkpoint: Path) -> None:
        """Put the weights of a checkpoint into the model."""
        load_weights(self.model, checkpoint / "model")

    def checkpoint(self, name: str) -> Path:
        """The folder of a named checkpoint. Raises `RunDirectoryError` where it is missing or damaged."""
        path = self.directory.checkpoints / name
        if not is_whole(path):
            what = "a damaged" if path.exists() else "no"
            raise RunDirectoryError(
                f"the run has {what} checkpoint {name!r} in {self.directory.checkpoints}. "
                "Start the run again."
            )
        return path


def _progress(name: str) -> tuple[int, int]:
    """Phase and step of a checkpoint's name, "1-rl-000025"."""
    return int(name.partition("-")[0]), int(name.rpartition("-")[2])


def _passed_over(found: Found, directory: RunDirectory) -> str:
    """A sentence about damaged checkpoints."""
    goes_on = f"continues from {found.path.name}" if found.path else "starts again, for no whole one is left"
    return (
        f"damaged checkpoints in {directory.checkpoints} were passed over and renamed to damaged-*: "
        f"{', '.join(found.damaged)}. The run {goes_on}."
    )


@contextmanager
def open_bench(
    settings: TrainSettings,
    algorithm: Algorithm,
    directory: RunDirectory,
    progress: Progress,
    *,
    resume: bool,
    ranks: Ranks | None = None,
) -> Generator[Bench]:
    """Build the workbench, continue from a checkpoint if asked to, and clear up at the end.

    Args:
        ranks: the processes of torchrun, which take the place of `settings.processes`.
    """
    import torch

    torch.set_num_threads(1)
    start = directory.path / "start"
    demonstrations = demonstrations_of(settings)
    if not (start / "config.json").exists():
        make_start(settings, demonstrations, start)
    model, renderer = load_model(str(start), settings.model.renderer, variables=settings.model.template)
    recipe = Recipe(settings.environment, settings.limits, settings.model, start, algorithm.plan.memory)
    from agentrl.learn.supervised import examples_of

    weight = settings.warm_start.observation_weight
    limit = settings.limits.observation_tokens
    examples = [
        example
        for item in demonstrations
        for example in examples_of(item, renderer, observation_weight=weight, observation_tokens=limit)
    ]
    with crew_of(recipe, model, renderer, settings, ranks) as crew:
        bench = Bench(settings, algorithm, directory, model, renderer, crew, progress, examples)
        if resume:
            bench.restore()
        with _signals(bench, insisting=ranks is None), closing(bench):
            yield bench


@contextmanager
def _signals(bench: Bench, *, insisting: bool) -> Generator[None]:
    """Let SIGINT and SIGTERM stop the run after the current step; a second signal stops it at once.

    Args:
        insisting: whether a second signal does. torchrun sends its own after that of the terminal, and ends
            what has not stopped after its `--shutdown-timeout`.
    """

    def handle(number: int, _: FrameType | None) -> None:
        if bench.stopping and insisting:
            raise KeyboardInterrupt
        del number
        if not bench.stopping:
            # print() may be what the signal interrupted.
            os.write(2, STOPPING if insisting else STOPPING_RANKS)
        bench.stopping = True

    with stopping_by(handle):
        yield

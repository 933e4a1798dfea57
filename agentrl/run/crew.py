"""Shards on processes: the second core rolls out, evaluates and differentiates beside the first.

Work is cut by shard, in a fixed order, and results are merged in that order; how many processes hold the
shards changes the time and nothing else. Each process has one torch thread. Every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias, TypeVar, cast

from agentrl.errors import AgentrlError, RolloutError
from agentrl.rollout.memory import whole_history
from agentrl.run.shard import Shard, cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel

    from agentrl.learn.gradient import Reader
    from agentrl.learn.learner import Learns
    from agentrl.learn.optimizer import Optimizer
    from agentrl.policy.render import Renderer
    from agentrl.rollout.memory import Memory
    from agentrl.run.settings import EnvironmentSettings, LimitSettings, ModelSettings
    from agentrl.world.parsing import Protocol as WorldProtocol

Result_co = TypeVar("Result_co", covariant=True)


class Job(Protocol[Result_co]):
    """Something a shard does; picklable."""

    def __call__(self, shard: Shard) -> Result_co:
        """Do it."""
        ...


@dataclass(frozen=True)
class Recipe:
    """What a process needs to build its shards."""

    environment: EnvironmentSettings
    limits: LimitSettings
    shape: ModelSettings
    model_folder: Path | None
    memory: Memory = whole_history


@dataclass
class Crew:
    """The shards of a run.

    Args:
        recipe: what shards are built from; `model`, `renderer`: this process's own, shared by its shards.
        shards: into how many shares work is cut; `processes`: how many processes hold them.
        patience: seconds after which a silent process counts as dead.
    """

    recipe: Recipe
    model: PreTrainedModel | None
    renderer: Renderer | None
    shards: int = 2
    processes: int = 2
    patience: float = 900.0
    _own: Shards = field(init=False, repr=False)
    _helpers: list[Helper] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._own = Shards(self.recipe, self.model, self.renderer)
        self.processes = min(self.processes, self.shards)
        self._helpers = [Helper(self.recipe) for _ in range(self.processes - 1)]

    def learner(self, model: PreTrainedModel, optimizer: Optimizer, most_skipped: int = 20) -> Learns:
        """Return what steps the model with the gradients of the shards."""
        from agentrl.learn.learner import Learner

        return Learner(model, optimizer, most_skipped)

    def run(self, jobs: Sequence[Job[Result_co]], weights: torch.Tensor | None = None) -> list[Result_co]:
        """Do job k on shard k, and return the results in that order.

        Args:
            weights: (P,) weights of the model where helpers need newer ones; this process already has them.

        Raises:
            RolloutError: a helper process died twice on the same work.
        """
        shares = self._shares(len(jobs))
        for helper, share in zip(self._helpers, shares[1:], strict=True):
            helper.send(weights, [(number, jobs[number]) for number in share])
        done: dict[int, Result_co] = {number: jobs[number](self._own[number]) for number in shares[0]}
        for helper, share in zip(self._helpers, shares[1:], strict=True):
            done.update(zip(share, cast("list[Result_co]", helper.receive(self.patience)), strict=True))
        return [done[number] for number in range(len(jobs))]

    def _shares(self, jobs: int) -> list[list[int]]:
        return [list(range(jobs))[place :: self.processes] for place in range(self.processes)]

    @property
    def protocol(self) -> WorldProtocol:
        """How the world's turns are written."""
        return self._own[0].protocol

    @property
    def schemas(self) -> tuple[Mapping[str, object], ...]:
        """Of the world's tools, where a chat template lists them."""
        return self._own[0].schemas

    @property
    def reward_names(self) -> tuple[str, ...]:
        """The components of the reward that the world declares."""
        return self._own[0].reward_names

    def num_tasks(self, split: str) -> int | None:
        """Return the number of tasks of a split of the environment."""
        return self._own[0].num_tasks(split)

    @property
    def cpu_seconds(self) -> float:
        """CPU-seconds of all processes of the crew so far."""
        return cpu_seconds() + sum(helper.cpu_seconds for helper in self._helpers)

    def close(self) -> None:
        """End the helper processes and close the environments."""
        for helper in self._helpers:
            helper.close()
        self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Answer: TypeAlias = "tuple[list[object], tuple[type[Exception], str] | None, float]"
"""Results, the error that ended the work if one did, and the process's CPU-seconds so far."""


class Helper:
    """A process that holds shards. A dead one is started again and given the same work once more."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.cpu_seconds = 0.0
        self._past = 0.0
        self._weights: bytes = pickle.dumps(None)
        self._work: bytes = b""
        self._waiting = False
        self._start()

    @property
    def pid(self) -> int | None:
        """The process's id."""
        return self._process.pid

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(target=_serve, args=(theirs, self.recipe), daemon=True)
        with interrupts_blocked():
            self._process.start()
        theirs.close()

    def send(self, weights: torch.Tensor | None, work: list[tuple[int, Job[object]]]) -> None:
        """Hand over work without waiting for it."""
        if weights is not None:
            self._weights = pickle.dumps(weights.numpy())
        self._work = pickle.dumps(work)
        if self._waiting:
            # Its last answer was never fetched (an error came between) and must not be taken for this one's.
            self._restart()
        self._waiting = True
        # A process that died while idle is noticed by receive(), which starts it again with the last weights.
        self._post(self._weights if weights is not None or self._fresh else pickle.dumps(None))

    def _post(self, weights: bytes) -> None:
        self._fresh = False
        with contextlib.suppress(OSError):
            self._connection.send_bytes(weights)
            self._connection.send_bytes(self._work)

    def receive(self, patience: float) -> list[object]:
        """Wait for the results of the work that was sent.

        Raises:
            RolloutError: the process died or was silent for `patience` seconds, twice.
            Exception: the work's own.
        """
        answer = self._answer(patience)
        if answer is None:
            self._restart()
            self._post(self._weights)
            answer = self._answer(patience)
        if answer is None:
            raise RolloutError(
                f"a helper process died or was silent for {patience:g} s, twice on the same work (out of "
                "memory?). Use processes = 1, or a smaller model.slots or micro_tokens; the run can be "
                'resumed. A script that calls train() itself must do so below `if __name__ == "__main__":`.'
            )
        self._waiting = False
        results, error, seconds = answer
        self.cpu_seconds = self._past + seconds
        if error is not None:
            raise revived(*error)
        return results

    def _answer(self, patience: float) -> Answer | None:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                if self._connection.poll(0.2):
                    answer: Answer = pickle.loads(self._connection.recv_bytes())  # noqa: S301  # our own child
                    return answer
            except (EOFError, OSError, pickle.UnpicklingError):
                return None
            if not self._process.is_alive() and not self._readable():
                return None
        return None

    def _readable(self) -> bool:
        try:
            return self._connection.poll(0)
        except OSError:
            return False

    def _restart(self) -> None:
        self._past = self.cpu_seconds
        self._fresh = True
        self._end()
        self._start()

    def _end(self) -> None:
        self._connection.close()
        if self._process.is_alive():
            self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(5)

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            if not self._waiting:
                self._connection.send_bytes(b"")
                self._process.join(2)
        self._end()

    _fresh = False
    """Whether the process has been started since it was last told the weights."""


@contextlib.contextmanager
def interrupts_blocked() -> Generator[None]:
    """Keep Ctrl-C from a process that is being started until it ignores it; ours comes when this ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent, which ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def revived(kind: type[Exception], message: str) -> Exception:
    """Return an error of another process as itself; its class may ask for other arguments."""
    error = kind.__new__(kind, message)
    error.args = (message,)
    return error


def _serve(connection: Connection, recipe: Recipe) -> None:
    """The helper's life: build shards when first asked, answer until the other end goes away."""
    ignore_interrupts()
    os.environ["OMP_NUM_THREADS"] = "1"
    shards = Shards(recipe)
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            weights = connection.recv_bytes()
            if not weights:
                break
            connection.send_bytes(_do(shards, weights, connection.recv_bytes()))


def _do(shards: Shards, weights: bytes, work: bytes) -> bytes:
    try:
        fresh = pickle.loads(weights)  # noqa: S301  # from our own parent
        if fresh is not None:
            shards.load(fresh)
        results = [job(shards[number]) for number, job in pickle.loads(work)]  # noqa: S301  # from our own parent
        return pickle.dumps((results, None, cpu_seconds()))
    except AgentrlError as error:
        return pickle.dumps(([], (type(error), str(error)), cpu_seconds()))
    except Exception:  # noqa: BLE001  # crosses to the parent, which raises it
        return pickle.dumps(
            ([], (RuntimeError, f"in a helper process:\n{traceback.format_exc()}"), cpu_seconds())
        )


class Shards:
    """The shards of a process, built when first used, on one model: the given one or that of the recipe."""

    def __init__(
        self, recipe: Recipe, model: PreTrainedModel | None = None, renderer: Renderer | None = None
    ) -> None:
        self.recipe = recipe
        self._built: dict[int, Shard] = {}
        self._model = model
        self._renderer = renderer
        self._reader: Reader | None = None

    def model(self) -> PreTrainedModel | None:
        """The model of all shards, loaded when first needed, so that what goes wrong is an answer."""
        self._load_model()
        return self._model

    def read_by(self, reader: Reader) -> None:
        """Differentiate with another reader than the model itself."""
        self._reader = reader
        for shard in self._built.values():
            shard.reader = reader

    def _load_model(self) -> None:
        if self._model is not None or self.recipe.model_folder is None:
            return
        import torch

        from agentrl.policy.load import load_model

        torch.set_num_threads(1)
        shape = self.recipe.shape
        self._model, self._renderer = load_model(
            str(self.recipe.model_folder), shape.renderer, variables=shape.template
        )

    def __getitem__(self, number: int) -> Shard:
        if number not in self._built:
            self._load_model()
            recipe = self.recipe
            self._built[number] = Shard(
                recipe.environment, recipe.limits, self._model, self._renderer, recipe.shape, recipe.memory
            )
            self._built[number].reader = self._reader
        return self._built[number]

    def close(self) -> None:
        """Close the environments."""
        for shard in self._built.values():
            shard.close()

    def load(self, weights: object) -> None:
        """Put (P,) flat weights into the model."""
        import numpy as np
        import torch

        from agentrl.learn.gradient import load_flat

        self._load_model()
        if self._model is not None and isinstance(weights, np.ndarray):
            load_flat(self._model, torch.from_numpy(weights))

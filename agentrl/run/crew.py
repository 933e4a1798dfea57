"""Shards on processes: the second core rolls out, evaluates and differentiates beside the first.

Work is cut by shard, in a fixed order, and results are merged in that order; how many processes hold the shards
changes the time and nothing else. Each process has one torch thread. Every wait has a deadline.
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
from typing import TYPE_CHECKING, Protocol, TypeVar

from agentrl.errors import AgentrlError, RolloutError
from agentrl.run.shard import Shard, cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel

    from agentrl.policy.render import Renderer
    from agentrl.run.settings import EnvironmentSettings, LimitSettings, ModelSettings

Result = TypeVar("Result", covariant=True)


class Job(Protocol[Result]):
    """Something a shard does; picklable."""

    def __call__(self, shard: Shard) -> Result: ...


@dataclass(frozen=True)
class Recipe:
    """What a process needs to build its shards."""

    environment: EnvironmentSettings
    limits: LimitSettings
    shape: ModelSettings
    model_folder: Path | None


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
    _own: list[Shard] = field(init=False, repr=False)
    _helpers: list[Helper] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.processes = min(self.processes, self.shards)
        self._helpers = [Helper(self.recipe) for _ in range(self.processes - 1)]
        self._own = [self._build() for _ in range(self.shards)]

    def _build(self) -> Shard:
        recipe = self.recipe
        return Shard(recipe.environment, recipe.limits, self.model, self.renderer, recipe.shape)

    def run(self, jobs: Sequence[Job[Result]], weights: torch.Tensor | None = None) -> list[Result]:
        """Do job k on shard k, and return the results in that order.

        Args:
            weights: (P,) weights of the model where helpers need newer ones; this process already has them.

        Raises:
            RolloutError: a helper process died twice on the same work.
        """
        shares = self._shares(len(jobs))
        for helper, share in zip(self._helpers, shares[1:], strict=True):
            helper.send(weights, [(number, jobs[number]) for number in share])
        done: dict[int, Result] = {number: jobs[number](self._own[number]) for number in shares[0]}
        for helper, share in zip(self._helpers, shares[1:], strict=True):
            done.update(zip(share, helper.receive(self.patience), strict=True))
        return [done[number] for number in range(len(jobs))]

    def _shares(self, jobs: int) -> list[list[int]]:
        return [list(range(jobs))[place :: self.processes] for place in range(self.processes)]

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
        for shard in self._own:
            shard.close()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Helper:
    """A process that holds shards. A dead one is started again and given the same work once more."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.cpu_seconds = 0.0
        self._past = 0.0
        self._weights: bytes = pickle.dumps(None)
        self._work: bytes = b""
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(target=_serve, args=(theirs, self.recipe), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, weights: torch.Tensor | None, work: list[tuple[int, Job[object]]]) -> None:
        """Hand over work without waiting for it."""
        if weights is not None:
            self._weights = pickle.dumps(weights.numpy())
        self._work = pickle.dumps(work)
        fresh = self._weights if weights is not None else pickle.dumps(None)
        with contextlib.suppress(OSError):
            self._post(fresh)

    def _post(self, weights: bytes) -> None:
        self._connection.send_bytes(weights)
        self._connection.send_bytes(self._work)

    def receive(self, patience: float) -> list[object]:
        """Wait for the results of the work that was sent."""
        answer = self._answer(patience)
        if answer is None:
            self._restart()
            self._post(self._weights)
            answer = self._answer(patience)
        if answer is None:
            raise RolloutError(
                "a helper process died twice on the same work (out of memory?). Use processes = 1, or a smaller "
                "model.slots or micro_tokens; the run can be resumed."
            )
        results, error, seconds = answer
        self.cpu_seconds = self._past + seconds
        if error is not None:
            raise error
        return results

    def _answer(self, patience: float) -> tuple[list[object], Exception | None, float] | None:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                if self._connection.poll(0.2):
                    answer: tuple[list[object], Exception | None, float] = pickle.loads(
                        self._connection.recv_bytes()
                    )  # our own child
                    return answer
            except (EOFError, OSError):
                return None
            if not self._process.is_alive() and not self._connection.poll(0):
                return None
        return None

    def _restart(self) -> None:
        self._past = self.cpu_seconds
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
            self._connection.send_bytes(b"")
            self._process.join(2)
        self._end()


def _serve(connection: Connection, recipe: Recipe) -> None:
    """The helper's life: build shards when first asked, answer until the other end goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    shards = _Shards(recipe)
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            weights = connection.recv_bytes()
            if not weights:
                break
            work = connection.recv_bytes()
            connection.send_bytes(pickle.dumps(_do(shards, weights, work)))


def _do(shards: _Shards, weights: bytes, work: bytes) -> tuple[list[object], Exception | None, float]:
    try:
        fresh = pickle.loads(weights)  # noqa: S301  # from our own parent
        if fresh is not None:
            shards.load(fresh)
        return [job(shards[number]) for number, job in pickle.loads(work)], None, cpu_seconds()  # noqa: S301  # from our own parent
    except AgentrlError as error:
        return (
            [],
            type(error)(str(error)) if type(error).__init__ is Exception.__init__ else error,
            cpu_seconds(),
        )
    except Exception:  # noqa: BLE001  # crosses to the parent, which raises it
        return [], RuntimeError(f"in a helper process:\n{traceback.format_exc()}"), cpu_seconds()


class _Shards:
    """The shards of a helper process, built when first used, on one model."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._built: dict[int, Shard] = {}
        self._model: PreTrainedModel | None = None
        self._renderer: Renderer | None = None
        if recipe.model_folder is not None:
            import torch

            from agentrl.policy.load import load_model

            torch.set_num_threads(1)
            self._model, self._renderer = load_model(str(recipe.model_folder), recipe.shape.renderer)

    def __getitem__(self, number: int) -> Shard:
        if number not in self._built:
            recipe = self.recipe
            self._built[number] = Shard(
                recipe.environment, recipe.limits, self._model, self._renderer, recipe.shape
            )
        return self._built[number]

    def load(self, weights: object) -> None:
        import numpy as np
        import torch

        from agentrl.learn.gradient import load_flat

        if self._model is not None and isinstance(weights, np.ndarray):
            load_flat(self._model, torch.from_numpy(weights))

"""The processes that torchrun started for one run: the first leads, the others do as it says.

Only the leader runs the program: it draws, credits, reports and writes. A follower waits for commands, does
its share and answers, so nothing of a run is decided twice. Every wait ends after `patience` seconds, and at
once where a process has died.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from agentrl.errors import ConfigError, RolloutError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from agentrl.run.settings import TrainSettings

Result = TypeVar("Result")
PATIENCE = 1800.0
"""Seconds after which a silent process counts as dead."""


@dataclass
class Ranks:
    """This process among those of a run.

    Args:
        rank: its number, 0 for the leader; `size`: how many there are.
    """

    rank: int
    size: int
    patience: float = PATIENCE
    _unheard: bool = field(init=False, default=False)

    def tell(self, messages: Sequence[object]) -> None:
        """Send each process its message; the leader's own is left with it."""
        import torch.distributed as dist

        self._unheard = True
        with self.connected():
            dist.scatter_object_list([None], list(messages), src=0)

    def hear(self, own: object) -> list[object]:
        """Return the answers of all processes, in order."""
        import torch.distributed as dist

        answers: list[object] = [None] * self.size
        with self.connected():
            dist.gather_object(own, answers, dst=0)
        self._unheard = False
        return answers

    def listen(self) -> object:
        """Wait for the leader's next message."""
        import torch.distributed as dist

        heard: list[object] = [None]
        with self.connected():
            dist.scatter_object_list(heard, None, src=0)
        return heard[0]

    def answer(self, value: object) -> None:
        """Send the leader an answer."""
        import torch.distributed as dist

        with self.connected():
            dist.gather_object(value, None, dst=0)

    @contextlib.contextmanager
    def connected(self) -> Generator[None]:
        """Say in a sentence that another process was lost. Raises `RolloutError`."""
        try:
            yield
        except RuntimeError as error:
            if not _of_the_connection(error):
                raise
            raise RolloutError(
                f"another of the {self.size} processes of torchrun ended, or was silent for "
                f"{self.patience:g} s; what it said stands above (nothing: out of memory, or killed). "
                "The run can be resumed from its newest checkpoint."
            ) from error

    def dismiss(self, outcome: object) -> None:
        """Tell the followers how the run ended; where they cannot hear it, close the connection."""
        import torch.distributed as dist

        if self._unheard:
            dist.destroy_process_group()
            return
        with contextlib.suppress(RolloutError):
            self.tell([End(outcome)] * self.size)
        self._unheard = False


def _of_the_connection(error: RuntimeError) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error)


@dataclass(frozen=True)
class End:
    """The leader's last message: what its run returned, or the `Failure` that ended it."""

    outcome: object


@dataclass(frozen=True)
class Failure:
    """An error that crosses to another process."""

    kind: type[Exception]
    message: str


def under_torchrun() -> bool:
    """Whether torchrun started this process together with others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def follows() -> bool:
    """Whether this process follows another of the same run."""
    return under_torchrun() and os.environ.get("RANK") != "0"


def join(patience: float = PATIENCE) -> Ranks:
    """Connect the processes that torchrun started (gloo, on CPUs)."""
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(seconds=patience))
    return Ranks(dist.get_rank(), dist.get_world_size(), patience)


def check_ranks(settings: TrainSettings, size: int) -> None:
    """Raise `ConfigError` where a run cannot go on that many processes."""
    if settings.shards % size:
        raise ConfigError(
            f"torchrun started {size} processes and the run is cut into {settings.shards} shards, which are "
            f"dealt evenly. Set shards={size} or a multiple of it; a resumed run keeps the number it was "
            "started with, so give torchrun a divisor of it."
        )
    if settings.control.enabled and settings.control.beside:
        raise ConfigError(
            "control.beside trains the control in one more process of this machine, which torchrun knows "
            "nothing of. Set control.beside=false: the control comes after reinforcement, on all processes."
        )


def lead(ranks: Ranks, work: Callable[[], Result]) -> Result:
    """Do the work of the leader, and tell the followers how it ended."""
    try:
        result = work()
    except Exception as error:
        ranks.dismiss(Failure(type(error), str(error)))
        raise
    except BaseException as error:  # Ctrl-C
        ranks.dismiss(Failure(RolloutError, f"the leading process was stopped ({type(error).__name__})."))
        raise
    ranks.dismiss(result)
    return result

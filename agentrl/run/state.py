"""Where a run stands: the little that a checkpoint holds besides weights and optimizer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from agentrl.credit.ledger import Ledger
from agentrl.errors import RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PHASES = ("warm_start", "rl", "control", "done")


@dataclass(frozen=True)
class RunState:
    """The progress of a run.

    Attributes:
        phase, step: `step` steps of `phase` are done.
        cpu_seconds: CPU-seconds of each phase, evaluations left out; `seconds`: wall-clock seconds in all.
        sizes: bytes of each growing file, so that a resume forgets what came after the checkpoint.
        best: success and step of the best curve evaluation of the reinforcement phase.
        ledger: running statistics of tasks; `empty_batches`: batches of which nothing was learned.
        dealt: tasks that the sampler has dealt.
        sampled_tokens: tokens that the policy has drawn in reinforcement.
    """

    phase: str = "warm_start"
    step: int = 0
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    sizes: Mapping[str, int] = field(default_factory=dict)
    best: tuple[float, int] | None = None
    ledger: Ledger = field(default_factory=Ledger)
    empty_batches: int = 0
    dealt: int = 0
    sampled_tokens: int = 0

    def spend(self, phase: str, seconds: float) -> RunState:
        """Return the state after `seconds` more CPU-seconds of a phase."""
        return replace(
            self, cpu_seconds={**self.cpu_seconds, phase: self.cpu_seconds.get(phase, 0.0) + seconds}
        )

    def save(self, path: Path) -> None:
        """Write the state as JSON."""
        content = {**asdict(replace(self, ledger=Ledger())), "ledger": self.ledger.to_json()}
        path.write_text(json.dumps(content))

    @classmethod
    def read(cls, path: Path) -> RunState:
        """Read a state that `save` wrote."""
        try:
            content = json.loads(path.read_text())
            best = content.pop("best")
            ledger = Ledger.from_json(content.pop("ledger"))
            return cls(**content, best=tuple(best) if best else None, ledger=ledger)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunDirectoryError(
                f"{path} cannot be read as a run's state: {error}. Resume from another checkpoint."
            ) from error

    @property
    def name(self) -> str:
        """Name of the checkpoint of this state; names sort by progress."""
        return f"{PHASES.index(self.phase)}-{self.phase}-{self.step:06d}"

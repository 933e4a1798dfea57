"""Faults on purpose: environments and tools that raise, hang or are slow, for tests of whatever runs them."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from agentrl.errors import CheckError, EnvironmentFault
from agentrl.world.env import StepResult, Task, TextEnv
from agentrl.world.tool import Tool, tools_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from agentrl.world.toolbox import Toolbox


Kind: TypeAlias = Literal["raise", "fault", "hang", "slow"]


@dataclass(eq=False)
class Faults:
    """Draws faults from a generator of its own, one draw for each call.

    Share one between environments to make faults pass: a retry draws again.

    Args:
        p: probability of a fault at each call.
        kinds: `raise` a RuntimeError, `fault` an EnvironmentFault, `hang` and `slow` sleep before the call.
        seed: of the draws.
        hang_seconds, slow_seconds: how long a call sleeps.
    """

    p: float
    kinds: Sequence[Kind] = ("raise",)
    seed: int = 0
    hang_seconds: float = 3600.0
    slow_seconds: float = 0.05
    count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1 or not self.kinds:
            raise CheckError(
                f"p must be within [0, 1] and kinds not empty; got p={self.p}, kinds={self.kinds}."
            )
        self._noise = np.random.Generator(np.random.Philox(key=self.seed))
        self._lock = threading.Lock()
        self._released = threading.Event()

    def __deepcopy__(self, memo: dict[int, object]) -> Faults:
        # Copies of an environment draw from the same sequence.
        return self

    def strike(self, what: str) -> None:
        """Fail, wait or do nothing. `count` counts the faults."""
        with self._lock:
            struck = bool(self._noise.random() < self.p)
            kind = self.kinds[int(self._noise.integers(len(self.kinds)))]
            self.count += struck
        if not struck:
            return
        if kind == "raise":
            raise RuntimeError(f"injected failure of {what}")
        if kind == "fault":
            raise EnvironmentFault(f"injected fault of {what}")
        if kind == "hang":
            self._released.wait(self.hang_seconds)
        else:
            time.sleep(self.slow_seconds)

    def release(self) -> None:
        """Let every hanging call go on, so that a test's threads end."""
        self._released.set()


class FaultyEnv(TextEnv):
    """An environment whose `reset` and `step` fail now and then; in everything else it is the wrapped one.

    Args:
        env: what is wrapped.
        p: probability of a fault at each call.
        kinds: of faults, see `Faults`.
        seed: of the draws; not of the environment.
        faults: shared between environments, instead of `p`, `kinds` and `seed`.
    """

    blocks: bool = True

    def __init__(
        self,
        env: TextEnv,
        p: float = 0.1,
        kinds: Sequence[Kind] = ("raise",),
        seed: int = 0,
        *,
        faults: Faults | None = None,
    ) -> None:
        self.env = env
        self.faults = faults if faults is not None else Faults(p, kinds, seed)
        super().__init__(render_mode=env.render_mode)
        self.protocol = env.protocol

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Reset the wrapped environment, unless a fault strikes."""
        self.faults.strike("reset")
        self.env.protocol, self.env.step_seconds = self.protocol, self.step_seconds
        result = self.env.reset(seed=seed, options=options)
        self.task = self.env.task
        self._np_random, self._np_random_seed = self.env.np_random, self.env.np_random_seed
        return result

    def step(self, action: str) -> StepResult:
        """Step the wrapped environment, unless a fault strikes first."""
        self.faults.strike("step")
        self.env.turn_key = self.turn_key
        return self.env.step(action)

    @functools.cached_property
    def toolbox(self) -> Toolbox:
        """The tools of the wrapped environment."""
        return self.env.toolbox

    def list_splits(self) -> tuple[str, ...]:
        """As the wrapped environment."""
        return self.env.list_splits()

    def num_tasks(self, split: str) -> int | None:
        """As the wrapped environment."""
        return self.env.num_tasks(split)

    def get_task(self, split: str, index: int) -> Task:
        """As the wrapped environment."""
        return self.env.get_task(split, index)

    def system_text(self) -> str:
        """As the wrapped environment."""
        self.env.protocol = self.protocol
        return self.env.system_text()

    def observation_key(self) -> Hashable | None:
        """As the wrapped environment."""
        return self.env.observation_key()

    def state_key(self) -> Hashable | None:
        """As the wrapped environment."""
        return self.env.state_key()

    def gold(self) -> str | None:
        """As the wrapped environment."""
        return self.env.gold()

    def admissible(self) -> Sequence[str] | None:
        """As the wrapped environment."""
        return self.env.admissible()

    def close(self) -> None:
        """Close the wrapped environment."""
        self.env.close()


class FaultyTool(Tool):
    """A tool that fails now and then.

    Args:
        tool: a `Tool` or a function marked with `@tool`.
        p, kinds, seed: see `Faults`.
    """

    def __init__(
        self, tool: object, p: float = 0.1, kinds: Sequence[Kind] = ("raise",), seed: int = 0
    ) -> None:
        (found,) = tools_of(tool)
        faults = Faults(p, kinds, seed)
        function = _Faulty(found.function, faults, found.name)
        super().__init__(found.signature, function, found.timeout, found.max_characters, found.errors)


@dataclass(frozen=True)
class _Faulty:
    function: Callable[..., object]
    faults: Faults
    name: str

    def __call__(self, **arguments: object) -> object:
        self.faults.strike(self.name)
        return self.function(**arguments)

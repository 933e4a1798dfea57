"""The contract of an environment: a Gymnasium environment whose actions and observations are text.

Two styles, one loop. Either override `reset` and `step` as in Gymnasium, or define only `@tool` methods and
let the inherited `step` parse, validate and dispatch the agent's calls.
"""

from __future__ import annotations

import copy
import functools
import pickle
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypedDict
from typing import Protocol as TypingProtocol

import gymnasium
import numpy as np

from agentrl.errors import EnvironmentUsageError
from agentrl.world.guard import guard_reset, guard_restore, guard_step
from agentrl.world.protocol import PlainText, Protocol, Tags
from agentrl.world.space import TextSpace
from agentrl.world.terms import Meter
from agentrl.world.tool import tools_of
from agentrl.world.toolbox import Toolbox

if TYPE_CHECKING:
    import random
    from collections.abc import Hashable, Mapping, Sequence

    from agentrl.world.protocol import Parsed
    from agentrl.world.terms import Terms
    from agentrl.world.toolbox import TurnKey

Reading: TypeAlias = "tuple[Protocol, str, Parsed]"
StepResult: TypeAlias = tuple[str, float, bool, bool, dict[str, object]]
STEP_SECONDS = 60.0
"""How long a `step` may take where nobody says otherwise."""
_SHARED = {
    "observation_space", "action_space", "protocol", "terms", "step_seconds", "toolbox", "turn_key",
    "reading", "spec", "render_mode",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a split.

    Attributes:
        split, index: its address; `id` is "split/index" and names it in files and reports.
        prompt: what the agent is told first by an environment that inherits `reset`.
        data: whatever the environment needs to build the task; never shown to the agent.
        type: a label that reports group by (ALFWorld's six task types, a number of hops).
    """

    split: str
    index: int
    prompt: str = ""
    data: Mapping[str, object] = field(default_factory=dict)
    type: str = ""

    @property
    def id(self) -> str:
        """The address as text, for example "train/17"."""
        return f"{self.split}/{self.index}"


class ResetOptions(TypedDict, total=False):
    """The options of `reset`: which task. Without `index` one is drawn from the seed."""

    split: str
    index: int


class Expert(TypingProtocol):
    """A scripted player of one episode that sees only what an agent sees."""

    def act(self) -> str:
        """Choose the next action."""
        ...

    def observe(self, command: str, feedback: str) -> None:
        """Learn what an action gave, the expert's own or somebody else's."""
        ...


class TextEnv(gymnasium.Env[str, str]):
    """A text environment: `reset(seed, options) -> (obs, info)`, `step(action) -> 5-tuple`.

    Reserved keys of `info`, all optional: `"success"` (bool, at the end), `"valid"` (bool, False when the
    action was refused), `"turn_kind"` (a `TurnKind`), `"rewards"` (named components of the reward),
    `"metrics"` (named numbers), `"tool_calls"` (tuple of `ToolCall`), `"results"` (of a turn with several
    calls, what the agent reads of each), `"domain"` and `"task_type"` (labels), `"sandbox_tier"` (how
    strongly the agent's programs were held, from the step that ends the episode).

    Calling `step` before `reset` or after the episode ended raises `EnvironmentUsageError`, also for classes
    that override `step`.

    Attributes:
        reward_names: components that `info["rewards"]` has in some turns only; an algorithm that reads one is
            refused at the start where the first episode lacks it and it is not named here.
        reward_range: the least and the largest reward of a step; `check_env` holds the world to it.
        blocks: whether `step` may wait (network, processes); such environments run in threads.
        protocol: how the inherited `step` reads actions; the rollout sets it.
        terms: budgets and costs of tools by name, counted per episode; the rollout sets them.
        step_seconds: after which a `step` is given up as a failure of infrastructure; the rollout sets it.
            What an agent may draw out ends before, by deadlines of the world's own within half of it.
        turn_key: (trajectory, turn) of the next `step`; the rollout sets it, so that tools execute once.
        reading: what a protocol reads in the next action; the rollout sets it, so that no turn is read twice.
        task: the current task; `rng`: this instance's own generator, seeded by `reset`.
    """

    metadata: ClassVar[dict[str, object]] = {"render_modes": ["ansi"], "render_fps": 4}  # type: ignore[misc]  # gymnasium: plain attribute
    blocks: bool = False
    is_async: ClassVar[bool] = False
    splits: ClassVar[tuple[str, ...]] = ("train",)
    reward_names: tuple[str, ...] = ()
    reward_range: tuple[float, float] | None = None
    protocol: Protocol = Tags()
    terms: Mapping[str, Terms] = MappingProxyType({})
    step_seconds: float = STEP_SECONDS
    turn_key: TurnKey | None = None
    reading: Reading | None = None
    task: Task
    # Defaults of the class, so that a subclass that forgets super().__init__() still gets a sentence.
    _phase: str = "new"
    _last_observation: str = ""
    _last_key: str | None = None
    _finished: tuple[float, bool | None] | None = None
    _meter: Meter = Meter({})

    def __init__(self, *, render_mode: str | None = None) -> None:
        self.observation_space = TextSpace()
        self.action_space = TextSpace()
        self.render_mode = render_mode

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "reset" in cls.__dict__:
            cls.reset = guard_reset(cls.__dict__["reset"])  # type: ignore[method-assign]  # same signature
        if "step" in cls.__dict__:
            cls.step = guard_step(cls.__dict__["step"])  # type: ignore[assignment]  # same signature
        if "restore" in cls.__dict__:
            cls.restore = guard_restore(cls.__dict__["restore"])  # type: ignore[assignment]  # same signature

    # -- tasks ---------------------------------------------------------------------------------------------

    def list_splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return self.splits

    def num_tasks(self, split: str) -> int | None:
        """Return the number of tasks of a split, None where it has no end."""
        self._check_split(split)
        return 1

    def get_task(self, split: str, index: int) -> Task:
        """Return the task at (split, index). Raises `EnvironmentUsageError` outside the split."""
        self._check_split(split)
        return Task(split, index)

    def _check_split(self, split: str) -> None:
        if split not in self.list_splits():
            raise EnvironmentUsageError(
                f"{type(self).__name__} has no split {split!r}; "
                f"its splits are {', '.join(self.list_splits())}."
            )

    # -- the episode ---------------------------------------------------------------------------------------

    @property
    def rng(self) -> np.random.Generator:
        """This instance's generator, seeded by `reset(seed=...)`; never the global one."""
        return self.np_random

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin an episode of one task and return its first observation.

        Args:
            seed: seeds `rng`. The rollout gives all members of a group the same (task, seed).
            options: `{"split": ..., "index": ...}`; by default the first split, an index drawn from `rng`.
        """
        super().reset(seed=seed)
        self.task = self._choose_task(options or {})
        self._phase = "running"
        self._finished = None
        self._meter = Meter(dict(self.terms))
        self._note(self.task.prompt, valid=True)
        return self.task.prompt, {}

    def _choose_task(self, options: Mapping[str, object]) -> Task:
        unknown = set(options) - {"split", "index"}
        if unknown:
            raise EnvironmentUsageError(f"reset options may be 'split' and 'index'; got {sorted(unknown)}.")
        split = options.get("split", self.list_splits()[0])
        if not isinstance(split, str):
            raise EnvironmentUsageError(f"the reset option 'split' must be a text; got {split!r}.")
        self._check_split(split)
        size = self.num_tasks(split)
        index = options.get("index")
        if index is None:
            index = int(self.rng.integers(size if size is not None else 2**31))
        if isinstance(index, bool) or not isinstance(index, int | np.integer) or index < 0:
            raise EnvironmentUsageError(f"the reset option 'index' must be an integer >= 0; got {index!r}.")
        if size is not None and index >= size:
            raise EnvironmentUsageError(f"split {split!r} has {size} tasks; index {index} is outside.")
        return self.get_task(split, int(index))

    def step(self, action: str) -> StepResult:
        """Execute the agent's action; the inherited form dispatches tool calls.

        Returns observation, reward, terminated, truncated, info.
        """
        self._check_running()
        parsed = self._parsed(action)
        key, self.turn_key = self.turn_key, None
        reply = self.toolbox.run(
            parsed,
            key=key,
            finished=lambda: self._finished is not None,
            meter=self._meter,
            seconds=self.step_seconds / 2,
        )
        reward, done = reply.reward, reply.done
        info: dict[str, object] = {
            "turn_kind": reply.kind,
            "valid": reply.valid,
            "tool_calls": reply.calls,
            "metrics": dict(reply.metrics),
        }
        if len(reply.calls) > 1:
            info["results"] = tuple(call.result for call in reply.calls)
        if self._finished is not None:
            reward, done = reward + self._finished[0], True
            info["success"] = self._finished[1]
        self._note(reply.text, valid=reply.valid)
        self._phase = "over" if done else "running"
        return reply.text, reward, done, False, info

    def _parsed(self, action: str) -> Parsed:
        known, self.reading = self.reading, None
        if known is not None and known[0] is self.protocol and known[1] == action:
            return known[2]
        return self.protocol.parse(action)

    def finish(self, reward: float = 0.0, *, success: bool | None = None) -> None:
        """End the episode after the running tool call, adding `reward`; for `@tool` methods."""
        self._finished = (reward, success if success is not None else reward > 0)

    def render(self) -> str:
        """Return the last observation."""
        return self._last_observation

    @functools.cached_property
    def toolbox(self) -> Toolbox:
        """The `@tool` methods of this instance."""
        return Toolbox(tools_of(self))

    def default_protocol(self) -> Protocol:
        """Return plain text for a world that defines its own `step`, else `protocol`."""
        return PlainText() if type(self).step is not TextEnv.step else self.protocol

    def system_text(self) -> str:
        """Return what the agent is told about this world before the first observation."""
        return self.protocol.describe(self.toolbox.tools)

    # -- hooks for credit, probes and branching ------------------------------------------------------------

    def observation_key(self) -> Hashable | None:
        """Return what the agent has seen as an anchor key; None makes no anchor.

        The default is the last observation that did not refuse an action: an error reply never makes a key.
        """
        return self._last_key

    def state_key(self) -> Hashable | None:
        """Return the true state as an anchor key, or None. Privileged: training only, reported as such."""
        return None

    def gold(self) -> str | None:
        """Return the reference answer for probes, or None. Never shown to the agent."""
        return None

    def admissible(self) -> Sequence[str] | None:
        """Return the commands that would be accepted now, or None. For checks and random play only."""
        return None

    def expert(self, observation: str) -> Expert | None:
        """Return a player that solves the task from its texts alone, or None.

        Args:
            observation: the first observation of the episode.
        """
        del observation
        return None

    def disturbance(self, rng: random.Random) -> str | None:
        """Return a command as an untrained agent might give it now, admissible or not, or None.

        Demonstrations execute some of these between the expert's turns, so that errors and recovery are seen.
        Let it name only what the agent has seen: copying from the context is what demonstrations teach.
        """
        del rng
        return None

    def snapshot(self) -> object:
        """Return the whole state of the episode; `restore` of it must bring back identical behaviour.

        Raises:
            EnvironmentUsageError: this world has no snapshots; rollouts that branch replay its actions. The
                inherited form says so of what cannot be copied (a generator, a lock, an open file).
        """
        try:
            return copy.deepcopy(
                {name: value for name, value in self.__dict__.items() if name not in _SHARED}
            )
        except (TypeError, copy.Error, pickle.PicklingError) as error:
            raise EnvironmentUsageError(f"{type(self).__name__} cannot be copied: {error}.") from error

    def restore(self, state: object) -> None:
        """Go back to a `snapshot`, also one taken from another instance of the same world."""
        if not isinstance(state, dict):
            raise EnvironmentUsageError(
                f"restore needs what snapshot() returned; got {type(state).__name__}."
            )
        for name in set(self.__dict__) - set(state) - _SHARED:
            del self.__dict__[name]
        self.__dict__.update(copy.deepcopy(state))

    def __getstate__(self) -> dict[str, object]:
        # The toolbox is bound to this instance and is rebuilt where a copy needs it.
        return {name: value for name, value in self.__dict__.items() if name != "toolbox"}

    def _note(self, observation: str, *, valid: bool) -> None:
        self._last_observation = observation
        if valid:
            self._last_key = observation

    def _check_running(self) -> None:
        if self._phase == "running":
            return
        name = type(self).__name__
        if self._phase == "new":
            raise EnvironmentUsageError(f"step() of {name} was called before reset(); call reset() first.")
        raise EnvironmentUsageError(
            f"step() of {name} was called after its episode ended; call reset() to begin another."
        )

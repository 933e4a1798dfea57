"""What happened in a rollout, as objects: turns, trajectories and invalid rollouts.

A turn stores the tokens that it *adds* to its stream, so a trajectory is linear in its length and the
concatenation along a stream is exactly what the model saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

IntArray: TypeAlias = NDArray[np.int32]
FloatArray: TypeAlias = NDArray[np.float32]


class StopReason(StrEnum):
    """Why a valid trajectory ended; everything but `TERMINATED` is a truncation and scores."""

    TERMINATED = "terminated"
    TRUNCATED = "truncated"
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    CONTEXT = "context"
    REPEATED = "repeated"


class InvalidReason(StrEnum):
    """Why a rollout gave no trajectory: infrastructure, never the agent."""

    WALL_CLOCK = "wall_clock"
    ENVIRONMENT_ERROR = "environment_error"
    ENVIRONMENT_FAULT = "environment_fault"
    POLICY_ERROR = "policy_error"
    WORKER_DIED = "worker_died"
    CANCELLED = "cancelled"


class TurnKind(StrEnum):
    """What became of a turn; where several apply the last one listed wins."""

    OK = "ok"
    TOOL_ERROR = "tool_error"
    PARSE_ERROR = "parse_error"
    TRUNCATED = "truncated"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One executed tool call. `start` and `end` are offsets into the turn's sampled tokens."""

    name: str
    arguments: str
    result: str = ""
    error: str | None = None
    start: int = 0
    end: int = 0
    seconds: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Span:
    """A role span (`think`, `tool_call`, `answer`) of the sampled tokens [start, end)."""

    role: str
    start: int
    end: int


_NO_TOKENS: IntArray = np.zeros(0, dtype=np.int32)


def no_tokens() -> IntArray:
    """Return an empty token array, always the same one: nothing can be written into it."""
    return _NO_TOKENS


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One decision of the policy and what the environment made of it.

    Attributes:
        prompt_tokens: (P,) tokens added before sampling: the observation and its markup.
        tokens: (N,) sampled ids, exactly as sampled, stop token included; `None` from text-only policies.
        logprobs: (N,) log-probability of each sampled id under the distribution it was drawn from, in nats.
        observation: the text that the agent answered; `text`: what it wrote; `action`: what was executed.
        reward: sum of this turn's rewards; `rewards` holds its named components.
        valid: whether the environment accepted the action (False for ALFWorld's "Nothing happens.").
        spoofed: whether the text forged tool output or role markers.
        fresh: whether this turn begins a new token stream (the history was rewritten).
        observation_key, state_key: 64-bit digests *before* the action; None makes no anchor.
        loss_prompt_tokens: the prompt under which the loss is computed where it differs (hint-free context).
        measures: named scalars of the turn (a probe's gold log-probability, a judge's score).
        token_measures: named (N,) arrays (entropy at sampling time).
    """

    prompt_tokens: IntArray
    tokens: IntArray | None
    logprobs: FloatArray | None
    observation: str
    text: str
    action: str
    reward: float = 0.0
    rewards: Mapping[str, float] = field(default_factory=dict[str, float])
    kind: TurnKind = TurnKind.OK
    valid: bool = True
    spoofed: bool = False
    fresh: bool = False
    observation_key: int | None = None
    state_key: int | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    spans: tuple[Span, ...] = ()
    role: str = "agent"
    finish: str = "stop"
    policy_version: int = 0
    generate_seconds: float = 0.0
    environment_seconds: float = 0.0
    snapshot: str | None = None
    loss_prompt_tokens: IntArray | None = None
    measures: Mapping[str, float] = field(default_factory=dict[str, float])
    token_measures: Mapping[str, FloatArray] = field(default_factory=dict[str, FloatArray])


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One finished episode of one member of a group.

    Attributes:
        id: unique within a run; `parent` and `branch_turn` name where a branch left its parent (trees).
        group: members of one group share (task, environment seed) and so start equal.
        seed: the environment's seed; sampling noise is keyed by (run seed, step, task, member, turn).
        success: what the environment says, None where it has no notion of success.
        final_observation_key, final_state_key: digests after the last action.
        metrics: named scalars of the whole episode.
        gold: the reference answer, for probes; the agent never saw it.
        system: what the agent was told before the first observation.
    """

    id: str
    environment: str
    task: str
    group: str
    turns: tuple[Turn, ...]
    stop: StopReason
    member: int = 0
    seed: int = 0
    step: int = 0
    success: bool | None = None
    final_observation: str = ""
    final_observation_key: int | None = None
    final_state_key: int | None = None
    parent: str | None = None
    branch_turn: int | None = None
    domain: str = ""
    task_type: str = ""
    hint_level: int = 0
    policy: str = ""
    sandbox_tier: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    gold: str | None = None
    system: str = ""

    @property
    def reward(self) -> float:
        """Sum of the turns' rewards, undiscounted."""
        return float(sum(turn.reward for turn in self.turns))

    @property
    def truncated(self) -> bool:
        """Whether a limit ended the episode instead of the environment."""
        return self.stop is not StopReason.TERMINATED


@dataclass(frozen=True, slots=True)
class Invalid:
    """A rollout that gave no trajectory; counted apart, never a reward, never in a baseline."""

    reason: InvalidReason
    detail: str
    environment: str
    task: str
    group: str
    member: int = 0
    step: int = 0
    turns_done: int = 0


def same(first: object, second: object) -> bool:
    """Return whether two records (trajectories, turns, invalid rollouts) are equal, arrays and NaN included.

    >>> turn = Turn(no_tokens(), no_tokens(), np.zeros(0, np.float32), "look", "a lamp", "look")
    >>> same((turn,), (turn,)), same(turn, Invalid(InvalidReason.CANCELLED, "", "e", "t", "g"))
    (True, False)
    """
    if np.ndarray in {type(first), type(second)}:
        return _same_array(first, second)
    if is_dataclass(first) and type(first) is type(second):
        return all(same(getattr(first, item.name), getattr(second, item.name)) for item in fields(first))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        left, right = cast("Mapping[str, object]", first), cast("Mapping[str, object]", second)
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        pair = cast("tuple[object, ...]", first), cast("tuple[object, ...]", second)
        return len(pair[0]) == len(pair[1]) and all(map(same, *pair))
    return bool(first == second or (first != first and second != second))  # noqa: PLR0124  NaN equals NaN here


def _same_array(first: object, second: object) -> bool:
    if not (isinstance(first, np.ndarray) and isinstance(second, np.ndarray)):
        return False
    left, right = cast("NDArray[np.generic]", first), cast("NDArray[np.generic]", second)
    return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


def digest(value: Hashable) -> int:
    """Return a stable non-negative 63-bit digest of a key made of texts, numbers, tuples and sets.

    Python's own `hash` of a text differs between processes; keys are compared across processes and runs.

    >>> digest(("kitchen", 3)) == digest(("kitchen", 3))
    True
    >>> digest(frozenset({"a", "b"})) == digest(frozenset({"b", "a"}))
    True
    """
    return int.from_bytes(hashlib.blake2b(_canonical(value), digest_size=8).digest(), "big") >> 1


def _canonical(value: Hashable) -> bytes:
    return _WRITERS[type(value)](value)


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"s%d:%b" % (len(raw), raw)


def _bytes(value: bytes) -> bytes:
    return b"b%d:%b" % (len(value), value)


def _tuple(value: tuple[Hashable, ...]) -> bytes:
    return b"(%b)" % b",".join([_WRITERS[type(item)](item) for item in value])


def _set(value: frozenset[Hashable]) -> bytes:
    return b"{%b}" % b",".join(sorted(map(_canonical, value)))


def _named(value: object) -> bytes:
    return f"{type(value).__name__}:{value!r}".encode()


class _Writers(dict[type, "Callable[..., bytes]"]):
    """What writes each kind of value, found once for each class: two keys are digested in every turn."""

    def __missing__(self, kind: type) -> Callable[..., bytes]:
        known = next((base for base in (str, tuple, bytes, frozenset) if issubclass(kind, base)), None)
        if known is None and not issubclass(kind, int | float):
            raise TypeError(
                f"a key must be made of str, bytes, int, float, bool, None, tuple and frozenset; "
                f"got {kind.__name__}. Convert it, for example with tuple(...)."
            )
        self[kind] = found = _named if known is None else self[known]
        return found


_WRITERS = _Writers(
    {
        int: b"int:%d".__mod__,
        str: _text,
        tuple: _tuple,
        bytes: _bytes,
        frozenset: _set,
        bool: {False: b"bool:False", True: b"bool:True"}.__getitem__,
        type(None): _named,
    }
)

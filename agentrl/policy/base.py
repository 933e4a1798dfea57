"""The contract of a policy: a request for one turn in, a sample out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentrl.policy.render import Renderer
    from agentrl.trajectory import FloatArray, IntArray

Finish: TypeAlias = Literal["stop", "length", "context", "invalid"]


class Player(Protocol):
    """A scripted player of one episode; see `agentrl.world.env.Expert`."""

    def act(self) -> str:
        """Choose the next action."""
        ...

    def observe(self, command: str, feedback: str) -> None:
        """Learn what an action gave."""
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a turn is drawn. `temperature=0` is greedy; `max_tokens` bounds one turn's sampled tokens.

    `entropy` asks for the entropy of each token's distribution, as the token measure "entropy", of policies
    that can tell.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 64
    stop_strings: tuple[str, ...] = ()
    entropy: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation as text, for policies without tokens and for chat templates."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


def _nothing_admissible() -> None:
    return None


def _no_expert(observation: str) -> None:
    del observation


@dataclass(frozen=True, slots=True)
class Request:
    """One turn asked of a policy.

    Attributes:
        trajectory: whose turn it is; `stream` names the token stream (a fresh one after a rewrite).
        turn: index of the turn within the trajectory.
        observation: the text to answer; `messages`: the whole conversation so far, ending with it.
        tokens: (P,) tokens added since the last sampled token of this stream; None without a renderer.
        inherited: how many of the first `tokens` a branch has from its parent, under whose name the policy
            has read them already.
        key: what the sampling noise depends on: (seed, step, task, member, turn) as integers.
        tools: JSON schemas of the world's tools, for a server that makes tool calls of its own; empty where
            the protocol writes them as text.
        admissible: gives the environment's admissible commands or None; for checks and random play only.
        expert: makes the environment's own player of this episode from its first observation, or None.
    """

    trajectory: str
    stream: str
    turn: int
    observation: str
    messages: tuple[Message, ...]
    tokens: IntArray | None = None
    sampling: Sampling = Sampling()
    key: tuple[int, ...] = (0,)
    tools: tuple[Mapping[str, object], ...] = ()
    admissible: Callable[[], Sequence[str] | None] = _nothing_admissible
    expert: Callable[[str], Player | None] = _no_expert
    inherited: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn drawn from a policy.

    Attributes:
        text: what the policy wrote, without stop tokens.
        tokens: (N,) sampled ids, or None from a policy that knows only text.
        logprobs: (N,) their log-probabilities in nats, as drawn.
        finish: why sampling ended; `length` is a turn cut by `max_tokens`, `invalid` a non-finite model.
        version: version of the weights that drew it.
        token_measures: named (N,) arrays; `measures`: named numbers of the turn, such as what it cost.
    """

    text: str
    tokens: IntArray | None = None
    logprobs: FloatArray | None = None
    finish: Finish = "stop"
    version: int = 0
    token_measures: Mapping[str, FloatArray] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Policy(Protocol):
    """Who acts. A policy batches for itself; callers ask for one turn at a time, concurrently.

    `renderer` turns text into tokens for the rollout, which owns the exact token ledger; None for policies
    that know only text.
    """

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def renderer(self) -> Renderer | None:
        """What turns its text into tokens, if it has tokens."""
        ...

    async def generate(self, request: Request) -> Sample:
        """Draw one turn. Raises `PolicyError` for what it cannot do; infrastructure errors propagate."""
        ...

    def finish(self, trajectory: str) -> None:
        """Tell the policy that this trajectory asks for nothing more; its cache may be reused."""
        ...


@runtime_checkable
class ClosingPolicy(Policy, Protocol):
    """A policy that holds connections; a collection closes them at its end, and it can be used again."""

    async def aclose(self) -> None:
        """Close what belongs to the running event loop."""
        ...

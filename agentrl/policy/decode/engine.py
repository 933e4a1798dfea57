"""The scheduler: streams hold slots, requests wait for one, and a step feeds every active row at once.

A step never separates prefill from decode: each active row feeds what it has not fed yet (a chunk of
observation tokens, or the one token it just sampled) and the backend lays the ragged rows out as it likes.
Axes: S slots, R rows of one step, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from agentrl.errors import PolicyError
from agentrl.policy.decode.sampling import Decoded, DecodeRequest, check_sampling, draw, uniforms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from agentrl.policy.base import Finish

TAIL_SLACK = 8
"""Tokens decoded beyond a stop string's bytes, so that a character cut by the tail's start cannot hide it."""


@dataclass(frozen=True)
class Chunks:
    """What one step feeds: row r feeds `history[slots[r], starts[r]:ends[r]]`, never empty.

    Args:
        slots, starts, ends: (R,) int64; slots are distinct, `starts` counts the tokens already in the cache.
        history: (S, context) int64, every token of every stream.
    """

    slots: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    history: NDArray[np.int64]


class Backend(Protocol):
    """A model with a memory of `slots` streams of at most `context` tokens."""

    @property
    def vocabulary(self) -> int:
        """V, the number of logits."""
        ...

    def read(self, chunks: Chunks) -> torch.Tensor:
        """Feed the chunks; (R, V) logits that follow each row's last token."""
        ...

    def wipe(self, slot: int) -> None:
        """Clear numbers that are not finite from a slot's memory."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Give a slot what another remembers of its first `length` tokens."""
        ...

    def refresh(self) -> None:
        """The model's weights changed."""
        ...


class Engine(Protocol):
    """What a policy sees."""

    @property
    def idle(self) -> bool:
        """True when no request is waiting or being sampled."""
        ...

    def submit(self, request: DecodeRequest) -> int:
        """Queue a request; its ticket."""
        ...

    def step(self) -> list[tuple[int, Decoded]]:
        """Admit what waits, feed every active row once, sample; the tickets that finished."""
        ...

    def release(self, stream: str) -> None:
        """Forget a stream, and any request it still has."""
        ...

    def refresh(self) -> None:
        """The model's weights changed: streams keep their tokens and are read again when next fed."""
        ...


@dataclass(frozen=True)
class _Job:
    """A request that holds a slot: `begin` is the history length when its first token is sampled."""

    ticket: int
    begin: int
    limit: int
    stop_tokens: frozenset[int]
    stop_strings: tuple[str, ...]
    tail: int
    end: Finish
    entropy: bool


class DecodeEngine:
    """The scheduler over any backend.

    Args:
        backend: the model, built with the same `slots` and `context`.
        slots: streams that are held at once; further new streams wait until one is released.
        context: most tokens of one stream, prompt and samples together.
        decode: token ids to text, asked only when a request has stop strings.
        stop_tokens: tokens that end any turn; requests may add their own.
        tokens_per_step: most tokens fed in one step; a longer chunk is spread over several. Above `slots`.

    Raises:
        PolicyError: a size is not positive.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        slots: int,
        context: int,
        decode: Callable[[Sequence[int]], str],
        stop_tokens: Sequence[int] = (),
        tokens_per_step: int = 8192,
    ) -> None:
        if slots < 1 or context < 2 or tokens_per_step <= slots:
            raise PolicyError(
                f"slots={slots}, context={context}, tokens_per_step={tokens_per_step}: give at least one "
                "slot, two tokens of context, and more tokens per step than slots."
            )
        self.backend = backend
        self.context = context
        self._decode = decode
        self._stop_tokens = frozenset(stop_tokens)
        self._budget = tokens_per_step
        self._history = np.zeros((slots, context), np.int64)
        self._length = np.zeros(slots, np.int64)
        self._fed = np.zeros(slots, np.int64)
        self._uniform = np.zeros((slots, context), np.float64)
        self._logprob = np.zeros((slots, context), np.float32)
        self._entropy = np.zeros((slots, context), np.float32)
        self._temperature = np.ones(slots, np.float64)
        self._top_p = np.ones(slots, np.float64)
        self._free = list(range(slots - 1, -1, -1))
        self._slot: dict[str, int] = {}
        self._jobs: dict[int, _Job] = {}
        self._waiting: deque[tuple[int, DecodeRequest]] = deque()
        self._busy: set[str] = set()
        self._poisoned: set[int] = set()
        self._name: dict[int, str] = {}
        self._tickets = 0

    @property
    def idle(self) -> bool:
        """True when no request is waiting or being sampled."""
        return not self._jobs and not self._waiting

    def submit(self, request: DecodeRequest) -> int:
        """Queue a request; its ticket.

        Raises:
            PolicyError: the tokens are not a row of known ids, the sampling settings are out of range, the
                stream already has a request, or there is nothing to read.
        """
        self._check(request)
        self._tickets += 1
        self._busy.add(request.stream)
        self._waiting.append((self._tickets, request))
        return self._tickets

    def _check(self, request: DecodeRequest) -> None:
        check_sampling(request.sampling)
        tokens, stream = request.tokens, request.stream
        if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
            raise PolicyError(
                f"tokens has shape {tokens.shape} and type {tokens.dtype}; "
                "give a one-dimensional array of integers."
            )
        if tokens.size and not (tokens.min() >= 0 and tokens.max() < self.backend.vocabulary):
            raise PolicyError(
                f"tokens reach from {tokens.min()} to {tokens.max()}; "
                f"the model knows 0 to {self.backend.vocabulary - 1}."
            )
        if stream in self._busy:
            raise PolicyError(
                f"stream {stream!r} already has a request; wait for its result before the next."
            )
        if not tokens.size and stream not in self._slot:
            raise PolicyError(
                f"stream {stream!r} is new and the request has no tokens; give at least one to start from."
            )

    def release(self, stream: str) -> None:
        """Forget a stream and its unfinished request, whose ticket never ends; any name will do."""
        self._waiting = deque(entry for entry in self._waiting if entry[1].stream != stream)
        self._busy.discard(stream)
        slot = self._slot.pop(stream, None)
        if slot is None:
            return
        self._jobs.pop(slot, None)
        if slot in self._poisoned:
            self._poisoned.remove(slot)
            self.backend.wipe(slot)
            self._fed[slot] = 0
        self._length[slot] = 0  # what it has read stays, for a stream that inherits it
        self._free.append(slot)

    def refresh(self) -> None:
        """The model's weights changed: streams keep their tokens and are read again when next fed."""
        self.backend.refresh()
        for slot in self._poisoned:
            self.backend.wipe(slot)
        self._poisoned.clear()
        self._fed[:] = 0

    def step(self) -> list[tuple[int, Decoded]]:
        """Admit what waits, feed every active row once, sample; the tickets that finished."""
        finished = self._admit()
        if not self._jobs:
            return finished
        chunks = self._next_chunks()
        logits = self.backend.read(chunks)
        self._fed[chunks.slots] = chunks.ends
        ready = chunks.ends == self._length[chunks.slots]
        slots = chunks.slots
        if not ready.all():
            logits = logits[torch.from_numpy(np.flatnonzero(ready)).to(logits.device)]
            slots = slots[ready]
        if slots.size:
            finished.extend(self._sample(slots, logits))
        return finished

    def _admit(self) -> list[tuple[int, Decoded]]:
        """Give waiting requests their slots in order; those that cannot fit finish at once."""
        finished: list[tuple[int, Decoded]] = []
        held: deque[tuple[int, DecodeRequest]] = deque()
        for ticket, request in self._waiting:
            slot = self._slot.get(request.stream)
            before = 0 if slot is None else self._length[slot]
            if before + request.tokens.size >= self.context:
                self._busy.discard(request.stream)
                empty = Decoded(np.zeros(0, np.int32), np.zeros(0, np.float32), "context")
                finished.append((ticket, empty))
            elif slot is None and not self._free:
                held.append((ticket, request))
            else:
                self._start(self._claim(request) if slot is None else slot, ticket, request)
        self._waiting = held
        return finished

    def _claim(self, request: DecodeRequest) -> int:
        """A free slot for a new stream, with what any slot has read of what the stream inherits."""
        source, shared = self._known(request) if request.inherited else (-1, 0)
        if shared and source in self._free:
            self._free.remove(source)
            slot = source
        else:
            slot = self._free.pop()
            if shared:
                self.backend.copy(source, slot, shared)
        self._fed[slot] = shared
        self._slot[request.stream] = slot
        self._name[slot] = request.stream
        return slot

    def _known(self, request: DecodeRequest) -> tuple[int, int]:
        """The slot that has read most of what is inherited, and how much; the last token is always read."""
        most = min(request.inherited, request.tokens.size - 1)
        same = np.cumprod(self._history[:, :most] == request.tokens[:most], axis=1).sum(axis=1)
        shared = np.minimum(same, self._fed)
        shared[list(self._poisoned)] = 0
        slot = int(shared.argmax())
        return slot, int(shared[slot])

    def _start(self, slot: int, ticket: int, request: DecodeRequest) -> None:
        sampling, start = request.sampling, int(self._length[slot])
        begin = start + request.tokens.size
        limit = min(sampling.max_tokens, self.context - begin)
        self._history[slot, start:begin] = request.tokens
        self._length[slot] = begin
        self._uniform[slot, begin : begin + limit] = uniforms(request.key, limit)
        self._temperature[slot], self._top_p[slot] = sampling.temperature, sampling.top_p
        longest = max((len(stop.encode()) for stop in sampling.stop_strings), default=0)
        self._jobs[slot] = _Job(
            ticket=ticket,
            begin=begin,
            limit=begin + limit,
            stop_tokens=self._stop_tokens.union(request.stop_tokens),
            stop_strings=sampling.stop_strings,
            tail=longest + TAIL_SLACK,
            end="length" if limit == sampling.max_tokens else "context",
            entropy=sampling.entropy,
        )

    def _next_chunks(self) -> Chunks:
        """What the active rows have not fed yet, shortest first when it exceeds the budget."""
        slots = np.fromiter(self._jobs, np.int64, len(self._jobs))
        slots.sort()
        starts, ends = self._fed[slots], self._length[slots]
        # After `invalid` everything is fed already: the last token is fed again for its logits.
        starts = np.minimum(starts, ends - 1)
        need = ends - starts
        if need.sum() > self._budget:
            order = np.argsort(need, kind="stable")
            before = np.empty_like(need)
            before[order] = np.cumsum(need[order]) - need[order]
            taken = np.clip(self._budget - before, 0, need)
            kept = taken > 0
            slots, starts, ends = slots[kept], starts[kept], (starts + taken)[kept]
        return Chunks(slots, starts, ends, self._history)

    def _sample(self, slots: NDArray[np.int64], logits: torch.Tensor) -> list[tuple[int, Decoded]]:
        """One token for each row of `slots`; the tickets that finished."""
        length = self._length[slots]
        drawn = draw(
            logits,
            self._uniform[slots, length],
            self._temperature[slots],
            self._top_p[slots],
            entropy=any(self._jobs[slot].entropy for slot in slots.tolist()),
        )
        tokens, finite = drawn.tokens, drawn.finite
        self._logprob[slots, length] = drawn.logprobs
        if drawn.entropies is not None:
            self._entropy[slots, length] = drawn.entropies
        self._history[slots[finite], length[finite]] = tokens[finite]
        self._length[slots] += finite
        finished: list[tuple[int, Decoded]] = []
        for slot, token, valid in zip(slots.tolist(), tokens.tolist(), finite.tolist(), strict=True):
            job = self._jobs[slot]
            finish = self._finish(slot, job, token) if valid else "invalid"
            if finish is not None:
                finished.append((job.ticket, self._close(slot, job, finish)))
        return finished

    def _finish(self, slot: int, job: _Job, token: int) -> Finish | None:
        """Why the row ends after `token`, or None when it goes on."""
        if token in job.stop_tokens:
            return "stop"
        end = int(self._length[slot])
        if job.stop_strings:
            text = self._decode(self._history[slot, max(job.begin, end - job.tail) : end].tolist())
            if any(stop in text for stop in job.stop_strings):
                return "stop"
        return job.end if end == job.limit else None

    def _close(self, slot: int, job: _Job, finish: Finish) -> Decoded:
        if finish == "invalid":
            self._poisoned.add(slot)
        del self._jobs[slot]
        self._busy.discard(self._name[slot])
        sampled = slice(job.begin, int(self._length[slot]))
        return Decoded(
            self._history[slot, sampled].astype(np.int32),
            self._logprob[slot, sampled].copy(),
            finish,
            self._entropy[slot, sampled].copy() if job.entropy else None,
        )

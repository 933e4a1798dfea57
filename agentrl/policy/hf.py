"""The in-process policy: any transformers causal model, decoded with a cache that lives across turns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentrl.errors import PolicyError
from agentrl.policy.base import Request, Sample
from agentrl.policy.decode import DecodeRequest, make_engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from agentrl.policy.decode import Decoded, Engine
    from agentrl.policy.render import Renderer


@dataclass
class HfPolicy:
    """A transformers model as a policy.

    Callers await one turn at a time; one pump task batches whatever waits, runs the engine step by step and
    lets the callers' coroutines advance their environments between two steps. No lock-step: a trajectory that
    ends frees its slot for the next one at once.

    Args:
        model: any causal language model; its weights may change between rollouts (call `refresh`).
        slots: trajectories decoded at the same time; `context`: tokens a stream may hold.
        version: version of the weights, stamped on every sample.
    """

    model: PreTrainedModel
    renderer: Renderer
    slots: int = 64
    context: int = 1024
    name: str = "hf"
    version: int = 0
    engine: Engine = field(init=False, repr=False)
    _waiting: dict[int, asyncio.Future[Decoded]] = field(init=False, default_factory=dict, repr=False)
    _streams: dict[str, str] = field(init=False, default_factory=dict, repr=False)
    _pump: asyncio.Task[None] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.engine = make_engine(
            self.model,
            slots=self.slots,
            context=self.context,
            decode=self.renderer.decode_turn,
            stop_tokens=self.renderer.stop_tokens,
        )

    async def generate(self, request: Request) -> Sample:
        """Draw one turn; see `Policy`. Raises `PolicyError` when the request carries no tokens."""
        if request.tokens is None:
            raise PolicyError("the hf policy needs tokens; give its renderer to collect().")
        self._move_stream(request)
        ticket = self.engine.submit(
            DecodeRequest(
                stream=request.stream,
                tokens=request.tokens,
                sampling=request.sampling,
                key=request.key,
                inherited=request.inherited,
            )
        )
        future: asyncio.Future[Decoded] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        try:
            decoded = await future
        finally:
            self._waiting.pop(ticket, None)
        return Sample(
            text=self._text(decoded.tokens.tolist()),
            tokens=decoded.tokens,
            logprobs=decoded.logprobs,
            finish=decoded.finish,
            version=self.version,
            token_measures={} if decoded.entropies is None else {"entropy": decoded.entropies},
        )

    def finish(self, trajectory: str) -> None:
        """Free the trajectory's slot."""
        stream = self._streams.pop(trajectory, None)
        if stream is not None:
            self.engine.release(stream)

    def refresh(self, version: int | None = None) -> None:
        """Tell the engine that the model's weights have changed."""
        self.engine.refresh()
        self.version = self.version + 1 if version is None else version

    def _move_stream(self, request: Request) -> None:
        before = self._streams.get(request.trajectory)
        if before is not None and before != request.stream:
            self.engine.release(before)
        self._streams[request.trajectory] = request.stream

    def _text(self, tokens: Sequence[int]) -> str:
        return self.renderer.decode_turn(tokens)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)
                for ticket, decoded in self.engine.step():
                    future = self._waiting.pop(ticket, None)
                    if future is not None and not future.done():
                        future.set_result(decoded)
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001  # handed to every caller that waits
            waiting, self._waiting = self._waiting, {}
            for future in waiting.values():
                if not future.done():
                    future.set_exception(error)

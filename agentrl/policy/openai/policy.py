"""The policy: one call for each turn, exact tokens where the server gives them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, cast

from agentrl.errors import PolicyError, ServerRefused, did_you_mean
from agentrl.http import Patience, Servers
from agentrl.policy.base import Sample
from agentrl.policy.openai.forms import (
    Prices,
    Served,
    finish_of,
    first_choice,
    is_full,
    sampling_fields,
    text_of,
    tokens_body,
    tokens_sample,
    until_stop,
    usage_of,
)
from agentrl.policy.openai.talk import chat_messages, with_calls

if TYPE_CHECKING:
    from agentrl.http import Answer
    from agentrl.policy.base import Request
    from agentrl.policy.render import Renderer


@dataclass(eq=False)
class OpenAIPolicy:
    """A model behind OpenAI-compatible servers.

    Without a renderer it talks through `/chat/completions` and knows only text: it evaluates, and its
    trajectories cannot be trained on. With the renderer of the served model it sends token ids to
    `/completions` and gets ids and log-probabilities back: its trajectories are exact. That needs vLLM.

    Args:
        urls: base addresses ending in /v1; a trajectory stays with one server while that server answers.
        model: name on the server; "" takes the only one that is served.
        renderer: of the served model, for exact tokens.
        key_variable: environment variable that holds the key, if servers want one. The key is read when the
            first call is made and shown nowhere.
        patience, concurrency, per_minute: deadlines, retries and bounds of the calls.
        prices: of a million tokens; each turn's `measures` hold its tokens and cost.
        logprobs: "processed" where the server gives log-probabilities after temperature and top-p.
        extra: further fields of each call's body, such as {"chat_template_kwargs": {...}}.
        name: in trajectories and reports.

    Raises:
        ConfigError: an address or a bound is wrong.
    """

    urls: Sequence[str]
    model: str = ""
    renderer: Renderer | None = None
    key_variable: str = "OPENAI_API_KEY"
    patience: Patience = field(default_factory=Patience)
    concurrency: int = 64
    per_minute: float = 0.0
    prices: Prices = field(default_factory=Prices)
    logprobs: Literal["raw", "processed"] = "raw"
    extra: Mapping[str, object] = field(default_factory=dict)
    name: str = ""
    _servers: Servers = field(init=False, repr=False)
    _served: Served | None = field(init=False, default=None, repr=False)
    _limit_field: str = field(init=False, default="max_tokens", repr=False)
    _streams: dict[str, tuple[str, list[int]]] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.urls = (self.urls,) if isinstance(self.urls, str) else tuple(self.urls)
        key = os.environ.get(self.key_variable, "")
        self._servers = Servers(
            self.urls,
            patience=self.patience,
            concurrency=self.concurrency,
            per_minute=self.per_minute,
            headers={"authorization": f"Bearer {key}"} if key else {},
        )
        self.name = self.name or f"openai:{','.join(self.urls)}" + (f"#{self.model}" if self.model else "")

    async def generate(self, request: Request) -> Sample:
        """Draw one turn.

        Raises:
            PolicyError: the server refuses for good: no such model, a wrong key, a field it does not know.
            ServerUnavailable: it did not answer in time, or not with an answer.
        """
        served = await self._known()
        try:
            if self.renderer is None:
                return await self._by_text(request, served)
            return await self._by_tokens(request, served, self.renderer)
        except ServerRefused as refused:
            if refused.status == 400 and is_full(str(refused)):
                return Sample("", finish="context")
            raise self._refused(refused) from refused

    def finish(self, trajectory: str) -> None:
        """Forget the trajectory's tokens."""
        self._streams.pop(trajectory, None)

    async def aclose(self) -> None:
        """Close the connections; the policy can be used again."""
        await self._servers.aclose()

    # -- text --------------------------------------------------------------------------------------------

    async def _by_text(self, request: Request, served: Served) -> Sample:
        body = sampling_fields(request.sampling, served, request.key)
        body |= {"messages": chat_messages(request.messages, native=bool(request.tools)), **self.extra}
        if request.tools:
            body["tools"] = [dict(schema) for schema in request.tools]
        answer = await self._complete(body, request.trajectory)
        choice = first_choice(answer.value)
        message = choice.get("message")
        said = cast("Mapping[str, object]", message) if isinstance(message, Mapping) else {}
        text = with_calls(until_stop(text_of(said), request.sampling.stop_strings), said)
        return Sample(text, finish=finish_of(choice), measures=self._measures(answer))

    async def _complete(self, body: dict[str, object], sticky: str) -> Answer:
        """Post a chat; a server that calls the limit by its newer name is asked by that name from then on."""
        limit = body.pop("max_tokens")
        try:
            return await self._post("/chat/completions", body | {self._limit_field: limit}, sticky)
        except ServerRefused as refused:
            if refused.status != 400 or "max_completion_tokens" not in str(refused):
                raise
            self._limit_field = "max_completion_tokens"
            return await self._post("/chat/completions", body | {self._limit_field: limit}, sticky)

    # -- tokens ------------------------------------------------------------------------------------------

    async def _by_tokens(self, request: Request, served: Served, renderer: Renderer) -> Sample:
        if request.tokens is None:
            raise PolicyError("this policy needs tokens; give its renderer to collect().")
        stream, before = self._streams.get(request.trajectory, (request.stream, []))
        prompt = (before if stream == request.stream else []) + request.tokens.tolist()
        room = request.sampling.max_tokens if served.context is None else served.context - len(prompt)
        if room < 1:
            return Sample("", renderer.encode(""), renderer.encode("").astype("float32"), "context")
        asked = min(room, request.sampling.max_tokens)
        bounded = replace(request, sampling=replace(request.sampling, max_tokens=asked))
        body = {**tokens_body(bounded, prompt, renderer, served), **self.extra}
        answer = await self._post("/completions", body, request.trajectory)
        sample = tokens_sample(
            first_choice(answer.value), renderer, request.sampling, processed=self.logprobs == "processed"
        )
        if sample.finish == "length" and asked < request.sampling.max_tokens:
            sample = replace(sample, finish="context")
        drawn = [] if sample.tokens is None else sample.tokens.tolist()
        self._streams[request.trajectory] = (request.stream, prompt + drawn)
        return replace(sample, measures=self._measures(answer))

    # -- the server --------------------------------------------------------------------------------------

    async def _post(self, path: str, body: Mapping[str, object], sticky: str) -> Answer:
        return await self._servers.post(path, body, sticky=sticky)

    def _measures(self, answer: Answer) -> dict[str, float]:
        return usage_of(answer.value, self.prices) | {"server_attempts": float(answer.attempts)}

    async def _known(self) -> Served:
        """What the server says of the model, asked once."""
        if self._served is None:
            try:
                answer = await self._servers.get("/models")
            except ServerRefused as refused:
                if refused.status in {401, 403} or not self.model:
                    raise self._refused(refused) from refused
                self._served = Served(self.model)
            else:
                self._served = self._find(answer.value)
        return self._served

    def _find(self, value: object) -> Served:
        entries = value.get("data") if isinstance(value, Mapping) else None
        listed = [one for one in entries if isinstance(one, Mapping)] if isinstance(entries, list) else []
        by_name = {str(one.get("id")): one for one in listed}
        wanted = self.model or (next(iter(by_name)) if len(by_name) == 1 else "")
        if wanted not in by_name:
            if self.model and not by_name:
                return Served(self.model)
            named = f"serves no model {wanted!r}" if wanted else "serves several models; name one after a #"
            raise PolicyError(
                f"{self.urls[0]} {named}.{did_you_mean(wanted, by_name)} "
                f"It serves {', '.join(by_name) or 'none'}."
            )
        context = by_name[wanted].get("max_model_len")
        extended = by_name[wanted].get("owned_by") == "vllm"
        return Served(wanted, context if isinstance(context, int) else None, extended)

    def _refused(self, refused: ServerRefused) -> PolicyError:
        repair = {
            401: f"Put the right key into the environment variable {self.key_variable}.",
            403: f"Put a key that may use this model into the environment variable {self.key_variable}.",
            404: "Give the address that ends where /chat/completions would follow, usually in /v1.",
        }.get(refused.status, "Mend what it names, then run again.")
        return PolicyError(f"{refused} {repair}")

"""What is sent to an OpenAI-compatible server for one turn, and what is read in its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from agentrl.errors import PolicyError, ServerUnavailable, as_sentence
from agentrl.policy.base import Sample
from agentrl.trajectory import digest

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from agentrl.policy.base import Finish, Request, Sampling
    from agentrl.policy.render import Renderer

FINISHES: Final[Mapping[str, Finish]] = {"stop": "stop", "tool_calls": "stop", "length": "length"}

_FULL: Final = re.compile(
    r"context[_ ]length|max_model_len|maximum (?:context|input|prompt)|too many tokens", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in any currency."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, prompt: float, completion: float) -> float:
        """Cost of one call."""
        return (prompt * self.prompt + completion * self.completion) / 1e6


@dataclass(frozen=True, slots=True)
class Served:
    """A model as its server announces it.

    Attributes:
        model: its name there.
        context: most tokens of prompt and completion, or None where the server does not say.
        extended: whether the server is vLLM, or says it is: it takes stop strings that stay in the text,
            token ids as a prompt, and gives token ids back.
    """

    model: str
    context: int | None = None
    extended: bool = False


def sampling_fields(sampling: Sampling, served: Served, key: tuple[int, ...]) -> dict[str, object]:
    """Return the fields that both forms share. Every field that a server's defaults might change is given."""
    fields: dict[str, object] = {
        "model": served.model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": digest(("server", *key)) % 2**31,
        "n": 1,
        "stream": False,
    }
    if served.extended:
        fields |= {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        if sampling.stop_strings:
            # Protocols read closing tags, which a plain server would take out of the text.
            fields |= {"stop": list(sampling.stop_strings), "include_stop_str_in_output": True}
    return fields


def tokens_body(
    request: Request, prompt: Sequence[int], renderer: Renderer, served: Served
) -> dict[str, object]:
    """Return the body of a call to `/completions` whose prompt is token ids."""
    return sampling_fields(request.sampling, served, request.key) | {
        "prompt": list(prompt),
        "logprobs": 0,
        "return_token_ids": True,
        "stop_token_ids": list(renderer.stop_tokens),
        "skip_special_tokens": False,
        "add_special_tokens": False,
    }


def is_full(message: str) -> bool:
    """Return whether a refusal says that the prompt leaves no room in the model's context.

    >>> is_full("This model's maximum context length is 4096 tokens.")
    True
    """
    return _FULL.search(message) is not None


def first_choice(value: object) -> Mapping[str, object]:
    """Return the first choice of an answer. Raises `ServerUnavailable` where there is none."""
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if not isinstance(choices, Sequence) or not choices or not isinstance(choices[0], Mapping):
        raise ServerUnavailable(as_sentence(f"the server answered without a choice: {_short(value)}"))
    choice = cast("Mapping[str, object]", choices[0])
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        raise ServerUnavailable("the server withheld its answer (content_filter).")
    if reason == "abort":
        raise ServerUnavailable("the server aborted the generation.")
    return choice


def finish_of(choice: Mapping[str, object]) -> Finish:
    """Why the server stopped; an unknown reason is a stop."""
    return FINISHES.get(str(choice.get("finish_reason")), "stop")


def text_of(message: Mapping[str, object]) -> str:
    """Return what a chat message says: reasoning that a server took apart goes back between its tags.

    Raises:
        ServerUnavailable: its content is neither a text nor a list of parts: nobody knows what was said.

    >>> text_of({"content": [{"type": "text", "text": "go"}]})
    'go'
    """
    content = message.get("content") or ""
    if isinstance(content, Sequence) and not isinstance(content, str):
        parts = [part.get("text", "") for part in content if isinstance(part, Mapping)]
        content = "".join(str(part) for part in parts)
    if not isinstance(content, str):
        raise ServerUnavailable(
            as_sentence(f"the server answered with content that is no text: {_short(message)}")
        )
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    return f"<think>{reasoning}</think>{content}" if reasoning else str(content)


def until_stop(text: str, stops: Sequence[str]) -> str:
    """Return the text up to and including the first stop string, for servers that would leave it out.

    >>> until_stop("<a>x</a> and more", ["</a>"])
    '<a>x</a>'
    """
    ends = [place + len(stop) for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def usage_of(value: object, prices: Prices) -> dict[str, float]:
    """Return the tokens that a server counted and their cost, as measures of the turn; none that it hides."""
    usage = value.get("usage") if isinstance(value, Mapping) else None
    if not isinstance(usage, Mapping):
        return {}
    given = {f"server_{part}_tokens": usage.get(f"{part}_tokens") for part in ("prompt", "completion")}
    found = {name: float(value) for name, value in given.items() if _is_count(value)}
    if len(found) < 2:
        return found
    cost = prices.cost(*found.values())
    return found | ({"server_cost": cost} if cost else {})


def tokens_sample(
    choice: Mapping[str, object], renderer: Renderer, sampling: Sampling, *, processed: bool
) -> Sample:
    """Return the exact sample of an answer with token ids and log-probabilities.

    Args:
        processed: whether the server gives log-probabilities after temperature and top-p, as drawn.

    Raises:
        PolicyError: the server gives no token ids, or its log-probabilities are not those of the draw.
    """
    ids = choice.get("token_ids")
    logprobs = choice.get("logprobs")
    given = logprobs.get("token_logprobs") if isinstance(logprobs, Mapping) else None
    if not isinstance(ids, list) or not isinstance(given, list) or len(ids) != len(given):
        raise PolicyError(
            "the server gives no token ids with one log-probability for each, so its turns cannot be exact. "
            "Serve the model with vLLM, or leave out the tokenizer: then the agent is evaluated by its text."
        )
    tokens = np.asarray(ids, dtype=np.int32)
    values = np.asarray([np.nan if one is None else one for one in given], dtype=np.float32)
    if sampling.temperature == 0:
        values = np.zeros_like(values)
    elif (sampling.temperature != 1 or sampling.top_p != 1) and not processed:
        raise PolicyError(
            f"at temperature {sampling.temperature:g} and top-p {sampling.top_p:g} this server's "
            "log-probabilities are not those of the draw. Start vLLM with --logprobs-mode "
            'processed_logprobs and set server.logprobs = "processed", or sample at temperature and top-p 1.'
        )
    return Sample(renderer.decode_turn(tokens.tolist()), tokens, values, finish_of(choice))


def _is_count(value: object) -> TypeIs[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."

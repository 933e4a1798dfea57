"""Text to tokens and back: the contract of a renderer, and the markup for tokenizers without a chat template.

A renderer gives the tokens that a turn *adds*. What was sampled is never rendered again, so no merge across
a boundary and no template that rewrites history can change a token the model has seen.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from agentrl.errors import TemplateError
from agentrl.policy.codec import decode, encode_plain, ids

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from agentrl.policy.base import Message
    from agentrl.trajectory import IntArray


@dataclass(frozen=True, slots=True)
class Added:
    """What the policy is shown before its next turn.

    Attributes:
        tokens: (P,) none of them sampled; `fresh`: whether they stand in place of all that was shown before.
    """

    tokens: IntArray
    fresh: bool = False


@runtime_checkable
class Renderer(Protocol):
    """Renders a conversation turn by turn; a renderer of your own inherits what only templates do."""

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Ids that end a turn of the policy; the first one closes a turn that was cut."""
        ...

    def begin(self, system: str, observation: str) -> IntArray:
        """(P,) tokens of a new stream up to and including the generation prompt."""
        ...

    def extend(self, observation: str, *, closed: bool) -> IntArray:
        """(P,) tokens after a sampled turn up to the next generation prompt, whatever was said before.

        Args:
            closed: whether the sampled turn ended with a stop token; otherwise one is added (not sampled).
        """
        ...

    def follow(self, messages: Sequence[Message], answer: IntArray) -> Added:
        """Return what the last message adds to a conversation; as `extend`, where nothing is ever rewritten.

        Args:
            messages: all of them, ending with the agent's last turn and the observation that is new.
            answer: (N,) tokens of that turn, as they stand in the stream.
        """
        closed = is_closed(answer, self.stop_tokens)
        return Added(self.extend(messages[-1].content, closed=closed))

    def for_tools(self, schemas: Sequence[Mapping[str, object]]) -> Renderer:
        """Return this renderer for a world whose tools it lists itself; unchanged where there are none.

        Raises:
            TemplateError: it cannot list tools, as most cannot.
        """
        if schemas:
            raise TemplateError(NO_TEMPLATE)
        return self

    def encode(self, text: str) -> IntArray:
        """Plain text as tokens, without markup."""
        ...

    def encode_turn(self, text: str) -> IntArray:
        """(N,) tokens of a turn that says `text`, as they stand in a stream, stop token included."""
        return np.append(self.encode(text), self.stop_tokens[0]).astype(np.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, without special tokens but those that belong to a call or a thought."""
        ...

    def decode_turn(self, tokens: Sequence[int]) -> str:
        """What the agent wrote in a turn, or in the beginning of one: its tokens as text."""
        return self.decode(tokens)


@dataclass(frozen=True)
class Markup(Renderer):
    """An append-only markup for tokenizers without a chat template: `observation <|act|> action <|end|>`.

    Args:
        tokenizer: its vocabulary must hold `act` and `end` as single tokens.
        act: token that asks for the agent's turn; `end`: token that closes it.
    """

    tokenizer: PreTrainedTokenizerBase
    act: str = "<|act|>"
    end: str = "<|end|>"

    def __post_init__(self) -> None:
        for token in (self.act, self.end):
            if self.tokenizer.convert_tokens_to_ids(token) in (None, self.tokenizer.unk_token_id):
                raise TemplateError(
                    f"the tokenizer has no chat template and no token {token!r}, which the markup without "
                    "one needs. Give it a template (tokenizer.chat_template), or add both tokens: "
                    f"tokenizer.add_tokens({[self.act, self.end]}, special_tokens=True), then "
                    "model.resize_token_embeddings(len(tokenizer)), and save model and tokenizer."
                )

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """The end token."""
        return (self._end_id,)

    def begin(self, system: str, observation: str) -> IntArray:
        """System text, first observation and the act token."""
        text = f"{system}\n\n{observation}" if system else observation
        return ids([*encode_plain(self.tokenizer, text), self._act_id])

    def extend(self, observation: str, *, closed: bool) -> IntArray:
        """The next observation and the act token."""
        head = () if closed else (self._end_id,)
        return ids([*head, *encode_plain(self.tokenizer, observation), self._act_id])

    def encode(self, text: str) -> IntArray:
        """Plain text as tokens; markup written in the text stays text."""
        return ids(encode_plain(self.tokenizer, text))

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, without special tokens."""
        return decode(self.tokenizer, tuple(int(token) for token in tokens))

    @functools.cached_property
    def _act_id(self) -> int:
        return _single(self.tokenizer.convert_tokens_to_ids(self.act))

    @functools.cached_property
    def _end_id(self) -> int:
        return _single(self.tokenizer.convert_tokens_to_ids(self.end))


NO_TEMPLATE = (
    'environment.protocol is "native", so calls are written as the chat template of the model has them, and '
    "this model has none: its turns are written in the append-only markup. Choose the protocol tags or json, "
    "or a model with a chat template."
)


def is_closed(answer: IntArray, stops: Sequence[int]) -> bool:
    """Whether a turn's last token closes it; one ended by a limit or a stop string lacks that token."""
    return len(answer) > 0 and int(answer[-1]) in stops


def _single(token: int | list[int]) -> int:
    return token if isinstance(token, int) else token[0]

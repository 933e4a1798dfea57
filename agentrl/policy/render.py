"""Text to tokens and back: the only place where a conversation becomes ids.

A renderer gives the tokens that a turn *adds*. What was sampled is never rendered again, so no merge across
a boundary and no template that rewrites history can change a token the model has seen.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np

from agentrl.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedTokenizerBase

    from agentrl.trajectory import IntArray


@runtime_checkable
class Renderer(Protocol):
    """Renders a conversation turn by turn."""

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Ids that end a turn of the policy; the first one closes a turn that was cut."""
        ...

    def begin(self, system: str, observation: str) -> IntArray:
        """(P,) tokens of a new stream up to and including the generation prompt."""
        ...

    def extend(self, observation: str, *, closed: bool) -> IntArray:
        """(P,) tokens after a sampled turn up to the next generation prompt.

        Args:
            closed: whether the sampled turn ended with a stop token; otherwise one is added (not sampled).
        """
        ...

    def encode(self, text: str) -> IntArray:
        """Plain text as tokens, without markup."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, without special tokens."""
        ...


@dataclass(frozen=True)
class Markup:
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
                    f"the tokenizer has no token {token!r}, which the append-only markup needs; "
                    "add it with tokenizer.add_special_tokens, or use a tokenizer with a chat template."
                )

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """The end token."""
        return (self._end_id,)

    def begin(self, system: str, observation: str) -> IntArray:
        """System text, first observation and the act token."""
        text = f"{system}\n\n{observation}" if system else observation
        return _ids([*_encode(self.tokenizer, text), self._act_id])

    def extend(self, observation: str, *, closed: bool) -> IntArray:
        """The next observation and the act token."""
        head = () if closed else (self._end_id,)
        return _ids([*head, *_encode(self.tokenizer, observation), self._act_id])

    def encode(self, text: str) -> IntArray:
        """Plain text as tokens; markup written in the text stays text."""
        return _ids(_encode(self.tokenizer, text))

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, without special tokens."""
        return _decode(self.tokenizer, tuple(int(token) for token in tokens))

    @functools.cached_property
    def _act_id(self) -> int:
        return _single(self.tokenizer.convert_tokens_to_ids(self.act))

    @functools.cached_property
    def _end_id(self) -> int:
        return _single(self.tokenizer.convert_tokens_to_ids(self.end))


@dataclass(frozen=True)
class ChatTemplate:
    """Turns through the tokenizer's own chat template; a turn's suffix is found by difference.

    The template is applied to short dummy conversations only: history is never rendered again. A template
    that rewrites earlier turns is refused by `check_prefix_stable`. Special tokens that an observation writes
    stay text.
    """

    tokenizer: PreTrainedTokenizerBase
    observation_role: str = "user"

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """The end-of-turn token of the template and the end-of-sequence token.

        Raises:
            TemplateError: there is neither, so a turn could not end.
        """
        return self._stop_tokens

    @functools.cached_property
    def _stop_tokens(self) -> tuple[int, ...]:
        eos = self.tokenizer.eos_token_id
        found = [*self._closing_token, *([eos] if isinstance(eos, int) else [])]
        if not found:
            raise TemplateError(
                "the chat template closes a turn with no special token and the tokenizer has no eos_token, "
                "so turns could not end. Set tokenizer.eos_token, or use the append-only markup."
            )
        return tuple(dict.fromkeys(found))

    def begin(self, system: str, observation: str) -> IntArray:
        """The template's rendering of the first messages, with its generation prompt."""
        head: list[Spoken] = [("system", system)] if system else []
        return _ids(
            self._tokens(
                self._apply([*head, ("user", observation)], prompt=True), [*head, ("user", observation)]
            )
        )

    def extend(self, observation: str, *, closed: bool) -> IntArray:
        """Everything the template writes between the agent's text and its next turn."""
        turn: list[Spoken] = [("user", "a"), ("assistant", _MARK)]
        messages = [*turn, (self.observation_role, observation)]
        text = _after_mark(self._apply(messages, prompt=True))
        suffix = self._tokens(text, [(self.observation_role, observation)])
        if closed and self._closing_token and suffix[:1] == list(self._closing_token):
            return _ids(suffix[1:])
        return _ids(suffix)

    def encode(self, text: str) -> IntArray:
        """Plain text as tokens; special tokens written in the text stay text."""
        return _ids(_encode(self.tokenizer, text))

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, without special tokens."""
        return _decode(self.tokenizer, tuple(int(token) for token in tokens))

    def _apply(self, messages: Sequence[Spoken], *, prompt: bool) -> str:
        """Render messages as text; special tokens that somebody wrote in a message are masked."""
        shown = [{"role": role, "content": self._mask(content)} for role, content in messages]
        return self._apply_text(shown, prompt=prompt)

    def _tokens(self, text: str, messages: Sequence[Spoken]) -> list[int]:
        """Tokenise a rendering: its own special tokens as such, masked ones as the text they are."""
        tokens: list[int] = []
        if not any(self._mask(content) != content for _, content in messages):
            return list(_encode_marked(self.tokenizer, text))
        for piece in self._special.split(text):
            if piece in self._special_ids:
                tokens.append(self._special_ids[piece])
            elif piece:
                tokens += _encode(self.tokenizer, piece.replace(_MASK, ""))
        return tokens

    def _mask(self, content: str) -> str:
        return (
            self._special.sub(lambda match: match[0][0] + _MASK + match[0][1:], content)
            if self._special_ids
            else content
        )

    @functools.cached_property
    def _special_ids(self) -> dict[str, int]:
        return {
            token.content: number
            for number, token in self.tokenizer.added_tokens_decoder.items()
            if token.special
        }

    @functools.cached_property
    def _special(self) -> re.Pattern[str]:
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        return re.compile("(" + "|".join(re.escape(token) for token in longest_first) + ")")

    @functools.cached_property
    def _closing_token(self) -> tuple[int, ...]:
        """The special token that ends a turn, as a tuple of one or none."""
        closing = _encode_marked(
            self.tokenizer, _after_mark(self._apply([("user", "a"), ("assistant", _MARK)], prompt=False))
        )
        return closing[:1] if closing[:1] and closing[0] in self._special_ids.values() else ()

    def _apply_text(self, messages: list[dict[str, str]], prompt: bool = False) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            )
        except Exception as error:  # jinja2 and whatever a template calls
            roles = ", ".join(message["role"] for message in messages)
            raise TemplateError(
                f"the chat template cannot be applied to messages of the roles {roles}: {error} "
                'Choose another observation role or template, or set `model.renderer = "markup"`.'
            ) from error


Spoken: TypeAlias = tuple[str, str]
"""(role, content)."""

_MARK = "AGENTSTURN"
_MASK = "\ue000"
"""A private character that keeps a special token in somebody's text from being one."""


def _after_mark(text: str) -> str:
    before, mark, after = text.partition(_MARK)
    if not mark:
        raise TemplateError(
            f"the chat template does not show the agent's turn as it was written: {before[:80]!r}."
        )
    return after


_REWRITES = (
    "the chat template changes earlier turns when a turn is added, so tokens the model has seen would differ "
    "from those it is trained on. Use a template that only appends (most '*_training' variants do), set "
    '`model.renderer = "markup"`, or train with one fresh stream for each turn.'
)


def check_prefix_stable(
    renderer: Renderer, apply: Callable[[list[dict[str, str]], bool], str] | None = None
) -> None:
    """Raise `TemplateError` where rendering k + 1 turns does not begin with the rendering of k turns.

    Args:
        renderer: `Markup` is stable by construction; a `ChatTemplate` is tried on a talk of three turns.
        apply: renders (messages, generation prompt?) as text, for templates from elsewhere.
    """
    if apply is None:
        if not isinstance(renderer, ChatTemplate):
            return
        apply = renderer._apply_text  # noqa: SLF001  # the check belongs to the class, beside it
    role = renderer.observation_role if isinstance(renderer, ChatTemplate) else "user"
    messages = [{"role": "user", "content": "You see a door."}]
    seen = apply(messages, True)  # the callback's form
    for turn in range(3):
        reply = f"<think>turn {turn}</think> go to door {turn}"
        messages.append({"role": "assistant", "content": reply})
        messages.append({"role": role, "content": f"You arrive at door {turn}."})
        longer = apply(messages, True)  # the callback's form
        if not longer.startswith(seen + reply):
            raise TemplateError(_REWRITES)
        seen = longer


def renderer_for(tokenizer: PreTrainedTokenizerBase, *, kind: str = "auto") -> Renderer:
    """Return the tokenizer's chat template as a renderer where it has one, the append-only markup otherwise.

    Args:
        kind: "auto", "template" or "markup".

    Raises:
        TemplateError: the template rewrites history, or the markup's tokens are missing.
    """
    renderer: Renderer
    if kind == "template" or (kind == "auto" and getattr(tokenizer, "chat_template", None)):
        renderer = ChatTemplate(tokenizer)
        check_prefix_stable(renderer)
        return renderer
    return Markup(tokenizer)


def _ids(tokens: Sequence[int] | list[int]) -> IntArray:
    return np.asarray(tokens, dtype=np.int32)


def _single(token: int | list[int]) -> int:
    return token if isinstance(token, int) else token[0]


@functools.lru_cache(maxsize=1 << 16)
def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Text worlds repeat themselves: most observations of a run are found here."""
    return tuple(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


@functools.lru_cache(maxsize=1 << 16)
def _encode_marked(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """A template's text as tokens, its special tokens as such."""
    return tuple(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False))


@functools.lru_cache(maxsize=1 << 16)
def _decode(tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, ...]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

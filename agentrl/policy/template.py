"""Turns through a tokenizer's own chat template, appended exactly or, where it rewrites, begun afresh.

Source of the rule: a stream is what the model saw, so what was sampled is never rendered again. The template
renders the conversation before and after a turn *as text*; where the later text goes on from the earlier one
and the agent's own words, the rest is appended. Where it does not (thoughts that are dropped, words that are
stripped, tools that move), the whole rendering begins a fresh stream, and the turn is marked as fresh.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from agentrl.errors import TemplateError
from agentrl.policy.base import Message
from agentrl.policy.codec import (
    MASK,
    decode_all,
    decode_inside,
    encode_plain,
    encode_tail,
    encode_whole,
    ids,
    mask,
    special_ids,
)
from agentrl.policy.family import family_of
from agentrl.policy.habits import KEY, MARK, TOOL, Jinja, habits_of, tool_call, tool_message
from agentrl.policy.render import Added, Renderer, is_closed
from agentrl.world.parsing import results_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from agentrl.policy.family import Family
    from agentrl.policy.habits import Habits
    from agentrl.trajectory import IntArray
    from agentrl.world.parsing import Call

THOUGHT_TOKENS: Final = ("<think>", "</think>", "[THINK]", "[/THINK]")
CALL_TOKENS: Final = ("<tool_call>", "</tool_call>")
OTHER_ENDS: Final = ("<|eom_id|>", "<|end_of_text|>", "<|endoftext|>")
"""Special tokens with which families end a turn besides the one that their template writes."""


@dataclass(frozen=True)
class ChatTemplate(Renderer):
    """A tokenizer's chat template as a renderer.

    Special tokens that an observation or a tool's description writes stay text.

    Args:
        variables: JSON of what else the template reads, such as `{"enable_thinking": false}`.
        append: never begin afresh: history stays as it was shown, also where the template would rewrite it.
        tools: JSON of the schemas that it lists; see `for_tools`.
    """

    tokenizer: PreTrainedTokenizerBase
    variables: str = "{}"
    append: bool = False
    tools: str = ""

    # -- what the template is ------------------------------------------------------------------------------

    @functools.cached_property
    def jinja(self) -> Jinja:
        """The template as a function."""
        return Jinja(self.tokenizer, self.variables)

    @property
    def habits(self) -> Habits:
        """What the template does."""
        return habits_of(self.jinja)

    @property
    def family(self) -> Family:
        """The model family and the form of its calls."""
        return family_of(self.jinja)

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """The end-of-turn token of the template, the end-of-sequence token, and others of the family.

        Raises:
            TemplateError: there is none, so a turn could not end.
        """
        return self._stop_tokens

    @functools.cached_property
    def _stop_tokens(self) -> tuple[int, ...]:
        known = special_ids(self.tokenizer)
        eos = self.tokenizer.eos_token_id
        closing = known.get(self.habits.closing)
        found = [token for token in (closing, eos) if isinstance(token, int)]
        if not found:
            raise TemplateError(
                "the chat template closes a turn with no special token and the tokenizer has no eos_token, "
                "so turns could not end. Set tokenizer.eos_token, or use the append-only markup."
            )
        return tuple(dict.fromkeys((*found, *(known[end] for end in OTHER_ENDS if end in known))))

    def for_tools(self, schemas: Sequence[Mapping[str, object]]) -> ChatTemplate:
        """Return this renderer for a world whose tools the template lists.

        Raises:
            TemplateError: the template lists no tools.
        """
        if not schemas:
            return self
        if not self.habits.lists_tools:
            raise TemplateError(
                "the chat template lists no tools, so the agent would not know of them. Use the protocol of "
                f"its family, {self.family.form!r}, which describes them in the system text."
            )
        return _with_tools(self, json.dumps(list(schemas), ensure_ascii=False))

    # -- text and tokens -----------------------------------------------------------------------------------

    def encode(self, text: str) -> IntArray:
        """Plain text as tokens; special tokens written in the text stay text."""
        return ids(encode_plain(self.tokenizer, text))

    def encode_turn(self, text: str) -> IntArray:
        """(N,) tokens of a turn that says `text`, with the blank that the template writes before words."""
        lead = "" if self._begins_with_call(text) else self.habits.lead
        written = mask(self.tokenizer, lead + text, but=self._spoken)
        return ids([*encode_tail(self.tokenizer, written), self.stop_tokens[0]])

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, without special tokens but those that belong to a call or a thought."""
        return decode_all(self.tokenizer, self._audible(tokens))

    def decode_turn(self, tokens: Sequence[int]) -> str:
        """What the agent wrote, as it stands in the stream, without the blank that the template writes."""
        text = decode_inside(self.tokenizer, self._audible(tokens))
        return text.removeprefix(self.habits.lead)

    def _begins_with_call(self, text: str) -> bool:
        known = special_ids(self.tokenizer)
        return text.startswith(tuple(token for token in self._spoken if token in known))

    def _audible(self, tokens: Sequence[int]) -> tuple[int, ...]:
        silent = self._silent
        return tuple(int(token) for token in tokens if int(token) not in silent)

    @functools.cached_property
    def _spoken(self) -> tuple[str, ...]:
        form = self.family.form
        return (*THOUGHT_TOKENS, *CALL_TOKENS, *(form.spoken if form is not None else ()))

    @functools.cached_property
    def _silent(self) -> frozenset[int]:
        spoken = set(self._spoken)
        return frozenset(number for text, number in special_ids(self.tokenizer).items() if text not in spoken)

    # -- turns ---------------------------------------------------------------------------------------------

    def begin(self, system: str, observation: str) -> IntArray:
        """The template's rendering of the first messages, with its generation prompt."""
        head = (Message("system", system),) if system else ()
        return ids(encode_whole(self.tokenizer, self.whole((*head, Message("user", observation)))))

    def follow(self, messages: Sequence[Message], answer: IntArray) -> Added:
        """What stands after the agent's words; everything, where the template rewrites what stood before."""
        closed = is_closed(answer, self.stop_tokens)
        past, now = self.whole(messages[:-2]), self.whole(messages)
        said = mask(
            self.tokenizer, decode_inside(self.tokenizer, self._audible(answer.tolist())), but=self._spoken
        )
        rest = self._rest(past, said, now)
        if rest is not None:
            return Added(self._tail(rest, closed=closed))
        if self.append:
            return Added(self.extend(messages[-1].content, closed=closed))
        return Added(ids(encode_whole(self.tokenizer, now)), fresh=True)

    def extend(self, observation: str, *, closed: bool) -> IntArray:
        """Everything the template writes between the agent's words and its next turn, found by difference."""
        results = self._results(observation)
        count = 0 if results is None else len(results)
        turn: dict[str, object] = {"role": "assistant", "content": MARK}
        if count and self.habits.results == "structured":
            turn = turn | {
                "content": "",
                "tool_calls": [tool_call(number, text=self.habits.texts) for number in range(count)],
            }
        named = [(f"{number:09d}", TOOL) for number in range(count)]
        after = self._observed(observation, named)
        text = self._render([{"role": "user", "content": "a"}, turn, *after])
        before, mark, rest = text.rpartition(MARK)
        if not mark:
            raise TemplateError(
                f"the chat template does not show the agent's turn as written: {before[:80]!r}."
            )
        if count and self.habits.results == "structured":
            rest = self._from_closing(rest)
        return self._tail(rest, closed=closed)

    def _rest(self, past: str, said: str, now: str) -> str | None:
        """What stands after the agent's words, or None where the text before them changed."""
        if now.startswith(past + said):
            return now[len(past) + len(said) :]
        if self.tools and self.habits.results == "structured" and now.startswith(past):
            rest = self._from_closing(now[len(past) :])
            written = now[len(past) : len(now) - len(rest)]
            return rest if rest and self._same(written, said) else None
        return None

    def _same(self, written: str, said: str) -> bool:
        """Whether a turn that the template wrote anew from its calls says what the agent said."""
        form = self.family.form
        if form is None:
            return False
        texts = [text.replace(MASK, "") for text in (written, said)]
        first, second = ([(call.name, call.arguments) for call in form.parse(text).calls] for text in texts)
        prose = [_prose(text, form.parse(text).calls).strip() for text in texts]
        return bool(first) and first == second and prose[0] == prose[1]

    def _from_closing(self, text: str) -> str:
        """The text from the token that ends the turn on."""
        place = text.find(self.habits.closing) if self.habits.closing else -1
        return text[place:] if place >= 0 else ""

    def _tail(self, rest: str, *, closed: bool) -> IntArray:
        """(P,) the rest of a rendering; a turn that is closed already is not closed again."""
        closing = self.habits.closing
        if closed and closing and rest.lstrip().startswith(closing):
            rest = rest.lstrip()
        tokens = encode_tail(self.tokenizer, rest)
        return ids(tokens[1:] if closed and tokens[:1] and tokens[0] in self.stop_tokens else tokens)

    def whole(self, messages: Sequence[Message]) -> str:
        """Return the rendering of a conversation up to the next turn, masked by `codec.mask`."""
        return _shown(self, tuple(messages))

    # -- messages ------------------------------------------------------------------------------------------

    def _render(self, spoken: Sequence[Mapping[str, object]]) -> str:
        """Messages as text with the generation prompt; a header that the template forgets is added."""
        schemas = json.loads(mask(self.tokenizer, self.tools)) if self.tools else ()
        return self.jinja(spoken, prompt=True, tools=schemas) + self.habits.header

    def spoken(self, messages: Sequence[Message]) -> list[dict[str, object]]:
        """Return the conversation as templates take it, special tokens that somebody wrote masked."""
        found: list[dict[str, object]] = []
        calls: list[tuple[str, str]] = []
        for place, message in enumerate(self._merged(messages)):
            if message.role == "assistant":
                turn, calls = self._agent(message.content, place)
                found.append(turn)
            elif message.role == "user" and place:
                found += self._observed(message.content, calls)
            else:
                found.append(self._plain(message.role, message.content))
        return found

    def _merged(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Put a system text that the template would not show before the first message."""
        if self.habits.system or not messages or messages[0].role != "system":
            return messages
        first = Message("user", f"{messages[0].content}\n\n{messages[1].content}")
        return (first, *messages[2:])

    def _agent(self, text: str, place: int) -> tuple[dict[str, object], list[tuple[str, str]]]:
        """A turn of the agent, and (identifier, tool) of each of its calls."""
        written = self.habits.opened + text
        turn: dict[str, object] = {
            "role": "assistant",
            "content": mask(self.tokenizer, written, but=self._spoken),
        }
        form = self.family.form
        if not self.tools or form is None:
            return turn, []
        calls = form.parse(text).calls
        named = [(_identifier(call, place, number), call.name) for number, call in enumerate(calls)]
        if calls and self.habits.results == "structured":
            entries = [_entry(call, name) for call, (name, _) in zip(calls, named, strict=True)]
            masked = json.loads(mask(self.tokenizer, json.dumps(entries, ensure_ascii=False)))
            if self.habits.texts:
                masked = [_with_text(entry) for entry in masked]
            prose = mask(self.tokenizer, self.habits.opened + _prose(text, calls))
            turn = turn | {"content": prose, "tool_calls": masked}
        return turn, named

    def _observed(self, observation: str, calls: Sequence[tuple[str, str]]) -> list[dict[str, object]]:
        """An observation as messages: results of calls where there are some, else the user's."""
        results = self._results(observation)
        if results is None or (not calls and self.habits.results == "structured"):
            return [self._plain("user", observation if results is None else "\n".join(results))]
        named = [*calls, *((f"{number:09d}", TOOL) for number in range(len(calls), len(results)))]
        if len(results) < len(calls):
            results = [*results, *["See the first result."] * (len(calls) - len(results))]
        return [
            tool_message(mask(self.tokenizer, text), *which)
            for text, which in zip(results, named, strict=True)
        ]

    def _results(self, observation: str) -> list[str] | None:
        return results_in(observation) if self.tools and self.habits.results != "text" else None

    def _plain(self, role: str, content: str) -> dict[str, object]:
        return {"role": role, "content": mask(self.tokenizer, content)}


@functools.lru_cache(maxsize=64)
def _with_tools(renderer: ChatTemplate, tools: str) -> ChatTemplate:
    return replace(renderer, tools=tools)


@functools.lru_cache(maxsize=256)
def _shown(renderer: ChatTemplate, messages: tuple[Message, ...]) -> str:
    """The rendering of a conversation, special tokens that somebody wrote masked."""
    return renderer._render(renderer.spoken(messages))  # noqa: SLF001  # a cache beside the class


def _identifier(call: Call, place: int, number: int) -> str:
    """The call's own identifier where it is one, else nine digits that say where it stands."""
    given = call.identifier
    return given if len(given) == 9 and given.isalnum() else f"{place % 10**6:06d}{number:03d}"


def _entry(call: Call, identifier: str) -> dict[str, object]:
    arguments = dict(call.arguments) if call.arguments is not None else {KEY: call.written}
    return {"id": identifier, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _with_text(entry: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """The entry of a call for a template that wants the arguments as a text."""
    function = entry["function"]
    written = json.dumps(function["arguments"], ensure_ascii=False)
    return {**entry, "function": {**function, "arguments": written}}


def _prose(text: str, calls: Sequence[Call]) -> str:
    """What a turn says outside of its calls."""
    pieces: list[str] = []
    position = 0
    for call in calls:
        pieces.append(text[position : call.start])
        position = max(position, call.end)
    return "".join((*pieces, text[position:]))

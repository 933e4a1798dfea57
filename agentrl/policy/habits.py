"""What a chat template does, found by rendering short conversations that nobody had.

Nothing here knows a template by its text: what a user's model folder holds decides.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

from agentrl.errors import TemplateError, as_sentence
from agentrl.policy.codec import special_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

Spoken: TypeAlias = "Mapping[str, object]"
"""One message as templates take it."""

Results: TypeAlias = Literal["text", "verbatim", "structured"]

MARK: Final = "AGENTSTURN"
TOOL: Final = "agent_tool"
KEY: Final = "agent_key"
SCHEMA: Final[Mapping[str, object]] = {
    "type": "function",
    "function": {
        "name": TOOL,
        "description": "Looks something up.",
        "parameters": {
            "type": "object",
            "properties": {KEY: {"type": "string", "description": "What to look up."}},
            "required": [KEY],
        },
    },
}
_WORDS: Final = "USERASKED"
_ASKED: Final[Spoken] = {"role": "user", "content": _WORDS}
_USER: Final[Spoken] = {"role": "user", "content": "a"}


@dataclass(frozen=True)
class Jinja:
    """A tokenizer's chat template with its variables.

    Args:
        variables: JSON of what else the template reads, such as `enable_thinking`.
    """

    tokenizer: PreTrainedTokenizerBase
    variables: str = "{}"

    def __call__(
        self, messages: Sequence[Spoken], *, prompt: bool = False, tools: Sequence[Mapping[str, object]] = ()
    ) -> str:
        """Render messages as text.

        Raises:
            TemplateError: the template refuses them.
        """
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    cast("list[dict[str, str]]", list(messages)),  # theirs knows texts only
                    tools=[dict(tool) for tool in tools] or None,
                    tokenize=False,
                    add_generation_prompt=prompt,
                    **json.loads(self.variables),
                )
            )
        except Exception as error:  # jinja2 and whatever a template calls
            roles = ", ".join(str(message["role"]) for message in messages)
            raise TemplateError(
                f"the chat template cannot be applied to messages of the roles {roles}: {as_sentence(error)} "
                'Mend or replace the template, or set `model.renderer = "markup"`.'
            ) from error

    def attempt(
        self, messages: Sequence[Spoken], *, prompt: bool = False, tools: Sequence[Mapping[str, object]] = ()
    ) -> str:
        """Render messages, as the empty text where the template refuses them."""
        try:
            return self(messages, prompt=prompt, tools=tools)
        except TemplateError:
            return ""


@dataclass(frozen=True, slots=True)
class Habits:
    """What a chat template does.

    Attributes:
        system: whether it shows a system message; otherwise that text is put before the first user message.
        header: what it writes before the agent's turn and leaves out of its generation prompt.
        lead: the blank that it writes between its prompt and what the agent says.
        opened: the thought that its generation prompt begins.
        closing: the special token that ends the agent's turn, or nothing.
        lists_tools: whether it shows the tools that it is given.
        results: how results of calls are shown: as ordinary `text`, or as tool messages after the agent's own
            words (`verbatim`) or after its calls taken apart (`structured`).
        drops_thoughts: whether an earlier turn loses its thought when a user message follows.
        texts: whether it wants a call's arguments as a text of JSON, not as an object.
    """

    system: bool
    header: str
    lead: str
    opened: str
    closing: str
    lists_tools: bool
    results: Results
    drops_thoughts: bool
    texts: bool


def tool_call(number: int, *, text: bool = False) -> dict[str, object]:
    """Return a call of the tool that does not exist, with an identifier that every template takes.

    Args:
        text: give its arguments as a text of JSON, as some templates want them.
    """
    arguments = {KEY: MARK}
    function = {"name": TOOL, "arguments": json.dumps(arguments) if text else arguments}
    return {"id": f"{number:09d}", "type": "function", "function": function}


def tool_message(content: str, identifier: str, name: str) -> dict[str, object]:
    """Return the result of a call as templates take it."""
    return {"role": "tool", "content": content, "tool_call_id": identifier, "name": name}


@functools.lru_cache(maxsize=64)
def habits_of(jinja: Jinja) -> Habits:
    """Find out what a template does.

    Raises:
        TemplateError: it cannot be applied to a user message, or does not show the agent's turn.
    """
    user = _since_asked(jinja([_ASKED]))
    prompt = prompt_of(jinja)
    before, mark, after = jinja([_ASKED, {"role": "assistant", "content": MARK}]).partition(MARK)
    if not mark:
        raise TemplateError(
            f"the chat template does not show the agent's turn as it was written: {before[:80]!r}. "
            'Mend the template, or set `model.renderer = "markup"`.'
        )
    header = _beyond(_since_asked(before), user)
    lists = TOOL in jinja.attempt([_USER], tools=[SCHEMA])
    ending = special_pattern(jinja.tokenizer).match(after.lstrip())
    results = _results(jinja, text=_wants_texts(jinja)) if lists else "text"
    between = _beyond(header, prompt)
    return Habits(
        system="INSTRUCTION" in jinja.attempt([{"role": "system", "content": "INSTRUCTION"}, _USER]),
        header=header if not prompt and header.strip() else "",
        lead=between if not between.strip() and (prompt or not header.strip()) else "",
        opened=prompt[prompt.rfind("<think>") :]
        if prompt.rfind("<think>") > prompt.rfind("</think>")
        else "",
        closing=ending[0] if ending else "",
        lists_tools=lists,
        results="text" if results == "structured" and not ending else results,
        drops_thoughts=_drops_thoughts(jinja),
        texts=_wants_texts(jinja),
    )


def prompt_of(jinja: Jinja) -> str:
    """Return what asks for the agent's turn: what is added after the user's words.

    What stands before them may be the time, which no two renderings share.
    """
    return _beyond(_since_asked(jinja([_ASKED], prompt=True)), _since_asked(jinja([_ASKED])))


def _since_asked(text: str) -> str:
    return text.rpartition(_WORDS)[2]


def _beyond(text: str, beginning: str) -> str:
    """The part of a text after a beginning; nothing where it begins otherwise."""
    return text[len(beginning) :] if text.startswith(beginning) else ""


def _wants_texts(jinja: Jinja) -> bool:
    """Whether the template shows a call only where its arguments are a text."""
    shown = [
        jinja.attempt([_USER, {"role": "assistant", "content": "", "tool_calls": [tool_call(1, text=text)]}])
        for text in (False, True)
    ]
    return MARK not in shown[0] and MARK in shown[1]


def _results(jinja: Jinja, *, text: bool) -> Results:
    first, second = (tool_message(f"RESULT{number}", f"{number:09d}", TOOL) for number in (1, 2))
    words: Spoken = {"role": "assistant", "content": MARK}
    shown = jinja.attempt([_USER, words, first, words, second], prompt=True, tools=[SCHEMA])
    if "RESULT1" in shown and "RESULT2" in shown and shown.count(MARK) == 2:
        return "verbatim"
    calls: list[Spoken] = [
        {"role": "assistant", "content": "", "tool_calls": [tool_call(number, text=text)]}
        for number in (1, 2)
    ]
    shown = jinja.attempt([_USER, calls[0], first, calls[1], second], prompt=True, tools=[SCHEMA])
    return "structured" if "RESULT1" in shown and "RESULT2" in shown else "text"


def _drops_thoughts(jinja: Jinja) -> bool:
    thought: Spoken = {"role": "assistant", "content": f"<think>\nTHOUGHT\n</think>\n\n{MARK}"}
    shown = jinja.attempt([_USER, thought, _USER], prompt=True)
    return MARK in shown and "THOUGHT" not in shown

"""Which model family a chat template belongs to, and so how its calls are written."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.errors import TemplateError
from agentrl.policy.codec import special_ids
from agentrl.policy.habits import MARK, SCHEMA, TOOL, habits_of, tool_call, tool_message
from agentrl.world.calls import GemmaCalls, LlamaCalls, MistralCalls
from agentrl.world.marked import SEPARATOR, CoderCalls, DeepSeekCalls
from agentrl.world.protocol import JsonCalls, NativeCalls

if TYPE_CHECKING:
    from agentrl.policy.habits import Jinja, Spoken
    from agentrl.world.protocol import Protocol


@dataclass(frozen=True, slots=True)
class Family:
    """A model family.

    Attributes:
        name: of the family; form: how its calls are written, or None where nobody here reads them.
        shape: a call as its template writes it, with what stands around; empty where it writes none.
    """

    name: str
    form: Protocol | None
    shape: str = ""


@functools.lru_cache(maxsize=64)
def family_of(jinja: Jinja) -> Family:
    """Recognise the family by what its template writes.

    Raises:
        TemplateError: the template cannot be applied at all.
    """
    shape, text = call_shape(jinja), jinja([{"role": "user", "content": "a"}], prompt=True)
    name = _name(jinja, text)
    form = _form_of_shape(shape, listed=habits_of(jinja).lists_tools) if shape else _form_of_name(name)
    return Family(name, form, shape)


def call_shape(jinja: Jinja) -> str:
    """Return what the template writes for a call, after the user's message."""
    user: Spoken = {"role": "user", "content": "a"}
    made = tool_call(1, text=habits_of(jinja).texts)
    call: Spoken = {"role": "assistant", "content": "", "tool_calls": [made]}
    start = jinja.attempt([user], tools=[SCHEMA], prompt=True)
    for messages in ([user, call], [user, call, tool_message("RESULT", "000000001", TOOL)]):
        shown = jinja.attempt(messages, tools=[SCHEMA])
        place = shown.rfind(MARK)
        if place >= 0:
            same = next(
                (k for k, (one, two) in enumerate(zip(start, shown, strict=False)) if one != two),
                min(len(start), len(shown)),
            )
            return shown[same:].partition("RESULT")[0]
    return ""


def _form_of_shape(shape: str, *, listed: bool) -> Protocol | None:
    if "[TOOL_CALLS]" in shape:
        return MistralCalls(listed=listed, version=_mistral_version(shape))
    if SEPARATOR in shape:
        return DeepSeekCalls(listed=listed, fenced="```" in shape)
    if "<function=" in shape and "<parameter=" in shape:
        return CoderCalls(listed=listed)
    if "<tool_call>" in shape and '"arguments"' in shape:
        return NativeCalls() if listed else JsonCalls()
    if '"parameters"' in shape and '"name"' in shape:
        return LlamaCalls(listed=listed)
    return None


def _mistral_version(shape: str) -> int:
    if "[ARGS]" in shape:
        return 11 if "[CALL_ID]" in shape else 13
    return 3 if "[TOOL_CALLS] " in shape else 7


def _form_of_name(name: str) -> Protocol:
    forms: dict[str, Protocol] = {
        "Llama 3": LlamaCalls(listed=False),
        "Gemma": GemmaCalls(),
    }
    return forms.get(name, JsonCalls())


def _name(jinja: Jinja, text: str) -> str:
    habits = habits_of(jinja)
    if "<|im_start|>" in text:
        if not habits.lists_tools:
            return "ChatML"
        if "<function=" in call_shape(jinja):
            return "Qwen3-Coder"
        return "Qwen3" if habits.drops_thoughts or "<think>" in _vocabulary(jinja) else "Qwen2.5"
    marks = {
        "<|start_header_id|>": "Llama 3",
        "[INST]": "Mistral",
        "<start_of_turn>": "Gemma",
        "<\uff5cUser\uff5c>": "DeepSeek",
    }
    return next((name for mark, name in marks.items() if mark in text), "unknown")


def _vocabulary(jinja: Jinja) -> frozenset[str]:
    """The texts of all tokens that were added to the vocabulary."""
    added = jinja.tokenizer.added_tokens_decoder.values()
    return frozenset((*special_ids(jinja.tokenizer), *(token.content for token in added)))


def native_form(jinja: Jinja) -> Protocol:
    """Return the protocol in which the model's own calls are written and read.

    Raises:
        TemplateError: the template writes calls in a form that nobody here reads.
    """
    family = family_of(jinja)
    if family.form is None:
        raise TemplateError(
            f"the chat template writes a call as {family.shape.strip()!r}, a form that is not read here. "
            "Choose environment.protocol = json or tags, which any model can learn, or use a template whose "
            "calls are in the form of Qwen, Llama 3, Mistral or DeepSeek."
        )
    return family.form

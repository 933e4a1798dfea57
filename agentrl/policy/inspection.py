"""What `agentrl check-template` says: how turns, tools and thoughts come out, tried and not guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentrl.errors import TemplateError
from agentrl.policy.base import Message
from agentrl.policy.codec import MASK, encode_whole
from agentrl.policy.habits import KEY, SCHEMA, TOOL, prompt_of
from agentrl.policy.template import ChatTemplate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentrl.policy.render import Renderer
    from agentrl.world.protocol import Protocol

APPENDED: Final = "appended"
REWRITTEN: Final = "rewritten"
REFUSED: Final = "refused"
_THOUGHT: Final = "<think>\nA door.\n</think>\n\n"


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one kind of turn when the next message came.

    Attributes:
        turn: what was said and what followed; `outcome`: "appended", "rewritten" or "refused".
        same_tokens: whether tokenising the whole conversation anew would give the stream's tokens.
        detail: where the rendering changed, or why the template refused.
    """

    turn: str
    outcome: str
    same_tokens: bool = True
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        family: that was recognised; `protocol`: in which its calls are written and read, "" where in none.
        exact: whether every kind of turn that was tried is appended.
        tried: the kinds of turns; `tools`, `results`, `call`: how tools are listed, their results shown, and
            what a call looks like.
        tokens: texts of the stop tokens; `prompt`: what asks for the agent's turn.
        notes: what else was found; `advice`: what to do, empty where nothing needs to be done.
    """

    family: str
    protocol: str
    exact: bool
    tried: tuple[Tried, ...]
    tools: str
    results: str
    call: str
    tokens: tuple[str, ...]
    prompt: str
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


def inspect_renderer(renderer: Renderer) -> Inspection:
    """Try a renderer on short conversations.

    Raises:
        TemplateError: its template cannot be applied at all.
    """
    if isinstance(renderer, ChatTemplate):
        return _inspect(renderer)
    return Inspection(
        family="none",
        protocol="",
        exact=True,
        tried=(),
        tools="described in the system text by the world's protocol",
        results="as the world's protocol writes them",
        call="",
        tokens=(),
        prompt="<|act|>",
        notes=("there is no chat template; turns are written in the append-only markup.",),
    )


def _inspect(renderer: ChatTemplate) -> Inspection:
    habits, family = renderer.habits, renderer.family
    tried = tuple(_turns(renderer, family.form))
    name = type(family.form).__name__ if family.form is not None else ""
    return Inspection(
        family=family.name,
        protocol=name,
        exact=all(one.outcome == APPENDED for one in tried),
        tried=tried,
        tools="listed by the template" if habits.lists_tools else "described in the system text",
        results="as user messages" if habits.results == "text" else "as tool messages",
        call=family.form.write(TOOL, {KEY: "tea"}) if family.form is not None else family.shape.strip(),
        tokens=tuple(str(renderer.tokenizer.convert_ids_to_tokens(token)) for token in renderer.stop_tokens),
        prompt=_prompt(renderer),
        notes=tuple(_notes(renderer)),
        advice=tuple(_advice(renderer, tried)),
    )


def _prompt(renderer: ChatTemplate) -> str:
    return prompt_of(renderer.jinja) + renderer.habits.header


def _turns(renderer: ChatTemplate, form: Protocol | None) -> list[Tried]:
    told = "You see a door."
    thought = _THOUGHT.removeprefix(renderer.habits.opened)
    kinds = [
        ("words, then an observation", "go to door 1", told, renderer),
        ("blanks around the words, then an observation", " go to door 1 \n", told, renderer),
        ("a thought and words, then an observation", f"{thought}go to door 1", told, renderer),
    ]
    if form is not None:
        listing = renderer.for_tools([SCHEMA] if renderer.habits.lists_tools else [])
        call, result = form.write(TOOL, {KEY: "tea"}), form.render("Tea is a drink.")
        kinds += [
            ("a call, then its result", call, result, listing),
            ("a thought and a call, then its result", f"{thought}{call}", result, listing),
        ]
    return [_try(*kind) for kind in kinds]


def _try(title: str, said: str, observed: str, renderer: ChatTemplate) -> Tried:
    """Say the same twice, so that a turn stands in the middle too."""
    messages = [Message("system", "Be brief."), Message("user", "Find tea.")]
    try:
        stream = renderer.begin("Be brief.", "Find tea.").tolist()
        for _ in range(2):
            answer = renderer.encode_turn(said)
            before = renderer.whole(messages)
            messages += [
                Message("assistant", renderer.decode_turn(answer.tolist())),
                Message("user", observed),
            ]
            added = renderer.follow(messages, answer)
            if added.fresh:
                return Tried(title, REWRITTEN, detail=_change(before + said, renderer.whole(messages)))
            stream += [*answer.tolist(), *added.tokens.tolist()]
    except TemplateError as error:
        return Tried(title, REFUSED, detail=str(error))
    whole = encode_whole(renderer.tokenizer, renderer.whole(messages))
    return Tried(title, APPENDED, same_tokens=stream == list(whole))


def _change(before: str, after: str) -> str:
    """Where a rendering stops being the beginning of the next."""
    pairs = enumerate(zip(before, after, strict=False))
    place = next((k for k, (one, two) in pairs if one != two), min(len(before), len(after)))
    start = max(place - 12, 0)
    was, now = (text[start : place + 28].replace(MASK, "") for text in (before, after))
    return f"{was!r} became {now!r}"


def _notes(renderer: ChatTemplate) -> list[str]:
    habits, tokenizer = renderer.habits, renderer.tokenizer
    found: list[str] = []
    if not habits.system:
        found.append("the template shows no system message; that text is put before the first user message.")
    if habits.header:
        found.append(f"the template has no generation prompt; {habits.header!r} is added after its text.")
    if not habits.closing:
        found.append("the template ends a turn with no special token; the end-of-sequence token ends it.")
    if habits.opened:
        found.append("the generation prompt opens a thought, so the agent's turn begins inside of it.")
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id in renderer.stop_tokens:
        found.append(
            f"{tokenizer.pad_token!r} pads and ends turns; nothing is masked by its id here, so it is kept."
        )
    text = renderer.whole([Message("user", "a")])
    if tokenizer.bos_token and text.startswith(str(tokenizer.bos_token)) and _adds_bos(renderer):
        found.append(f"the tokenizer would write a second {tokenizer.bos_token!r}; it is written once.")
    if "strftime_now" in str(tokenizer.chat_template):
        found.append("the template writes the date, so equal seeds give other tokens on another day.")
    return found


def _adds_bos(renderer: ChatTemplate) -> bool:
    coded = renderer.tokenizer.encode("a")
    return bool(coded) and coded[0] == renderer.tokenizer.bos_token_id


def _advice(renderer: ChatTemplate, tried: Sequence[Tried]) -> list[str]:
    found: list[str] = []
    if any(one.outcome == REWRITTEN for one in tried):
        found.append(
            "a rewritten turn begins a fresh token stream, exact and counted (rewritten_share), which costs "
            'reading the history again. model.renderer = "append" keeps the history as it was shown.'
        )
    if any(one.outcome == REFUSED for one in tried):
        found.append(
            "some conversations are refused; use another protocol or template for worlds that need them."
        )
    if renderer.family.form is None:
        found.append("nobody here reads this form of calls: choose environment.protocol = json or tags.")
    else:
        found.append('environment.protocol = "native" calls tools in this form.')
    if "strftime_now" in str(renderer.tokenizer.chat_template):
        found.append(
            "set the template's date in model.template if it takes one, for runs that can be repeated."
        )
    if any(one.outcome == APPENDED and not one.same_tokens for one in tried):
        found.append(
            "tokens merge across the ends of turns when a conversation is tokenised anew, so do not do that "
            "with what was trained here: the journals hold the tokens as they were sampled."
        )
    return found

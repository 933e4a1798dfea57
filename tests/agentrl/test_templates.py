"""Chat templates of model families: what is appended, what begins a fresh stream, and hostile tokenizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from agentrl.errors import TemplateError
from agentrl.policy.base import Message
from agentrl.policy.codec import encode_plain
from agentrl.policy.inspection import APPENDED, REFUSED, REWRITTEN, inspect_renderer
from agentrl.policy.load import renderer_for
from agentrl.policy.native import native_protocol
from agentrl.policy.template import ChatTemplate
from agentrl.world import JsonCalls
from agentrl.world.calls import GemmaCalls, LlamaCalls, MistralCalls
from agentrl.world.marked import CoderCalls, DeepSeekCalls
from agentrl.world.protocol import NativeCalls
from tests.agentrl.rollouts import small_renderer
from tests.agentrl.templates import ADDED, CHATML, FAMILIES, GEMMA, QWEN3, tokenizer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from agentrl.trajectory import IntArray
    from agentrl.world import Protocol

THOUGHT = "<think>\nThe door.\n</think>\n\n"
SCHEMA: Mapping[str, object] = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Searches.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}
LISTING = (
    "qwen2", "qwen3", "llama3", "mistral3", "mistral7", "mistral11", "deepseek3", "deepseek31", "coder",
)  # fmt: skip
KINDS = ("bytes", "blanks")


def template(family: str, kind: str = "bytes", *, listing: bool = False) -> ChatTemplate:
    made = ChatTemplate(tokenizer_of(family, kind=kind))
    return made.for_tools([SCHEMA]) if listing else made


def form_of(made: ChatTemplate) -> Protocol:
    assert made.family.form is not None
    return made.family.form


class Talk:
    """A conversation as a rollout has it: what stands in the stream, and which turns began a fresh one."""

    def __init__(self, renderer: ChatTemplate, system: str = "", first: str = "Find tea.") -> None:
        self.renderer = renderer
        self.messages = [*([Message("system", system)] if system else []), Message("user", first)]
        self.stream = renderer.begin(system, first).tolist()
        self.fresh: list[bool] = []

    def turn(self, said: str | IntArray, observed: str) -> list[int]:
        """Say something, in words or in tokens; what the next observation added."""
        answer = self.renderer.encode_turn(said) if isinstance(said, str) else said
        text = self.renderer.decode_turn(answer.tolist())
        self.messages += [Message("assistant", text), Message("user", observed)]
        added = self.renderer.follow(self.messages, answer)
        tokens: list[int] = added.tokens.tolist()
        self.stream = tokens if added.fresh else [*self.stream, *answer.tolist(), *tokens]
        self.fresh.append(added.fresh)
        return tokens


def whole(
    made: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, object]], *, listing: bool = False
) -> list[int]:
    """The oracle: the whole conversation rendered and tokenised at once by transformers."""
    tools: list[dict[Any, Any] | Callable[..., Any]] | None = [dict(SCHEMA)] if listing else None
    text = made.apply_chat_template(
        cast("list[dict[str, str]]", list(messages)), tools=tools, tokenize=False, add_generation_prompt=True
    )
    tokens: list[int] = made.encode(cast("str", text), add_special_tokens=False)
    return tokens


def user(text: str) -> dict[str, object]:
    return {"role": "user", "content": text}


def agent(text: str) -> dict[str, object]:
    return {"role": "assistant", "content": text}


# -- the families ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "name", "form"),
    [
        ("chatml", "ChatML", JsonCalls()),
        ("qwen2", "Qwen2.5", NativeCalls()),
        ("qwen3", "Qwen3", NativeCalls()),
        ("llama3", "Llama 3", LlamaCalls()),
        ("mistral3", "Mistral", MistralCalls(version=3)),
        ("mistral7", "Mistral", MistralCalls(version=7)),
        ("mistral11", "Mistral", MistralCalls(version=11)),
        ("gemma", "Gemma", GemmaCalls()),
        ("gemma3", "Gemma", GemmaCalls()),
        ("r1", "DeepSeek", JsonCalls()),
        ("deepseek3", "DeepSeek", DeepSeekCalls()),
        ("deepseek31", "DeepSeek", DeepSeekCalls(fenced=False)),
        ("coder", "Qwen3-Coder", CoderCalls()),
    ],
)
def test_a_family_is_recognised_by_what_its_template_writes(family: str, name: str, form: Protocol) -> None:
    made = template(family)
    assert (made.family.name, native_protocol(made)) == (name, form)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [name for name in FAMILIES if not name.startswith("mistral")])
def test_plain_turns_are_appended_as_the_whole_rendering_has_them(family: str, kind: str) -> None:
    talk = Talk(template(family, kind))
    talk.turn("go to door 1.", "You see a door.")
    talk.turn("look at the été 門", "\n\nindented\n")
    assert talk.fresh == [False, False]
    # R1's prompt opens a thought, which belongs to what the agent said.
    opened = "<think>\n" if family == "r1" else ""
    assert talk.stream == whole(
        talk.renderer.tokenizer,
        [
            user("Find tea."), agent(f"{opened}go to door 1."), user("You see a door."),
            agent(f"{opened}look at the été 門"), user("\n\nindented\n"),
        ],
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", LISTING)
def test_calls_and_results_are_appended_as_the_whole_rendering_has_them(family: str, kind: str) -> None:
    made = template(family, kind, listing=True)
    form, talk = form_of(made), Talk(made)
    messages = [user("Find tea.")]
    for number, query in enumerate(("tea", "assam")):
        written = form.write("search", {"query": query})
        talk.turn(written, form.render(f"{query} is a drink"))
        (call,) = form.parse(written).calls
        turn = agent(written)
        identifier = call.identifier or f"{number:09d}"
        if family.startswith("mistral"):
            entry = {"name": "search", "arguments": {"query": query}}
            turn = agent("") | {"tool_calls": [{"id": identifier, "type": "function", "function": entry}]}
        result: dict[str, object] = {
            "role": "tool",
            "content": f"{query} is a drink",
            "tool_call_id": identifier,
            "name": "search",
        }
        messages += [turn, result]
    assert talk.fresh == [False, False]
    assert talk.stream == whole(made.tokenizer, messages, listing=True)
    assert "search" in made.tokenizer.decode(talk.stream[: len(made.begin("", "Find tea."))])


def test_several_results_of_one_turn_go_to_their_calls() -> None:
    made = template("mistral11", listing=True)
    form = form_of(made)
    written = form.write("search", {"query": "tea"}) + form.write("search", {"query": "rice"})
    first, second = (call.identifier for call in form.parse(written).calls)
    added = made.tokenizer.decode(Talk(made).turn(written, f"{form.render('a')}\n{form.render('b')}"))
    assert f'{{"content": a, "call_id": "{first}"}}' in added
    assert f'{{"content": b, "call_id": "{second}"}}' in added
    assert first != second
    # A result that was not split goes to the first call; no call is left without one.
    added = made.tokenizer.decode(Talk(made).turn(written, form.render("a")))
    assert added.count("[TOOL_RESULTS]") == 2


def test_the_words_of_a_call_stay_as_sampled_where_the_template_would_write_it_anew() -> None:
    made = template("mistral7", listing=True)
    form, talk = form_of(made), Talk(made)
    spaced = '[TOOL_CALLS][{"name":  "search","arguments": {"query":"tea"}, "id": "abcDEF123"}]'
    added = talk.turn(spaced, form.render("tea is"))
    # The same call in other blanks is no other history; its own identifier comes back with the result.
    assert talk.fresh == [False]
    assert spaced in made.tokenizer.decode(talk.stream)
    assert '"call_id": "abcDEF123"' in made.tokenizer.decode(added)
    # Words beside the call, which this template drops, are.
    talk.turn(f"So: {form.write('search', {'query': 'x'})}", form.render("x is"))
    assert talk.fresh == [False, True]
    assert "So:" not in made.tokenizer.decode(talk.stream)


def test_a_call_that_cannot_be_read_gets_its_error_in_a_role_that_the_template_takes() -> None:
    for family in LISTING:
        made = template(family, listing=True)
        form, talk = form_of(made), Talk(made)
        talk.turn("Hm.", form.render("Call a tool."))
        talk.turn(form.write("search", {"query": "tea"}), form.render("tea is"))
        assert "Call a tool." in made.tokenizer.decode(talk.stream)


# -- what templates rewrite --------------------------------------------------------------------------------


def test_thoughts_are_dropped_when_a_user_speaks_and_kept_while_tools_do() -> None:
    made = template("qwen3", listing=True)
    form = form_of(made)
    call = THOUGHT + form.write("search", {"query": "tea"})
    talk = Talk(made)
    talk.turn(call, form.render("tea is"))
    talk.turn(call, form.render("tea was"))
    assert talk.fresh == [False, False]
    assert made.tokenizer.decode(talk.stream).count("The door.") == 2
    talk.turn(f"{THOUGHT}Tea.", "Look again.")
    assert talk.fresh == [False, False, True]
    # The fresh stream is what the template shows, without any thought, and nothing of it was sampled.
    assert "The door." not in made.tokenizer.decode(talk.stream)
    assert made.tokenizer.decode(talk.stream).count('"arguments": {"query": "tea"}') == 2
    result = {"role": "tool", "tool_call_id": "0", "name": "search"}
    assert talk.stream == whole(
        made.tokenizer,
        [
            user("Find tea."), agent(call), {**result, "content": "tea is"}, agent(call),
            {**result, "content": "tea was"}, agent(f"{THOUGHT}Tea."), user("Look again."),
        ],
        listing=True,
    )  # fmt: skip


def test_a_prompt_that_opens_a_thought() -> None:
    talk = Talk(template("r1"))
    talk.turn("The door.\n</think>\n\ngo to door 1", "You see a door.")
    assert talk.fresh == [True]
    assert talk.stream == whole(
        talk.renderer.tokenizer,
        [user("Find tea."), agent("\n\ngo to door 1"), user("You see a door.")],
    )


@pytest.mark.parametrize("family", ["llama3", "gemma", "gemma3"])
def test_words_that_a_template_trims_begin_a_fresh_stream(family: str) -> None:
    talk = Talk(template(family))
    talk.turn(" go to door 1 ", "You see a door.")
    talk.turn("look", "A door.")
    assert talk.fresh == [True, False]
    trimmed = [
        user("Find tea."),
        agent("go to door 1"),
        user("You see a door."),
        agent("look"),
        user("A door."),
    ]
    assert talk.stream == whole(talk.renderer.tokenizer, trimmed)


def test_a_system_text_that_moves_begins_a_fresh_stream() -> None:
    made = template("mistral3", listing=True)
    talk = Talk(made, system="Be brief.")
    assert "Be brief." in made.tokenizer.decode(talk.stream)
    form = form_of(made)
    talk.turn(form.write("search", {"query": "tea"}), form.render("tea is"))
    talk.turn(form.write("search", {"query": "rice"}), form.render("rice is"))
    assert talk.fresh == [True, False]
    assert "Be brief." not in made.tokenizer.decode(talk.stream)  # what this template does with it


@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_without_its_rewriting_never_begins_afresh(family: str) -> None:
    made = renderer_for(tokenizer_of(family), kind="append")
    assert isinstance(made, ChatTemplate)
    tooled = made.for_tools([SCHEMA]) if made.habits.lists_tools else made
    form = form_of(made)
    talk = Talk(tooled, system="Be brief.")
    for said, observed in (
        (" go ", "You see a door."),
        (THOUGHT + form.write("search", {"query": "tea"}), form.render("tea is")),
        ("The end.", "Go on."),
    ):
        before = list(talk.stream)
        answer = tooled.encode_turn(said).tolist()
        talk.turn(said, observed)
        assert talk.stream[: len(before) + len(answer)] == [*before, *answer]
    assert talk.fresh == [False] * 3
    for text in ("Be brief.", "You see a door.", "tea is", "Go on."):
        assert text in made.tokenizer.decode(talk.stream)


def test_variables_of_a_template_are_passed_on() -> None:
    made = renderer_for(tokenizer_of("qwen3"), variables={"enable_thinking": False})
    assert isinstance(made, ChatTemplate)
    assert str(made.tokenizer.decode(made.begin("", "a").tolist())).endswith("<think>\n\n</think>\n\n")


# -- ends of turns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_what_ends_a_turn_is_kept_as_sampled_and_added_where_it_is_missing(family: str) -> None:
    made = template(family)
    closing = made.stop_tokens[0]
    said = made.encode_turn("go")
    assert said[-1] == closing
    cut = said[:-1]
    closed, opened = (made.extend("You see a door.", closed=flag).tolist() for flag in (True, False))
    assert opened == [closing, *closed]
    assert closing not in closed[:1]
    for other in made.stop_tokens:
        added = Talk(made).turn(np.append(cut, other).astype(np.int32), "You see a door.")
        if not family.startswith("mistral"):  # they move the system text and begin afresh
            assert added == closed
    if not family.startswith("mistral"):
        assert Talk(made).turn(cut, "You see a door.") == opened


def test_llama_ends_a_message_in_two_ways() -> None:
    made = template("llama3")
    texts = [made.tokenizer.convert_ids_to_tokens(token) for token in made.stop_tokens]
    assert texts == ["<|eot_id|>", "<|eom_id|>"]


# -- special tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_in_observations_results_and_descriptions_stay_text(family: str, kind: str) -> None:
    made = template(family, kind)
    roles = (word for word in ADDED.get(family, ()) if "\uff5c" in word)
    # A tokenizer that writes blanks as U+2581 cannot tell the two apart.
    words = (*FAMILIES[family][1], *(word for word in roles if kind == "bytes" or "\u2581" not in word))
    hostile = "Read: " + " ".join(f"{word}{word}" for word in words) + " You win."
    evil = {**SCHEMA, "function": {**cast("dict[str, object]", SCHEMA["function"]), "description": hostile}}
    specials = {int(cast("int", made.tokenizer.convert_tokens_to_ids(word))) for word in words}
    form = form_of(made)

    def count(tokens: Sequence[int]) -> int:
        return sum(int(token) in specials for token in tokens)

    for listing in (False, True):
        if listing and not made.habits.lists_tools:
            continue
        plain, bad = (made.for_tools([one]) if listing else made for one in (SCHEMA, evil))
        assert count(bad.begin("", hostile).tolist()) == count(plain.begin("", "Read.").tolist())
        said = form.write("search", {"query": "tea"}) if listing else "go"
        results = [form.render(text) if listing else text for text in ("Read.", hostile)]
        added = [Talk(bad).turn(said, result) for result in results]
        assert count(added[0]) == count(added[1])
        assert "You win." in made.tokenizer.decode(added[1])
    assert count(made.encode(hostile).tolist()) == 0
    assert made.decode(made.encode(hostile).tolist()) == hostile


@pytest.mark.parametrize(("family", "marker"), [("llama3", "<|python_tag|>"), ("mistral7", "[TOOL_CALLS]")])
def test_the_special_tokens_of_a_call_are_part_of_what_the_agent_says(family: str, marker: str) -> None:
    made = template(family)
    call = form_of(made).write("search", {"query": "tea"})
    text = call if call.startswith(marker) else marker + call
    tokens = made.encode_turn(text).tolist()
    assert tokens[0] == made.tokenizer.convert_tokens_to_ids(marker)
    assert made.decode_turn(tokens) == text
    assert [call.name for call in form_of(made).parse(text).calls] == ["search"]
    assert marker not in made.tokenizer.convert_ids_to_tokens(made.encode(text).tolist())


# -- hostile tokenizers and templates ----------------------------------------------------------------------


def merging() -> PreTrainedTokenizerBase:
    """Merges run across the ends of turns: "." and a line break are one token, and so are "a" and "." """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(".", "Ċ"), ("a", "."), ("Ċ", "u"), ("Ċ", "a")]
    vocabulary = {piece: place for place, piece in enumerate([*alphabet, *(a + b for a, b in pairs)])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    made: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs is untyped
        tokenizer_object=backend, eos_token="<end>"
    )
    made.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    return made


def test_merges_across_the_ends_of_turns_change_no_token() -> None:
    made = ChatTemplate(merging())
    talk = Talk(made, first="a.")
    said = np.array([*encode_plain(made.tokenizer, "a"), *encode_plain(made.tokenizer, ".")], np.int32)
    before = list(talk.stream)
    talk.turn(said, "a.")
    assert talk.fresh == [False]
    assert talk.stream[: len(before) + 2] == [*before, *said.tolist()]
    messages = [user("a."), agent("a."), user("a.")]
    assert made.tokenizer.decode(talk.stream) == made.tokenizer.decode(whole(made.tokenizer, messages))
    assert talk.stream != whole(made.tokenizer, messages)
    found = inspect_renderer(made)
    assert found.exact
    assert any("merge across" in advice for advice in found.advice)
    assert any("no special token" in note for note in found.notes)


def test_a_pad_token_that_ends_turns_is_kept() -> None:
    made = ChatTemplate(tokenizer_of("qwen2", pad="<|im_end|>"))
    assert made.stop_tokens[0] == made.tokenizer.pad_token_id
    talk = Talk(made)
    talk.turn("go", "You see a door.")
    assert talk.stream.count(made.stop_tokens[0]) == 3  # the user's two turns and the agent's
    assert any("pads and ends turns" in note for note in inspect_renderer(made).notes)


@pytest.mark.parametrize("kind", KINDS)
def test_bos_is_written_once(kind: str) -> None:
    made = ChatTemplate(tokenizer_of("llama3", kind=kind, adds_bos=True))
    assert made.tokenizer.encode("a")[0] == made.tokenizer.bos_token_id
    talk = Talk(made)
    talk.turn("go", "You see a door.")
    assert talk.stream.count(cast("int", made.tokenizer.bos_token_id)) == 1
    assert any("second '<|begin_of_text|>'" in note for note in inspect_renderer(made).notes)


def test_a_decoder_that_strips_blanks_takes_none_from_a_turn() -> None:
    made = template("chatml", "blanks")
    said = made.encode_turn("go to door 1.")
    assert made.decode_turn(said.tolist()) == "go to door 1."
    assert made.decode_turn(made.encode_turn(" go").tolist()) == " go"
    # A text that begins has a blank before it that decoding takes away again.
    assert made.decode(made.encode("go").tolist()) == "go"
    assert made.encode("go").tolist() != said[: len(made.encode("go"))].tolist()


def test_a_tokenizer_that_cleans_up_blanks_does_not() -> None:
    made = template("qwen2")
    made.tokenizer.clean_up_tokenization_spaces = True
    talk = Talk(made)
    talk.turn("go , then stop .", "You do n't .")
    assert talk.fresh == [False]
    assert talk.messages[1].content == "go , then stop ."


def test_a_template_without_a_generation_prompt_gets_one() -> None:
    bare = CHATML[: CHATML.index("{% if add_generation_prompt %}")]
    made, usual = (ChatTemplate(tokenizer_of("chatml", template=text)) for text in (bare, CHATML))
    ours, theirs = Talk(made), Talk(usual)
    for talk in (ours, theirs):
        talk.turn("go", "You see a door.")
    assert ours.stream == theirs.stream
    assert any("no generation prompt" in note for note in inspect_renderer(made).notes)


def test_a_template_that_refuses_a_system_message_gets_it_in_the_users() -> None:
    made = template("gemma")
    assert made.begin("Be brief.", "Find tea.").tolist() == whole(
        made.tokenizer, [user("Be brief.\n\nFind tea.")]
    )
    talk = Talk(made, system="Be brief.")
    talk.turn("go", "You see a door.")
    assert talk.fresh == [False]
    assert talk.stream == whole(
        made.tokenizer, [user("Be brief.\n\nFind tea."), agent("go"), user("You see a door.")]
    )


def test_a_template_that_refuses_other_roles_shows_results_as_the_users() -> None:
    made = template("gemma")
    form, talk = form_of(made), Talk(made)
    observed = form.render("tea is")
    talk.turn(form.write("search", {"query": "tea"}), observed)
    assert talk.stream == whole(
        made.tokenizer,
        [
            user("Find tea."),
            agent(form.write("search", {"query": "tea"})),
            user("```tool_output\ntea is\n```"),
        ],
    )


def test_templates_that_cannot_be_used_are_sentences() -> None:
    with pytest.raises(TemplateError, match=r"cannot be applied to messages of the roles user: .*markup"):
        renderer_for(tokenizer_of("chatml", template="{{ raise_exception('never') }}"))
    with pytest.raises(TemplateError, match="does not show the agent's turn"):
        renderer_for(tokenizer_of("chatml", template="{{ messages[0].content }}"))
    strange = CHATML.replace("{{ m.content }}", "{{ m.content }}{{ m.tool_calls }}")
    listing = "{% if tools %}{{ tools | tojson }}{% endif %}" + strange
    with pytest.raises(TemplateError, match="form that is not read here"):
        native_protocol(renderer_for(tokenizer_of("chatml", template=listing)))
    with pytest.raises(TemplateError, match="protocol tags or json"):
        native_protocol(small_renderer())
    with pytest.raises(TemplateError, match="protocol tags or json"):
        small_renderer().for_tools([SCHEMA])
    with pytest.raises(TemplateError, match="lists no tools"):
        template("gemma").for_tools([SCHEMA])


# -- what is said of a template ----------------------------------------------------------------------------


def test_an_inspection_says_which_turns_are_rewritten() -> None:
    found = {name: inspect_renderer(template(name)) for name in FAMILIES}
    outcomes = {name: [one.outcome for one in item.tried] for name, item in found.items()}
    assert outcomes["chatml"] == outcomes["qwen2"] == [APPENDED] * 5
    assert outcomes["qwen3"] == [APPENDED, APPENDED, REWRITTEN, APPENDED, APPENDED]
    assert outcomes["llama3"] == outcomes["gemma"] == [APPENDED, REWRITTEN, APPENDED, APPENDED, APPENDED]
    assert outcomes["mistral3"] == [REWRITTEN] * 5
    assert outcomes["coder"] == [APPENDED] * 5
    assert (
        outcomes["deepseek3"]
        == outcomes["deepseek31"]
        == [APPENDED, APPENDED, REWRITTEN, APPENDED, REWRITTEN]
    )
    assert outcomes["r1"] == [APPENDED, APPENDED, REWRITTEN, APPENDED, REWRITTEN]
    assert [item.exact for item in found.values()] == [
        name in {"chatml", "qwen2", "coder"} for name in FAMILIES
    ]
    assert all(one.same_tokens for item in found.values() for one in item.tried)
    assert "The" not in found["qwen3"].tried[0].detail
    assert "became" in found["qwen3"].tried[2].detail
    assert found["qwen3"].tools == "listed by the template"
    assert found["gemma"].tools == "described in the system text"
    assert any("no system message" in note for note in found["gemma"].notes)
    assert any("opens a thought" in note for note in found["r1"].notes)
    assert any("append" in advice for advice in found["qwen3"].advice)
    assert not any("append" in advice for advice in found["qwen2"].advice)
    dated = QWEN3.replace("{% for m", "{{ strftime_now('%Y') }}{% for m", 1)
    assert any(
        "date" in note for note in inspect_renderer(ChatTemplate(tokenizer_of("qwen3", template=dated))).notes
    )
    odd = GEMMA.replace(
        "{% for m", "{% if messages | length > 2 %}{{ raise_exception('no') }}{% endif %}{% for m", 1
    )
    refused = inspect_renderer(ChatTemplate(tokenizer_of("gemma", template=odd)))
    assert [one.outcome for one in refused.tried] == [REFUSED] * 5
    assert inspect_renderer(small_renderer()).family == "none"

"""Chat templates in the manner of model families, written for these tests, and tokenizers for them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_HERMES_TOOLS = (
    "{% if tools %}<|im_start|>system\n{% if messages[0].role == 'system' %}{{ messages[0].content }}\n\n"
    "{% endif %}Tools:\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}Call as <tool_call>.<|im_end|>\n"
    "{% elif messages[0].role == 'system' %}<|im_start|>system\n"
    "{{ messages[0].content }}<|im_end|>\n{% endif %}"
)
_HERMES_CALLS = (
    "{% for c in m.tool_calls or [] %}{% if not loop.first or m.content %}{{ '\n' }}{% endif %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}"
)
_HERMES_RESULT = (
    "{% elif m.role == 'tool' %}{% if messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
    "{{ '\n' }}<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
)
QWEN2 = (
    _HERMES_TOOLS
    + "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    + "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{{ m.content }}"
    + _HERMES_CALLS
    + "<|im_end|>\n"
    + _HERMES_RESULT
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    # Thoughts stay after the last message that a user wrote, and an empty one is added to a last turn.
    _HERMES_TOOLS
    + "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' and not "
    + "m.content.startswith('<tool_response>') %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    + "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    + "{% elif m.role == 'assistant' %}{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    + "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') "
    + "if '</think>' in m.content else '' %}<|im_start|>assistant\n"
    + "{% if loop.index0 > ns.last and (loop.last or thought) %}<think>\n"
    + "{{ thought }}\n</think>\n\n{% endif %}"
    + "{{ said }}"
    + _HERMES_CALLS
    + "<|im_end|>\n"
    + _HERMES_RESULT
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    + "{% endif %}{% endif %}"
)
_HEAD = "<|start_header_id|>{{ %s }}<|end_header_id|>\n\n"
LLAMA3 = (
    # Tools stand in the first user message, words are trimmed, a result is shown as JSON.
    "{{ bos_token }}{% set ns = namespace(tools=tools or []) %}{% for m in messages %}"
    "{% if m.role in ['tool', 'ipython'] %}" + _HEAD % "'ipython'" + "{{ m.content | tojson }}<|eot_id|>"
    "{% elif 'tool_calls' in m %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('one call only') }}{% endif %}"
    + _HEAD
    % "'assistant'"
    + '{"name": "{{ m.tool_calls[0].function.name }}", '
    '"parameters": {{ m.tool_calls[0].function.arguments | tojson }}}<|eot_id|>'
    "{% else %}" + _HEAD % "m.role" + "{% if m.role == 'user' and ns.tools %}Answer in JSON.\n\n"
    "{% for t in ns.tools %}{{ t | tojson }}\n\n{% endfor %}{% set ns.tools = [] %}{% endif %}"
    "{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}" + _HEAD % "'assistant'" + "{% endif %}"
)


def _mistral(call: str, space: str, words: str) -> str:
    """Roles alternate but for calls and results; tools stand before the last user message.

    The system text stands in the last message if that is the user's, and so is gone once a result follows.
    """
    return (
        "{% set ns = namespace(index=0, last=-1) %}"
        "{% set talk = messages[1:] if messages[0].role == 'system' else messages %}"
        "{% for m in talk %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
        "{% if m.role != 'tool' and not m.tool_calls %}{% if (m.role == 'user') != (ns.index % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% set ns.index = ns.index + 1 %}{% endif %}"
        "{% endfor %}{{ bos_token }}{% for m in talk %}{% if m.role == 'user' %}"
        f"{{% if tools and loop.index0 == ns.last %}}[AVAILABLE_TOOLS]{space}{{{{ tools | tojson }}}}"
        "[/AVAILABLE_TOOLS]{% endif %}"
        f"[INST]{space}{{% if loop.last and messages[0].role == 'system' %}}{{{{ messages[0].content }}}}\n\n"
        "{% endif %}{{ m.content }}[/INST]"
        "{% elif m.tool_calls %}" + call + "{{ eos_token }}"
        "{% elif m.role == 'assistant' %}" + words + "{{ eos_token }}"
        "{% elif m.role == 'tool' %}{% if m.tool_call_id | length != 9 %}"
        "{{ raise_exception('an id has nine characters') }}{% endif %}"
        f'[TOOL_RESULTS]{space}{{"content": {{{{ m.content }}}}, "call_id": "{{{{ m.tool_call_id }}}}"}}'
        "[/TOOL_RESULTS]{% endif %}{% endfor %}"
    )


_LIST = (
    "[TOOL_CALLS]%s[{%% for c in m.tool_calls %%}{{ (c.function | tojson)[:-1] }}, "
    '"id": "{{ c.id }}"}{%% if not loop.last %%}, {%% endif %%}{%% endfor %%}]'
)
MISTRAL3 = _mistral(_LIST % " ", " ", " {{ m.content | trim }}")
MISTRAL7 = _mistral(_LIST % "", "", "{{ m.content }}")
MISTRAL11 = _mistral(
    "{{ m.content }}{% for c in m.tool_calls %}[TOOL_CALLS]{{ c.function.name }}[CALL_ID]{{ c.id }}"
    "[ARGS]{{ c.function.arguments | tojson }}{% endfor %}",
    "",
    "{{ m.content }}",
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GEMMA3 = GEMMA.replace(
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}",
    "{% set first = messages[0].content ~ '\n\n' if messages[0].role == 'system' else '' %}"
    "{% set messages = messages[1:] if first else messages %}",
).replace("{{ m.content | trim }}", "{{ first if loop.first else '' }}{{ m.content | trim }}")
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
    "{% elif m.role == 'user' %}<\uff5cUser\uff5c>{{ m.content }}"
    "{% else %}<\uff5cAssistant\uff5c>{{ m.content.split('</think>')[-1] }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<\uff5cAssistant\uff5c><think>\n{% endif %}"
)
_SEP = "<\uff5ctool\u2581sep\uff5c>"
_MARKS = {
    name: f"<\uff5ctool\u2581{name.replace(' ', chr(0x2581))}\uff5c>"
    for name in (
        "calls begin", "calls end", "call begin", "call end",
        "outputs begin", "outputs end", "output begin", "output end",
    )
}  # fmt: skip


def _deepseek(call: str, between: str, head: str, opening: str, closing: str, *, asked: str) -> str:
    """Arguments are a text; results stand between marks, after which the agent goes on without a prompt."""
    return (
        "{{ bos_token }}{% set ns = namespace(tool=false) %}"
        "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}{% endfor %}"
        + head
        + "{% for m in messages %}{% if m.role == 'user' %}{% set ns.tool = false %}"
        + "<\uff5cUser\uff5c>{{ m.content }}"
        + "{% elif m.role == 'assistant' %}{% if not ns.tool %}"
        + asked
        + "{% else %}"
        + closing
        + "{% endif %}{% set ns.tool = false %}{{ (m.content or '').split('</think>')[-1] }}"
        + "{% if m.tool_calls %}"
        + _MARKS["calls begin"]
        + "{% for c in m.tool_calls %}"
        + "{% if not loop.first %}"
        + between
        + "{% endif %}"
        + _MARKS["call begin"]
        + call
        + _MARKS["call end"]
        + "{% endfor %}"
        + _MARKS["calls end"]
        + "{% endif %}{{ eos_token }}{% elif m.role == 'tool' %}"
        + "{% if not ns.tool %}"
        + opening
        + "{% endif %}{% set ns.tool = true %}"
        + _MARKS["output begin"]
        + "{{ m.content }}"
        + _MARKS["output end"]
        + "{% endif %}{% endfor %}{% if ns.tool %}"
        + closing
        + "{% elif add_generation_prompt %}"
        + asked
        + "{% endif %}"
    )


_LISTED = "{% if tools %}\n\nTools:\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% endif %}"
DEEPSEEK3 = _deepseek(
    "{{ c.type }}" + _SEP + "{{ c.function.name + '\n```json\n' + c.function.arguments + '\n```' }}",
    "\n",
    _LISTED,
    _MARKS["outputs begin"],
    _MARKS["outputs end"],
    asked="<\uff5cAssistant\uff5c>",
)
DEEPSEEK31 = _deepseek(
    "{{ c.function.name }}" + _SEP + "{{ '' + c.function.arguments }}",
    "",
    _LISTED,
    "",
    "",
    asked="<\uff5cAssistant\uff5c></think>",
)
CODER = QWEN2.replace(
    _HERMES_CALLS,
    "{% for c in m.tool_calls or [] %}{{ '\n' }}<tool_call>\n<function={{ c.function.name }}>\n"
    "{% for key, value in c.function.arguments | items %}<parameter={{ key }}>\n"
    "{{ value | tojson if value is mapping or (value is sequence and value is not string) else value }}\n"
    "</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}",
)
_DEEPSEEK = ("<begin>", "<end>")

FAMILIES = {
    "chatml": (CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "", "<|im_end|>"),
    "qwen2": (QWEN2, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "", "<|im_end|>"),
    "qwen3": (QWEN3, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "", "<|im_end|>"),
    "llama3": (
        LLAMA3,
        (
            "<|begin_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
            "<|eom_id|>",
            "<|python_tag|>",
        ),
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    **{
        name: (
            template,
            (
                "<s>",
                "</s>",
                "[INST]",
                "[/INST]",
                "[TOOL_CALLS]",
                "[AVAILABLE_TOOLS]",
                "[/AVAILABLE_TOOLS]",
                "[TOOL_RESULTS]",
                "[/TOOL_RESULTS]",
                "[CALL_ID]",
                "[ARGS]",
            ),
            "<s>",
            "</s>",
        )
        for name, template in (("mistral3", MISTRAL3), ("mistral7", MISTRAL7), ("mistral11", MISTRAL11))
    },
    **{
        name: (template, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>")
        for name, template in (("gemma", GEMMA), ("gemma3", GEMMA3))
    },
    "r1": (R1, ("<begin>", "<end>", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"), "<begin>", "<end>"),
    "deepseek3": (DEEPSEEK3, _DEEPSEEK, *_DEEPSEEK),
    "deepseek31": (DEEPSEEK31, _DEEPSEEK, *_DEEPSEEK),
    "coder": (CODER, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "", "<|im_end|>"),
}
"""Template, special tokens, bos and eos by name."""

_ROLES = ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", _SEP, *_MARKS.values())
ADDED = {
    "deepseek3": (*_ROLES, "<think>", "</think>"),
    "deepseek31": (*_ROLES, "<think>", "</think>"),
    "coder": ("<tool_call>", "</tool_call>"),
    "qwen2": ("<tool_call>", "</tool_call>"),
    "qwen3": ("<tool_call>", "</tool_call>", "<think>", "</think>"),
}
"""Tokens of a vocabulary that are whole and not special."""

TEXT = (
    'user assistant system You see a door. go to door 1. search {"name": "search", "arguments": '
    '{"query": "tea"}}'
)


@functools.cache
def _trained(special: tuple[str, ...], kind: str) -> str:
    """A tokenizer's own JSON: "bytes" as of Qwen and Llama 3, "blanks" as of Mistral and Gemma."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if kind == "blanks" else None))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
        alphabet = [chr(code) for code in range(32, 127)] + ["\n", "\u2581", "é", "門", "\uff5c"]
    names = [*(("<unk>",) if kind == "blanks" else ()), *special]
    trainer = trainers.BpeTrainer(
        vocab_size=520, special_tokens=names, show_progress=False, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator([TEXT] * 9, trainer)
    return tokenizer.to_str()


def tokenizer_of(
    family: str,
    *,
    kind: str = "bytes",
    template: str | None = None,
    pad: str | None = None,
    adds_bos: bool = False,
) -> PreTrainedTokenizerBase:
    """Return a new tokenizer with a family's template and tokens.

    Args:
        kind: see `_trained`; `template`: in place of the family's own; `pad`: its pad token.
        adds_bos: whether it writes a bos of its own before each text.
    """
    own, special, bos, eos = FAMILIES[family]
    backend = Tokenizer.from_str(_trained(special, kind))
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    made: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs is untyped
        tokenizer_object=backend,
        bos_token=bos or None,
        eos_token=eos,
        pad_token=pad,
        unk_token="<unk>" if kind == "blanks" else None,
    )
    made.add_tokens(list(ADDED.get(family, ())))
    made.chat_template = own if template is None else template
    return made

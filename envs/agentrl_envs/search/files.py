"""Readers of question files: HotpotQA, 2WikiMultihopQA, MuSiQue, Natural Questions and what looks like them.

2WikiMultihopQA writes a record as HotpotQA does (README of Alab-NII/2wikimultihop); on the Hub its `context`
and `supporting_facts` are JSON texts (`convert_to_parquet.py` of xanhho/2WikiMultihopQA) or columns of
`title` and `content` (ohjoonhee/2WikiMultihopQA). Its test questions have no answers and are refused.

Each record is read by the fields that it has, so files converted by the Hub (Parquet; contexts as columns,
objects or JSON texts), by FlashRAG (`golden_answers`) and for verl (`prompt`, `reward_model`) are read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast

from agentrl.errors import ConfigError
from agentrl_envs.search.questions import Question
from agentrl_tools.records import asked, records, unpacked
from agentrl_tools.search.corpus import Corpus, Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ANSWERS: Final = ("golden_answers", "answers", "answer", "short_answers")
ALIASES: Final = ("answer_aliases", "answers_aliases", "aliases")
TYPES: Final = ("type", "hop", "level")
BODIES: Final = ("sentences", "content", "paragraph_text", "text")


def read_questions(path: str | Path) -> tuple[Question, ...]:
    """Read questions; those that say that they have no answer (MuSiQue's `answerable = false`) are left out.

    Raises:
        ConfigError: the file is missing, holds no question, or a record has no question or no answer.
    """
    found = tuple(
        _question(asked(record), where)
        for record, where in records(path)
        if record.get("answerable") is not False
    )
    if not found:
        raise ConfigError(f"{path} holds no questions.")
    return found


def read_paragraphs(path: str | Path) -> Corpus:
    """Return the paragraphs that stand beside the questions of a file, each one once, in order."""
    return Corpus.of(
        Document(str(number), title, text)
        for number, (title, text) in enumerate(
            dict.fromkeys(pair for record, _ in records(path) for pair in paragraphs(record))
        )
    )


def _question(record: Mapping[str, object], where: str) -> Question:
    text = record.get("question") or record.get("query")
    answers = _answers(record)
    if not isinstance(text, str) or not text.strip() or not answers:
        missing = "an answer" if isinstance(text, str) and text.strip() else "a question"
        raise ConfigError(
            f"{where} has no {missing[missing.index(' ') + 1 :]}: it has {', '.join(record)}. A record needs "
            f"`question` and one of {', '.join(ANSWERS)}."
        )
    kind = next((str(record[name]) for name in TYPES if record.get(name)), "")
    identity = record.get("id") or record.get("_id") or ""
    return Question(
        text.strip(), answers, _supporting(record), kind or _musique_type(str(identity)), str(identity)
    )


def _answers(record: Mapping[str, object]) -> tuple[str, ...]:
    found: list[str] = []
    for name in (*ANSWERS, *ALIASES):
        # GSM8K writes the way to its answer before "####".
        found += [text.rpartition("####")[2].strip() for text in _texts(record.get(name))]
    return tuple(dict.fromkeys(answer for answer in found if answer.strip()))


def _texts(value: object) -> list[str]:
    """The texts of an answer field: a text, a list, or a mapping with `text` or `value` and `aliases`."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        known = cast("Mapping[str, object]", value)
        return [text for name in ("text", "value", "aliases") for text in _texts(known.get(name))]
    if isinstance(value, list | tuple):
        return [text for item in cast("Sequence[object]", value) for text in _texts(item)]
    missing = value is None or isinstance(value, bool) or value != value  # noqa: PLR0124  # NaN is no answer
    return [] if missing else [str(value)]


def _musique_type(identity: str) -> str:
    """MuSiQue says the hops in its ids: "2hop__123_456"."""
    return identity.partition("__")[0] if "hop" in identity[:5] else ""


def _supporting(record: Mapping[str, object]) -> tuple[str, ...]:
    facts = unpacked(record.get("supporting_facts"))
    if isinstance(facts, Mapping):
        return tuple(dict.fromkeys(_texts(cast("Mapping[str, object]", facts).get("title"))))
    if isinstance(facts, list):
        return tuple(dict.fromkeys(title for title, _ in _titled(cast("list[object]", facts))))
    return tuple(
        dict.fromkeys(
            str(item.get("title", "")) for item in _items(record) if item.get("is_supporting") is True
        )
    )


def _items(record: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Paragraphs written as objects: MuSiQue's `paragraphs`, DPR's `positive_ctxs` and `ctxs`."""
    for name in ("paragraphs", "ctxs", "positive_ctxs"):
        value = record.get(name)
        if isinstance(value, list):
            items = cast("list[object]", value)
            return [cast("Mapping[str, object]", item) for item in items if isinstance(item, Mapping)]
    return []


def paragraphs(record: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the (title, text) of the paragraphs that stand beside a question."""
    context = unpacked(record.get("context"))
    if isinstance(context, Mapping):
        known = cast("Mapping[str, object]", context)
        titles, bodies = _texts(known.get("title")), cast("Sequence[object]", _body(known) or ())
        yield from ((title, joined(body)) for title, body in zip(titles, bodies, strict=False))
    elif isinstance(context, list):
        yield from ((title, joined(body)) for title, body in _titled(cast("list[object]", context)))
    for item in _items(record):
        yield str(item.get("title", "")), joined(_body(item))


def _titled(items: Sequence[object]) -> Iterator[tuple[str, object]]:
    """Pairs such as ["Tea", ...] or objects with a title, as (title, what stands beside it)."""
    for item in items:
        if isinstance(item, Mapping):
            known = cast("Mapping[str, object]", item)
            yield str(known.get("title", "")), _body(known)
        elif isinstance(item, list) and len(cast("list[object]", item)) == 2:
            title, beside = cast("list[object]", item)
            yield str(title), beside


def _body(item: Mapping[str, object]) -> object:
    """The text of a paragraph under one of its names, or None."""
    return next((item[name] for name in BODIES if item.get(name)), None)


def joined(body: object) -> str:
    """Return sentences as one text.

    >>> joined(["Tea is a drink.", " It is hot."])
    'Tea is a drink. It is hot.'
    """
    return " ".join(" ".join(_texts(body)).split())

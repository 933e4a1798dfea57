"""Whether a world tells the answer: in what it says on the way, or by judging guesses that do not end it."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

from agentrl.testing.probe import NONSENSE, act, address
from agentrl.testing.report import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentrl.testing.probe import Moment, Probe, Where
    from agentrl.testing.report import Severity
    from agentrl.world.protocol import Protocol

_VERDICT: Final = re.compile(
    r"\b(?:is|was|are|answer|guess)\W+(?:\w+\W+){0,2}?(?:in)?correct\b(?!\?)"
    r"|\b(?:wrong|right) answer\b|\b(?:answer|guess) (?:is|was) (?:wrong|right)\b"
    r"|^\W*(?:that(?:'s| is) |not )?(?:(?:in)?correct|wrong|right|nope|not quite)\b *(?:[.!,;:]|$)",
    re.IGNORECASE | re.MULTILINE,
)
"""A judgement, and no word of a document: "The guess is wrong", "Incorrect.", "Right!"."""
_WRONG: Final = ("zyx", "qwv")
"""Answers that are wrong in every world."""


def contains(text: str, gold: str) -> bool:
    """Say whether a text contains an answer as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(gold.casefold())}(?!\w)", text.casefold()) is not None


def gold_in_sight(probe: Probe, where: Where) -> Iterator[Finding]:
    """The answer in what the agent is told at the start, and in the info of `reset`."""
    env = probe.make()
    first = probe.begin(env, where)
    gold = env.gold()
    if not gold:
        return
    if contains(f"{env.system_text()}\n{first.observation}", gold):
        severity: Severity = "error" if len(gold) >= 4 else "warning"  # "no" is in many texts
        yield Finding(severity, "gold", f"{address(where)}: the prompt contains the answer {gold!r}")
    if contains(repr(first.info), gold):
        yield Finding("error", "gold", f"{address(where)}: info contains the answer {gold!r}")


def leaks_on_the_way(probe: Probe, where: Where) -> Iterator[Finding]:
    """Play the actions, then nonsense and the answer itself, and look at the replies that end nothing.

    A world that judges a guess and goes on lets an agent try until it hits; nothing is looked for where the
    world has no `gold()`. What a world tells on purpose (a search result) is not judged, only `info` is.
    """
    env = probe.make()
    played = [probe.begin(env, where)]
    gold = env.gold()
    if not gold:
        return
    played += probe.go_on(env, 0, probe.turns)
    yield from _told(played, gold, where)
    guesses = dict.fromkeys((*NONSENSE, *_written(env.protocol, (*_WRONG, gold))))
    for moment in (*played[1:], *(_guess(probe, where, text) for text in guesses)):
        if not moment.over and _VERDICT.search(moment.observation):
            judged = f"{moment.action!r} was judged ({moment.observation[:80]!r}) and the episode went on"
            yield Finding("error", "leak", f"{address(where)}: {judged}; an agent can try until it hits")
            return


def _told(played: Sequence[Moment], gold: str, where: Where) -> Iterator[Finding]:
    for turn, moment in enumerate(played[1:]):
        shown = {name: value for name, value in moment.info.items() if name != "tool_calls"}
        if not moment.over and contains(repr(shown), gold) and not contains(str(moment.action), gold):
            yield Finding("error", "leak", f"{address(where)}: info of step {turn} has the answer {gold!r}")
            return


def _written(protocol: Protocol, answers: Sequence[str]) -> Iterator[str]:
    """Answers bare, and as the protocol writes them, if it says how."""
    yield from answers
    with contextlib.suppress(NotImplementedError):
        yield from [protocol.write_answer(answer) for answer in answers]


def _guess(probe: Probe, where: Where, text: str) -> Moment:
    env = probe.make()
    probe.begin(env, where)
    return act(env, text)

"""One fault, told once: findings that only follow from another one are left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agentrl.testing.report import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RAISED: Final = "raised "
_COMPARING: Final = frozenset({"isolation", "snapshot", "processes"})
"""Checks that compare episodes which are equal where the world repeats itself and its hooks only look."""


def without_consequences(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings without those that follow from others."""
    return _of_hooks(_of_repetition(_of_rewards(tuple(_raised_once(tuple(findings))))))


def _raised_once(findings: tuple[Finding, ...]) -> Iterator[Finding]:
    """An exception that several checks met, told by the first one."""
    counts = Counter(_exception(finding) for finding in findings if finding.message.startswith(_RAISED))
    closing = [finding.message for finding in findings if finding.check == "close"]
    told = {text for text in counts if any(text in message for message in closing)}
    for finding in findings:
        raised = _exception(finding)
        if not finding.message.startswith(_RAISED):
            if not _repeats(finding, counts):
                yield finding
        elif raised not in told:
            told.add(raised)
            more = f" (in {counts[raised]} checks)" if counts[raised] > 1 else ""
            yield replace(finding, message=finding.message + more)


def _exception(finding: Finding) -> str:
    text = finding.message.removeprefix(_RAISED)
    return "RecursionError" if text.startswith("RecursionError") else text


def _repeats(finding: Finding, raised: Iterable[str]) -> bool:
    """Whether another process met an exception that was met here."""
    if finding.check != "processes" or finding.severity != "note":
        return False
    return any(text.strip().rpartition("\n")[2] in finding.message for text in raised)


def _of_rewards(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Gymnasium has a text of its own for a reward that is no finite number."""
    if not any(each.check == "types" and "the reward must be" in each.message for each in findings):
        return findings
    return tuple(each for each in findings if each.check != "gymnasium" or "reward" not in each.message)


def _of_hooks(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    if not any(each.check == "hooks" and not each.message.startswith(_RAISED) for each in findings):
        return findings
    return tuple(each for each in findings if not _compares(each))


def _of_repetition(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """A world that does not repeat itself differs in each comparison, too: told once, as its cause."""
    if not any(_unrepeated(finding) for finding in findings):
        return findings
    compared = [
        finding for finding in findings if _compares(finding) or finding.check in {"hooks", "threads"}
    ]
    if not compared:
        return findings
    unjudged = ", ".join(sorted({finding.check for finding in compared}))
    text = f"episodes were compared in {unjudged} as well and differed; mend this first, then check again"
    left = tuple(finding for finding in findings if finding not in compared)
    return (*left, Finding("note", "determinism", text))


def _unrepeated(finding: Finding) -> bool:
    if finding.check != "determinism" or finding.severity != "error":
        return False
    return not finding.message.startswith(_RAISED)


def _compares(finding: Finding) -> bool:
    if finding.check == "gymnasium":
        return "non-deterministic" in finding.message
    if finding.severity != "error" or finding.message.startswith(_RAISED):
        return False
    return finding.check in _COMPARING

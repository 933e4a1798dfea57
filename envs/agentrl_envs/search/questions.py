"""What is asked: a question with its answers and the documents that lead there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        text: what the agent reads.
        answers: any of them is right; the first one is what probes look for.
        supporting: titles of the documents that are needed, where they are known.
        type: a label for reports: the number of hops, or what a data set calls it.
        id: as the data set has it.
    """

    text: str
    answers: tuple[str, ...]
    supporting: tuple[str, ...] = ()
    type: str = ""
    id: str = ""

"""Where questions and documents come from: a generated world, or files."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from agentrl.errors import ConfigError, did_you_mean
from agentrl_envs.search.settings import SPLITS
from agentrl_envs.search.world import entity_names, question_of, world_of
from agentrl_tools.records import by_split
from agentrl_tools.search.bm25 import Bm25
from agentrl_tools.search.cache import default_cache
from agentrl_tools.search.remote import Remote
from agentrl_tools.search.tool import open_retriever

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl_envs.search.questions import Question
    from agentrl_envs.search.settings import SearchSettings
    from agentrl_tools.search.results import Retriever

SMALL: Final = 2000
"""Documents of a world that is indexed in memory; larger ones are kept on disk."""
NAMED: Final = 64
"""Most entities that `admissible` names."""


class Source(Protocol):
    """Questions by split and index, and what is searched for their answers."""

    @property
    def blocks(self) -> bool:
        """Whether a search may wait."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        ...

    def size(self, split: str) -> int:
        """The number of questions of a split."""
        ...

    def question(self, split: str, index: int) -> Question:
        """One question."""
        ...

    def retriever(self, split: str, index: int) -> Retriever:
        """What is searched for it."""
        ...

    def names(self, split: str, index: int) -> Sequence[str] | None:
        """Some entities of its world, for random play; None where nobody knows them."""
        ...


@dataclass(frozen=True)
class Generated:
    """Worlds that are made when they are asked for."""

    settings: SearchSettings

    @property
    def blocks(self) -> bool:
        """A search here is over at once."""
        return False

    @property
    def splits(self) -> tuple[str, ...]:
        """`train`, `valid`, `test`; no two share a world."""
        return SPLITS

    def size(self, split: str) -> int:
        """The number of tasks of a split."""
        return self.settings.size_of(split)

    def question(self, split: str, index: int) -> Question:
        """The question of a task."""
        return question_of(self.settings, split, index)

    def retriever(self, split: str, index: int) -> Retriever:
        """BM25 over the task's world."""
        return _indexed(self.settings, split, index // self.settings.tasks_per_world)

    def names(self, split: str, index: int) -> Sequence[str]:
        """Entities of the task's world."""
        return entity_names(self.settings, split, index, NAMED)


@functools.lru_cache(maxsize=32)
def _indexed(settings: SearchSettings, split: str, number: int) -> Bm25:
    world = world_of(settings, split, number * settings.tasks_per_world)
    return Bm25(world.corpus(), cache=None if settings.documents <= SMALL else default_cache())


@dataclass(frozen=True)
class Files:
    """Questions of the user's own files, and a corpus or a search server.

    Args:
        questions: a file for each split.
        corpus: a file, the address of a `/retrieve` server, or nothing: then the paragraphs that stand
            beside the questions of a split are searched, as in HotpotQA, 2Wiki and MuSiQue.
    """

    questions: Mapping[str, str]
    corpus: str = ""

    def __post_init__(self) -> None:
        by_split(self.questions, "questions")

    @property
    def blocks(self) -> bool:
        """Whether a server is asked."""
        return self.corpus.startswith(("http://", "https://"))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have a file."""
        return tuple(self.questions)

    def size(self, split: str) -> int:
        """The number of questions in the file."""
        return len(self._read(split))

    def question(self, split: str, index: int) -> Question:
        """One question of the file."""
        return self._read(split)[index]

    def retriever(self, split: str, index: int) -> Retriever:
        """What is searched, the same for every question of a split."""
        if not self.corpus:
            return _paragraphs(self._file(split))
        # Connections belong to one environment: each one has its own client.
        return Remote(self.corpus) if self.blocks else open_retriever(self.corpus)

    def names(self, split: str, index: int) -> None:
        """Nobody knows."""
        return

    def _read(self, split: str) -> tuple[Question, ...]:
        return _questions(self._file(split))

    def _file(self, split: str) -> str:
        if split not in self.questions:
            raise ConfigError(
                f"there is no file of questions for {split!r}.{did_you_mean(split, self.questions)} "
                f"There are files for {', '.join(self.questions)}."
            )
        return self.questions[split]


@functools.lru_cache(maxsize=8)
def _questions(path: str) -> tuple[Question, ...]:
    from agentrl_envs.search.files import read_questions

    return read_questions(path)


@functools.lru_cache(maxsize=4)
def _paragraphs(path: str) -> Bm25:
    from agentrl_envs.search.files import read_paragraphs

    corpus = read_paragraphs(path)
    if not len(corpus):
        raise ConfigError(
            f"{path} holds questions without paragraphs, so there is nothing to search. Give corpus: a JSONL "
            "or Parquet file, or the address of a /retrieve server."
        )
    return Bm25(corpus, cache=None if len(corpus) <= SMALL else default_cache())

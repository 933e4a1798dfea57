"""Questions as an environment: search as often as wanted, then answer once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentrl.errors import ConfigError, EnvironmentFault
from agentrl.world.tool import ToolResult, tool
from agentrl_envs.search.asking import AskingEnv
from agentrl_envs.search.expert import Expert
from agentrl_envs.search.settings import settings_of
from agentrl_envs.search.source import Files, Generated
from agentrl_tools.search.results import listed
from agentrl_tools.search.tool import NOTHING

if TYPE_CHECKING:
    import random
    from collections.abc import Hashable, Mapping, Sequence

    from agentrl_envs.search.settings import SearchSettings
    from agentrl_envs.search.source import Source
    from agentrl_tools.search.results import Hit, Retriever

ASK: Final = "Answer the question with a name or a few words. Search before you answer."


class SearchQAEnv(AskingEnv):
    """Multi-hop questions over documents that must be searched.

    The reward is 1 for a right answer, which ends the episode like every other answer. Only what the agent
    writes as its answer is graded, never what documents or its reasoning say, and nothing tells it whether
    it was right.

    Args:
        settings: of generated worlds: a preset ("tiny", "small", "medium", "large"), a table, or
            `SearchSettings`.
        questions: instead of that, a file of HotpotQA, 2Wiki, MuSiQue, NQ or their like for each split.
        corpus: a JSONL or Parquet file, or the address of a `/retrieve` server; without it the paragraphs
            beside the questions are searched.
        k: documents that one search gives.
        reward: "exact"; "f1", which gives wrong answers their F1; or "contains", which takes a sentence that
            says the answer.
        instructions: whether `system_text` describes task and tools; a model trained on this world needs no
            words.
        render_mode: None or "ansi".

    Raises:
        ConfigError: a setting is wrong, or a file cannot be read.
    """

    def __init__(
        self,
        settings: SearchSettings | str | Mapping[str, object] = "small",
        *,
        questions: Mapping[str, str] | None = None,
        corpus: str = "",
        k: int = 3,
        reward: str = "exact",
        instructions: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if k < 1:
            raise ConfigError(f"k is {k}; a search gives at least 1 document.")
        if corpus and questions is None:
            raise ConfigError(
                "a corpus of your own needs questions about it; give questions, a file for each split."
            )
        self._source: Source = (
            Generated(settings_of(settings)) if questions is None else Files(questions, corpus)
        )
        super().__init__(self._source, reward, render_mode=render_mode)
        self.blocks = self._source.blocks
        self.k, self.instructions = k, instructions
        self._seen: list[str] = []
        self._retriever: Retriever | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin a question."""
        observation, info = super().reset(seed=seed, options=options)
        self._seen = []
        self._retriever = self._source.retriever(self.task.split, self.task.index)
        return observation, info

    def system_text(self) -> str:
        """Return the task and the tools, or nothing."""
        return f"{ASK}\n{super().system_text()}" if self.instructions else ""

    @tool
    def search(self, query: str) -> ToolResult:
        """Search the documents.

        Args:
            query: a few words that the document should contain.
        """
        if not query.strip():
            raise ValueError("the query is empty; write a few words")
        hits = self._find(query)
        self._seen += [hit.document.title for hit in hits]
        return ToolResult(listed(hits) or NOTHING, metrics={"documents": float(len(hits))})

    def state_key(self) -> Hashable:
        """Return the question and which of the documents it needs have been shown; privileged."""
        return (
            self.task.id,
            tuple(title in self._seen for title in self._question.supporting),
            len(self._seen) > 0,
        )

    def admissible(self) -> Sequence[str] | None:
        """Return a search and an answer for each entity of the world, or None for files."""
        names = self._source.names(self.task.split, self.task.index)
        if names is None:
            return None
        searches = [self.protocol.write("search", {"query": name}) for name in names]
        return searches + [self.protocol.write_answer(name) for name in names]

    def expert(self, observation: str) -> Expert | None:
        """Return a player of the generated world; nobody plays other people's questions."""
        return Expert(observation, self.protocol) if isinstance(self._source, Generated) else None

    def disturbance(self, rng: random.Random) -> str | None:
        """Return a search for a document that has been shown, or for the question."""
        names = self._seen or [self._question.text]
        return self.protocol.write("search", {"query": rng.choice(names)})

    def _find(self, query: str) -> Sequence[Hit]:
        if self._retriever is None:
            raise EnvironmentFault("nothing is searched before reset()")
        return self._retriever.search(query, self.k)

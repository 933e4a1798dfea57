"""What worlds of questions have in common: one answer ends the episode and is graded."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from agentrl.errors import ConfigError, EnvironmentFault, did_you_mean
from agentrl.sandbox.graders import AnswerGrader, Verdict
from agentrl.world.env import Task, TextEnv
from agentrl.world.tool import tool, tools_of
from agentrl.world.toolbox import Toolbox
from agentrl_envs.search.questions import Question

if TYPE_CHECKING:
    from collections.abc import Sequence

GRADERS: Final = {
    "exact": AnswerGrader(),
    "f1": AnswerGrader(partial=True),
    "contains": AnswerGrader(contained=True),
}


class Asks(Protocol):
    """Questions by split and index."""

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


class AskingEnv(TextEnv):
    """Questions with known answers.

    The reward is 1 for a right answer, which ends the episode like every other answer. Only what the agent
    writes as its answer is graded, and nothing tells it whether it was right.

    Args:
        asks: the questions.
        reward: "exact"; "f1", which gives wrong answers their F1; or "contains", which takes a sentence that
            says the answer.

    Raises:
        ConfigError: there is no such reward.

    Attributes:
        sets: tools besides the world's own methods.
    """

    splits: ClassVar[tuple[str, ...]] = ()
    sets: Sequence[object] = ()

    def __init__(self, asks: Asks, reward: str, *, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self._asks, self.grader = asks, grader_of(reward)

    def list_splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return self._asks.splits

    def num_tasks(self, split: str) -> int:
        """Return the number of questions of a split."""
        self._check_split(split)
        return self._asks.size(split)

    def get_task(self, split: str, index: int) -> Task:
        """Return the question at (split, index)."""
        self._check_split(split)
        question = self._asks.question(split, index)
        return Task(split, index, f"Question: {question.text}", {"question": question}, question.type)

    @functools.cached_property
    def toolbox(self) -> Toolbox:
        """The tools, `answer` as the last."""
        own = tools_of(self)
        others = [each for each in own if each.name != "answer"]
        return Toolbox([*self.sets, *others, *(each for each in own if each.name == "answer")])

    @tool
    def answer(self, text: str) -> str:
        """Give the final answer; this ends the episode.

        Args:
            text: the answer alone, without explanation.
        """
        grade = self.grader(text, self._question.answers)
        if grade.verdict not in {Verdict.CORRECT, Verdict.WRONG}:
            raise EnvironmentFault(f"{self.task.id} cannot be graded: {grade.message}")
        self.finish(grade.score, success=grade.verdict is Verdict.CORRECT)
        return ""

    def gold(self) -> str | None:
        """Return the first of the right answers, None before the first episode."""
        return self._question.answers[0] if self._phase != "new" else None

    @property
    def _question(self) -> Question:
        found = self.task.data["question"]
        if not isinstance(found, Question):
            raise EnvironmentFault(f"{self.task.id} is no question; its task was not made by get_task")
        return found


def grader_of(reward: str) -> AnswerGrader:
    """Return the grader of a name. Raises `ConfigError` where there is none."""
    if reward not in GRADERS:
        raise ConfigError(
            f"there is no reward {reward!r}; rewards are {', '.join(GRADERS)}.{did_you_mean(reward, GRADERS)}"
        )
    return GRADERS[reward]

"""A world for tests of runs: short, without end, and rewarding every agent a little, trained or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agentrl.world.env import Task, TextEnv

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from agentrl.world.env import Expert, StepResult

WORDS = ("lamp", "apple", "drawer", "mug", "shelf", "book", "pencil", "vase")


class WordWorld(TextEnv):
    """Say the word that is shown. An episode has `length` turns, each with a word drawn from the seed.

    `answer` is what `gold` gives, for tests of probes.

    The reward of a turn is 1 for the word and else a tenth for each of its letters that was written, so that
    rewards vary between members of a group from the first step on.

    >>> env = WordWorld(length=1)
    >>> env.reset(seed=0, options={"split": "train", "index": 0})[0]
    'Say pencil.'
    >>> env.step("pencil")[1:4]
    (1.0, True, False)
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "valid_seen", "valid_unseen")

    def __init__(self, length: int = 3, *, answer: str = "", render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.answer = answer
        self.length = length
        self.word = ""
        self.turn = 0
        self.right = 0

    def num_tasks(self, split: str) -> None:
        """There is no end of tasks."""
        self._check_split(split)

    def get_task(self, split: str, index: int) -> Task:
        """A task is its index."""
        self._check_split(split)
        return Task(split, index, type=f"type {index % 2}")

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Show the first word."""
        super().reset(seed=seed, options=options)
        self.turn = self.right = 0
        return self._show(), {}

    def _show(self) -> str:
        draw = self.rng.integers(len(WORDS)) + self.task.index
        self.word = WORDS[int(draw) % len(WORDS)]
        return f"Say {self.word}."

    def step(self, action: str) -> StepResult:
        """Compare what was said with the word, and show the next one."""
        said = action == self.word
        reward = 1.0 if said else len(set(action) & set(self.word)) / 10
        self.turn += 1
        self.right += said
        over = self.turn == self.length
        info: dict[str, object] = {"valid": action in WORDS}
        if over:
            info["success"] = self.right == self.length
        return "It is over." if over else self._show(), reward, over, False, info

    def state_key(self) -> Hashable | None:
        """The word and the turn."""
        return (self.word, self.turn)

    def gold(self) -> str | None:
        """What the constructor was told."""
        return self.answer or None

    def admissible(self) -> Sequence[str] | None:
        """Every word."""
        return WORDS

    def expert(self, observation: str) -> Expert | None:
        """A player that reads the word."""
        return _Reader(observation)


class _Reader:
    def __init__(self, observation: str) -> None:
        self.word = _read(observation)

    def act(self) -> str:
        return self.word

    def observe(self, command: str, feedback: str) -> None:
        del command
        self.word = _read(feedback)


def _read(observation: str) -> str:
    return observation.removeprefix("Say ").removesuffix(".")

"""`rg:<family>`: the procedural puzzles of reasoning-gym, one question and one answer each."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar

from agentrl.errors import (
    ConfigError,
    EnvironmentFault,
    EnvironmentUsageError,
    MissingExtraError,
    as_sentence,
    did_you_mean,
)
from agentrl.world.env import Task, TextEnv
from agentrl.world.protocol import PlainText
from agentrl_envs.others.seeded import SPLITS
from agentrl_envs.textworld.engine import undisturbed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentrl.world.env import StepResult


class ReasoningGymEnv(TextEnv):
    """One puzzle an episode: the question is the first observation, the first reply is the answer.

    The reward is reasoning-gym's own score in [0, 1]; 1 is a success. Splits are data sets of other seeds.

    Args:
        name: reasoning-gym's name of the family, for example "countdown".
        settings: fields of the family's configuration, for example `{"min_numbers": 3}`.
        seed: of the data sets.
        train_tasks, valid_tasks: puzzles in `train` and in each of the two other splits.
        render_mode: None or "ansi".

    Raises:
        MissingExtraError: reasoning-gym is not installed.
        ConfigError: there is no such family, or a setting is wrong.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(
        self,
        name: str,
        *,
        settings: Mapping[str, object] | None = None,
        seed: int = 0,
        train_tasks: int = 10_000,
        valid_tasks: int = 500,
        render_mode: str | None = None,
    ) -> None:
        if importlib.util.find_spec("reasoning_gym") is None:
            raise MissingExtraError("rg:", "reasoning-gym")
        super().__init__(render_mode=render_mode)
        self.protocol = PlainText()
        self.name, self._seed, self._settings = name, seed, dict(settings or {})
        self._sizes = {"train": train_tasks, "valid_seen": valid_tasks, "valid_unseen": valid_tasks}
        self._data = {split: self._data_of(number, split) for number, split in enumerate(SPLITS)}
        self._entry: dict[str, Any] = {}

    def num_tasks(self, split: str) -> int:
        """Return the number of puzzles of a split."""
        self._check_split(split)
        return self._sizes[split]

    def get_task(self, split: str, index: int) -> Task:
        """Return the puzzle at (split, index)."""
        if not 0 <= index < self.num_tasks(split):
            raise EnvironmentUsageError(
                f"split {split!r} has {self._sizes[split]} tasks; {index} is outside."
            )
        with undisturbed():
            entry = self._data[split][index]
        return Task(split, index, str(entry["question"]), {"entry": entry}, self.name)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Ask the question."""
        observation, _ = super().reset(seed=seed, options=options)
        self._entry = dict(self.task.data)["entry"]  # type: ignore[assignment]  # our own data of get_task
        return observation, {"domain": "reasoning-gym", "task_type": self.name}

    def step(self, action: str) -> StepResult:
        """Score the answer; this ends the episode."""
        with undisturbed():
            score = float(self._data[self.task.split].score_answer(action.strip(), self._entry))
        if not 0.0 <= score <= 1.0:
            raise EnvironmentFault(f"reasoning-gym scored {score} for {self.name!r}; scores lie in [0, 1].")
        return "The episode is over.", score, True, False, {"success": score == 1.0}

    def system_text(self) -> str:
        """Ask for the answer alone."""
        return "Solve the puzzle. Write the answer and nothing else."

    def gold(self) -> str | None:
        """Return reasoning-gym's own answer, where it has one."""
        answer = self._entry.get("answer") if self._phase != "new" else None
        return None if answer is None else str(answer)

    def _data_of(self, number: int, split: str) -> Any:  # noqa: ANN401  # an untyped package's object
        with undisturbed():
            import reasoning_gym  # pyright: ignore[reportMissingImports]  # an extra that may be absent
            from reasoning_gym.factory import DATASETS  # pyright: ignore[reportMissingImports]  # an extra that may be absent

            if self.name not in DATASETS:
                near = did_you_mean(self.name, DATASETS)
                raise ConfigError(f"reasoning-gym has no family {self.name!r}.{near}")
            try:
                seed = self._seed * len(SPLITS) + number
                return reasoning_gym.create_dataset(
                    self.name, seed=seed, size=self._sizes[split], **self._settings
                )
            except (TypeError, ValueError, AssertionError) as error:
                raise ConfigError(
                    f"reasoning-gym refuses these settings of {self.name!r}: {as_sentence(error)}"
                ) from error

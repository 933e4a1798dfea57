"""The environment `agentrl/Code-v0`."""

from __future__ import annotations

import functools
import math
import random
import zlib
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal

from agentrl.errors import ConfigError, EnvironmentFault, EnvironmentUsageError, MissingExtraError
from agentrl.sandbox.graders.mathematics import MathGrader
from agentrl.sandbox.graders.programs import ProgramGrader
from agentrl.sandbox.result import Grade, Limits, Verdict
from agentrl.world.env import Task, TextEnv
from agentrl.world.protocol import Fenced
from agentrl.world.tool import ToolResult, tool
from agentrl_envs.code import exercises, problems, sums
from agentrl_envs.code.expert import Solver
from agentrl_envs.code.files import read_tasks
from agentrl_envs.code.work import Exercise, Problem
from agentrl_tools.python import PythonTool
from agentrl_tools.records import by_split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentrl.world.env import StepResult
    from agentrl.world.protocol import Protocol
    from agentrl_envs.code.work import Work

SPLITS: Final = ("train", "valid", "test")
KINDS: Final = ("problems", "functions", "mixed", "sums")
_SIZES: Final = {"train": 100_000, "valid": 1000, "test": 1000}
_SHARES: Final = {"train": range(2, 10), "valid": range(1, 2), "test": range(1)}
_SYSTEM: Final = (
    "You solve problems with Python. Run as much code as you need; variables stay from turn to turn. Give "
    "the answer to a question as the final answer, or call final_answer(x) in your code. Where a function is "
    "asked for, submit its source text once: it is tested on inputs that you do not see."
)


class CodeEnv(TextEnv):
    """Questions to compute and functions to write, with a Python session in a jail.

    Args:
        kind: "problems", "functions", both of them ("mixed"), or "sums": questions of one or two operations.
        largest: number that a question of "sums" names, at least 9.
        files: a file of tasks for each split (see `read_tasks`), in place of generated ones.
        max_steps: turns before the episode is truncated.
        remembers: whether variables stay over the turns.
        seconds: wall clock of one run of the agent's code; at most half of what the rollout gives a step. All
            hidden tests of a submitted program together have that half.
        memory_megabytes: of one run.
        isolation: how programs are held; see `agentrl.sandbox.opening.open_sandbox`.
        instructions: whether `system_text` describes task and tools; a model trained on this world needs no
            description.

    Raises:
        ConfigError: a setting is wrong, or a file cannot be read.
        MissingExtraError: math-verify is not installed.
        SandboxUnavailable: from the first program, where this machine cannot hold untrusted ones.
    """

    blocks = True

    def __init__(  # noqa: PLR0913  # the settings of a world
        self,
        kind: Literal["problems", "functions", "mixed", "sums"] = "problems",
        *,
        largest: int = 99,
        files: Mapping[str, str] | None = None,
        max_steps: int = 8,
        remembers: bool = True,
        seconds: float = 10.0,
        memory_megabytes: int = 512,
        isolation: str = "auto",
        instructions: bool = True,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode)
        if kind not in KINDS:
            raise ConfigError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
        if largest < sums.SMALLEST:
            raise ConfigError(f"largest must be at least {sums.SMALLEST}; got {largest}.")
        for name, value in (("max_steps", max_steps), ("memory_megabytes", memory_megabytes)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1; got {value}.")
        if not 0 < seconds < math.inf:
            raise ConfigError(f"seconds must be a number above 0; got {seconds}.")
        if find_spec("math_verify") is None:
            raise MissingExtraError("Grading answers", "math")
        self.protocol = Fenced(names=("python", "submit"))
        self.kind, self.largest, self.instructions = kind, largest, instructions
        self.max_steps = max_steps
        given = {} if files is None else by_split(files, "files")
        self._files = _read_files(tuple(sorted(given.items())))
        self._limits = Limits(wall_seconds=seconds, memory=memory_megabytes << 20, kept_output=16 << 10)
        self._python = PythonTool(remembers=remembers, limits=self._limits, isolation=isolation)
        self._steps = 0

    # -- tasks -------------------------------------------------------------------------------------------

    def list_splits(self) -> tuple[str, ...]:
        """Return the splits: those of the files, or train, valid and test."""
        return tuple(self._files) or SPLITS

    def num_tasks(self, split: str) -> int:
        """Return the number of tasks of a split."""
        self._check_split(split)
        return len(self._files[split]) if self._files else _SIZES[split]

    def get_task(self, split: str, index: int) -> Task:
        """Return the task at (split, index)."""
        size = self.num_tasks(split)
        if not 0 <= index < size:
            raise EnvironmentUsageError(f"split {split!r} has {size} tasks; index {index} is outside.")
        work = self._files[split][index] if self._files else drawn(self.kind, split, index, self.largest)
        return Task(split, index, prompt=work.question, data={"work": work}, type=work.kind)

    # -- the episode -------------------------------------------------------------------------------------

    def default_protocol(self) -> Protocol:
        """Return fenced code, or what was set: this world's `step` reads calls, though it is its own."""
        return self.protocol

    def system_text(self) -> str:
        """Return what the world is about, and the protocol's words; or nothing."""
        described = f"{_SYSTEM}\n{self.protocol.describe(self.toolbox.tools)}"
        return described if self.instructions else ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin an episode with an empty session."""
        observation, info = super().reset(seed=seed, options=options)
        self._steps = 0
        seconds = min(self._limits.wall_seconds, self.step_seconds / 2)
        self._python.limits = replace(self._limits, wall_seconds=seconds)
        self._python.reset(seed=zlib.crc32(self.task.id.encode()))
        return observation, info

    def step(self, action: str) -> StepResult:
        """Run the agent's code, or take its answer."""
        observation, reward, terminated, _, info = super().step(action)
        self._steps += 1
        truncated = not terminated and self._steps >= self.max_steps
        # At every step, for the trainer's limits may make any of them the last.
        info["sandbox_tier"] = str(self._python.sandbox.tier)
        if terminated or truncated:
            self._python.close()
        if truncated:
            info["success"] = False
        info["task_type"] = self.task.type
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """End the session."""
        self._python.close()

    @tool
    def python(self, code: str) -> ToolResult:
        """Run Python code and return what it prints. Call final_answer(x) in it to give the answer.

        Args:
            code: the source text
        """
        result = self._python.python(code)
        if self._python.answer is not None:
            return self._graded_answer(self._python.answer)
        return result

    @tool
    def answer(self, answer: str) -> ToolResult:
        """Give the final answer to a question.

        Args:
            answer: a number or an expression
        """
        return self._graded_answer(answer)

    @tool
    def submit(self, code: str) -> ToolResult:
        """Submit the source text of the function or program that was asked for; this ends the task.

        Args:
            code: the source text
        """
        work = self._work()
        if isinstance(work, Problem):
            return _refused("This task asks for an answer, not for a program. Give the final answer.")
        grader = ProgramGrader(limits=self._python.limits, seconds=self.step_seconds / 2)
        return self._ended(grader(code, work.tests, self._python.sandbox))

    def gold(self) -> str | None:
        """Return the answer of a question; a function has none."""
        work = self._work()
        return work.answer if isinstance(work, Problem) else None

    def admissible(self) -> list[str]:
        """Return a few turns of somebody who does not think, for random play."""
        run = self.protocol.write("python", {"code": "print(1 + 1)"})
        if isinstance(self._work(), Problem):
            return [run, *(self.protocol.write_answer(number) for number in ("0", "1", "10", "100"))]
        return [run, self.protocol.write("submit", {"code": "def solution(x):\n    return x"})]

    def expert(self, observation: str) -> Solver:
        """Return a player that reads the task and writes Python for it; it knows generated tasks only."""
        return Solver(observation, self.protocol)

    def _work(self) -> Work:
        work = self.task.data["work"]
        if not isinstance(work, Problem | Exercise):
            raise TypeError(f"the data of the task {self.task.id} were changed; got {work!r}.")
        return work

    def _graded_answer(self, answer: str) -> ToolResult:
        work = self._work()
        if isinstance(work, Exercise):
            self._python.answer = None
            return _refused("This task asks for a program, not for an answer. Submit its source text.")
        return self._ended(MathGrader()(answer, work.answer))

    def _ended(self, grade: Grade) -> ToolResult:
        if grade.verdict is Verdict.GRADER_ERROR:
            raise EnvironmentFault(f"the grader failed: {grade.message}")
        # An answer that cannot be read, or not in time, is the agent's own: it must not be a way out.
        correct = grade.verdict is Verdict.CORRECT
        self.finish(grade.score if correct else 0.0, success=correct)
        unread = grade.verdict in {Verdict.UNPARSABLE, Verdict.TIMEOUT}
        return ToolResult("The answer was taken.", metrics={"unreadable": float(unread)})


def drawn(kind: str, split: str, index: int, largest: int = 99) -> Work:
    """Draw a task: the same arguments give the same one, and no task is in two splits."""
    rng = random.Random(f"{kind}/{split}/{index}")
    families = _families(largest)[kind]
    while True:
        work = rng.choice(families)(rng)
        if zlib.crc32(work.question.encode()) % 10 in _SHARES[split]:
            return work


@functools.cache
def _families(largest: int) -> Mapping[str, Sequence[Callable[[random.Random], Work]]]:
    return {
        "problems": problems.FAMILIES,
        "functions": exercises.FAMILIES,
        "mixed": (*problems.FAMILIES, *exercises.FAMILIES),
        "sums": sums.families(largest),
    }


@functools.cache
def _read_files(files: tuple[tuple[str, str], ...]) -> Mapping[str, list[Work]]:
    return {split: read_tasks(path) for split, path in files}


def _refused(text: str) -> ToolResult:
    return ToolResult(text, error=text)

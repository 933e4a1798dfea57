"""`agentgym:<address>`: an environment behind one of AgentGym's servers."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, cast

from agentrl.errors import ConfigError, EnvironmentFault, EnvironmentUsageError, did_you_mean
from agentrl.world.env import StepResult, Task, TextEnv
from agentrl.world.protocol import PlainText
from agentrl_envs.others.dialects import DIALECTS, checked, number_of, text_of
from agentrl_tools.wire import Wire

OVER: Final = "The episode is over."


class AgentGymEnv(TextEnv):
    """An environment of AgentGym, over HTTP.

    One environment at the server is created for this instance and reset for each episode. Calls that change
    something are sent once and never repeated; a server that fails, is late, says nothing readable, or hands
    one environment to two of us is an `EnvironmentFault`, never a reward.

    Args:
        name: address of the server, for example "http://127.0.0.1:36001".
        dialect: the server's package, which has to be named: one of `DIALECTS`.
        splits: the first task and the number of tasks of each split; without it `train` has no end.
        create: sent when the environment is created, on top of what the dialect sends.
        success: smallest reward of a turn that is a success; the dialect's by default.
        instructions: what the agent is told before the first observation.
        seconds: deadline of one call.
        max_steps: turns before the episode is cut.
        render_mode: None or "ansi".

    Raises:
        ConfigError: a setting is wrong.
    """

    blocks: ClassVar[bool] = True  # type: ignore[misc]  # of the class: every call crosses the network
    _held: ClassVar[set[tuple[str, int | str]]] = set()
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(  # noqa: PLR0913  # settings with defaults
        self,
        name: str,
        *,
        dialect: str = "",
        splits: Mapping[str, Sequence[int]] | None = None,
        create: Mapping[str, object] | None = None,
        success: float | None = None,
        instructions: str = "",
        seconds: float = 60.0,
        max_steps: int = 50,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode)
        if not name.startswith(("http://", "https://")):
            raise ConfigError(f"{name!r} is no address of a server; write agentgym:http://127.0.0.1:36001.")
        if dialect not in DIALECTS:
            wrong = f"AgentGym has no dialect {dialect!r}.{did_you_mean(dialect, DIALECTS)}"
            missing = "AgentGym's servers do not speak alike: say which was started, as in dialect='webshop'."
            raise ConfigError(f"{wrong if dialect else missing} The dialects are {', '.join(DIALECTS)}.")
        self.protocol = PlainText()
        self.url, self.dialect, self.instructions = name.rstrip("/"), DIALECTS[dialect], instructions
        self.kind, self.max_steps = dialect, max_steps
        self.success = self.dialect.success if success is None else success
        self._ranges = _ranges(splits)
        self._create = dict(create or {})
        self._wire = Wire(seconds=seconds, attempts=1)
        self._number: int | str | None = None
        self._actions: list[str] | None = None
        self._steps = 0

    def list_splits(self) -> tuple[str, ...]:
        """Return the splits of the settings."""
        return tuple(self._ranges)

    def num_tasks(self, split: str) -> int | None:
        """Return the number of tasks of a split, None where the settings do not say."""
        self._check_split(split)
        return self._ranges[split][1]

    def get_task(self, split: str, index: int) -> Task:
        """Return the task at (split, index): a number at the server."""
        self._check_split(split)
        return Task(split, index, data={"item": self._ranges[split][0] + index}, type=self.kind)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin an episode of the task; the seed is not sent, for the servers take none."""
        super().reset(seed=seed, options=options)
        item, dialect = self.task.data["item"], self.dialect
        if self._number is None:
            self._number = self._created({dialect.item: item} if dialect.created_with_item else {})
        body = {dialect.key: self._number, dialect.item: item, **dialect.reset}
        answer = self._post("/reset", body)
        self._steps = 0
        self._actions = _actions(answer)
        return text_of(answer, f"{self.url}/reset"), {"domain": "agentgym", "task_type": self.kind}

    def step(self, action: str) -> StepResult:
        """Send what follows the last "Action:", or all of it."""
        self._steps += 1
        written = action.rpartition("Action:")[2].strip()
        answer = self._post("/step", {self.dialect.key: self._number, "action": written})
        if not isinstance(answer, Mapping):
            raise EnvironmentFault(f"{self.url}/step gave no object: {str(answer)[:200]}")
        known = cast("Mapping[str, object]", answer)
        reward, done = _reward(known, self.url), known.get("done") is True
        self._actions = _actions(answer)
        observation = text_of(answer, f"{self.url}/step")
        if self.dialect.judges and "<answer>" in written and not done:
            observation, done = OVER, True
        late = self._steps >= self.max_steps and not done
        info: dict[str, object] = {"success": done and reward >= self.success} if done or late else {}
        return observation, reward, done, late, info

    def system_text(self) -> str:
        """Return the instructions of the settings; AgentGym keeps its own in its clients."""
        return self.instructions

    def admissible(self) -> Sequence[str] | None:
        """Return the available actions, where the server names them."""
        return self._actions if self._phase == "running" else None

    def snapshot(self) -> object:
        """An environment at a server cannot be copied. Raises `EnvironmentUsageError`."""
        raise EnvironmentUsageError(
            "an environment at a server cannot be copied; replay the actions instead."
        )

    def close(self) -> None:
        """Close the environment at the server, where the server can."""
        number, self._number = self._number, None
        self._phase = "new"
        if number is not None:
            with self._guard:
                self._held.discard((self.url, number))
            if self.dialect.closes:
                with contextlib.suppress(EnvironmentFault):  # the server is gone, and so is the environment
                    self._post("/close", {self.dialect.key: number})
        self._wire.close()

    def __deepcopy__(self, memo: dict[int, object]) -> AgentGymEnv:
        splits = {
            name: [first, *([] if size is None else [size])] for name, (first, size) in self._ranges.items()
        }
        return AgentGymEnv(
            self.url, dialect=self.kind, splits=splits, create=self._create, success=self.success,
            instructions=self.instructions, seconds=self._wire.seconds, max_steps=self.max_steps,
        )  # fmt: skip

    def _created(self, item: Mapping[str, object]) -> int | str:
        number = number_of(
            self._post("/create", {**self.dialect.create, **item, **self._create}), f"{self.url}/create"
        )
        with self._guard:
            if (self.url, number) in self._held:
                raise EnvironmentFault(
                    f"{self.url} gave out its environment {number} twice: its pool is used up, and two "
                    "episodes would disturb each other. Run fewer at a time, or more servers."
                )
            self._held.add((self.url, number))
        return number

    def _post(self, path: str, body: Mapping[str, object]) -> object:
        answer = self._wire.send("POST", self.url + path, json=body)
        where = f"{self.url}{path}"
        if answer.status != 200 or answer.cut:
            words = answer.body[:200].decode(errors="replace")
            raise EnvironmentFault(f"{where} answered with status {answer.status}: {words}")
        try:
            return checked(json.loads(answer.body), where)
        except (ValueError, RecursionError) as error:
            raise EnvironmentFault(f"{where} answered what is no JSON: {answer.body[:200]!r}") from error


def _ranges(splits: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, int | None]]:
    if splits is None:
        return {"train": (0, None)}
    for name, given in splits.items():
        if len(given) not in {1, 2} or any(type(n) is not int or n < 0 for n in given):
            raise ConfigError(
                f"the split {name!r} is [first, number] of tasks, such as [0, 200]; got {list(given)!r}."
            )
    return {name: (given[0], given[1] if len(given) == 2 else None) for name, given in splits.items()}


def _reward(answer: Mapping[str, object], url: str) -> float:
    given = answer.get("reward")
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise EnvironmentFault(f"{url}/step gave the reward {given!r}, which is no number.")
    return float(given)


def _actions(answer: object) -> list[str] | None:
    given = (
        cast("Mapping[str, object]", answer).get("available_actions") if isinstance(answer, Mapping) else None
    )
    if not isinstance(given, list):
        return None
    return [str(action) for action in cast("list[object]", given)]

"""The environment `agentrl/ALFWorld-v0`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agentrl.errors import ConfigError, EnvironmentUsageError
from agentrl.world.env import Task, TextEnv
from agentrl_envs.alfworld.data import SPLITS, Game, find_data, games_of, task_types_of, type_of
from agentrl_envs.alfworld.session import NOTHING, Session, require_engine
from agentrl_envs.household.belief import Belief, as_seen, read_room
from agentrl_envs.household.expert import Expert
from agentrl_envs.household.language import HELP

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from pathlib import Path

    from agentrl.world.env import StepResult


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An episode at one moment: the commands that led to it, for the engine cannot be copied."""

    task: Task
    commands: tuple[str, ...]
    steps: int
    belief: Belief
    phase: str
    observation: str
    random_state: Mapping[str, object]


class ALFWorldEnv(TextEnv):
    """ALFWorld's own games: each (split, index) is one `game.tw-pddl` of the data folder.

    The reward is 1.0 for the command that fulfils the goal, which ends the episode, and 0.0 for every other.
    A command that is not admissible is answered with "Nothing happens." and marked `info["valid"] = False`.

    Args:
        data: ALFWorld's data folder; by default `$ALFWORLD_DATA`, or `~/.cache/alfworld`.
        task_types: which of the six to play, by name; all by default.
        max_steps: commands before the episode is truncated, refused ones included.
        render_mode: None or "ansi".

    Raises:
        MissingExtraError: TextWorld or its planner is not installed.
        ConfigError: the data were not found, or hold no game of these types.
        EnvironmentFault: from `reset`, where a game's file is damaged.
    """

    blocks: bool = True  # the engine takes half a second to read a game, and 10 ms for each command
    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(
        self,
        data: str | Path | None = None,
        *,
        task_types: Iterable[str] | None = None,
        max_steps: int = 50,
        render_mode: str | None = None,
    ) -> None:
        require_engine()
        super().__init__(render_mode=render_mode)
        if max_steps < 1:
            raise ConfigError(f"max_steps must be at least 1; got {max_steps}.")
        self.max_steps = max_steps
        self._games = games_of(find_data(data).absolute(), task_types_of(task_types))
        self._session = Session()
        self._commands: list[str] = []
        self._steps = 0
        self._belief = Belief(())

    # -- tasks -------------------------------------------------------------------------------------------

    def list_splits(self) -> tuple[str, ...]:
        """Return the splits that hold a game of the chosen types."""
        return tuple(self._games)

    def num_tasks(self, split: str) -> int:
        """Return the number of games of a split."""
        self._check_split(split)
        return len(self._games[split])

    def get_task(self, split: str, index: int) -> Task:
        """Return the task at (split, index); its game is not read yet."""
        size = self.num_tasks(split)
        if not 0 <= index < size:
            raise EnvironmentUsageError(f"split {split!r} has {size} games; index {index} is outside.")
        path = self._games[split][index]
        return Task(split, index, data={"game": "/".join(path.parts[-3:-1])}, type=type_of(path))

    # -- the episode -------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin a game; the first observation lists the receptacles and states the goal."""
        super().reset(seed=seed, options=options)
        self._phase = "new"  # until the game stands: reading it may fail
        observation = self._start()
        self._belief = read_room(observation)
        return observation, {"domain": "alfworld", "task_type": self.task.type}

    def _start(self) -> str:
        self._commands, self._steps = [], 0
        return self._session.start(Game.read(self._games[self.task.split][self.task.index]))

    def step(self, action: str) -> StepResult:
        """Execute one command."""
        observation = self._session.send(action)
        valid = observation != NOTHING
        if valid:
            self._commands.append(action)
        self._steps += 1
        self._belief.update(observation)
        won = self._session.won()
        truncated = not won and self._steps >= self.max_steps
        info: dict[str, object] = {"valid": valid, "task_type": self.task.type, "domain": "alfworld"}
        if won or truncated:
            info["success"] = won
        return observation, float(won), won, truncated, info

    def system_text(self) -> str:
        """Return the list of commands."""
        return f"You act in a house by one command in each turn.\n{HELP}"

    def close(self) -> None:
        """Free the engine; `reset` loads another."""
        self._session.close()
        self._phase = "new"

    # -- hooks -------------------------------------------------------------------------------------------

    def observation_key(self) -> Hashable | None:
        """Return the task, the place in view as last seen, and what is in hand, as the agent knows them.

        "Nothing happens." changes none of it, so it makes no key.
        """
        return None if self._phase == "new" else (self.task.id, as_seen(self._belief))

    def state_key(self) -> Hashable | None:
        """Return all facts that can matter: the true state. Privileged, for training only."""
        return None if self._phase == "new" else self._session.facts()

    def admissible(self) -> Sequence[str] | None:
        """Return the commands that would not be answered with "Nothing happens."."""
        return None if self._phase == "new" else self._session.commands()

    def expert(self, observation: str) -> Expert:
        """Return the household's belief-based expert, which sees only texts."""
        return Expert(observation)

    def snapshot(self) -> Snapshot:
        """Freeze the episode; `restore` replays its commands."""
        if self._phase == "new":
            raise EnvironmentUsageError("snapshot() was called before reset(); call reset() first.")
        state, belief = self.rng.bit_generator.state, copy.deepcopy(self._belief)
        done = tuple(self._commands)
        return Snapshot(self.task, done, self._steps, belief, self._phase, self._last_observation, state)

    def restore(self, state: object) -> None:
        """Go back to a snapshot, also one of another instance with the same data."""
        if not isinstance(state, Snapshot):
            given = type(state).__name__
            raise EnvironmentUsageError(f"restore needs what snapshot() returned; got {given}.")
        self.task = state.task
        self._start()
        for command in state.commands:
            self._session.send(command)
        self._commands, self._steps = list(state.commands), state.steps
        self._belief = copy.deepcopy(state.belief)
        self._phase, self._last_observation = state.phase, state.observation
        self.rng.bit_generator.state = state.random_state

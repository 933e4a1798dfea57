"""The household as a Gymnasium environment: one action is one command."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from agentrl.errors import ConfigError, EnvironmentUsageError
from agentrl.world.env import Task, TextEnv
from agentrl_envs.household.belief import Belief, as_seen, read_room
from agentrl_envs.household.demonstrations import random_command
from agentrl_envs.household.expert import Expert
from agentrl_envs.household.generate import make_task
from agentrl_envs.household.language import HELP, NOTHING
from agentrl_envs.household.settings import PRESETS, SPLITS, HouseholdSettings
from agentrl_envs.household.sim import State, World
from agentrl_envs.household.tasks import Task as HouseholdTask

if TYPE_CHECKING:
    import random
    from collections.abc import Hashable, Mapping, Sequence

    from agentrl.world.env import StepResult


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that `HouseholdEnv.restore` needs, also in another instance."""

    task: Task
    state: State
    belief: Belief
    phase: str
    observation: str
    random_state: Mapping[str, object]


class HouseholdEnv(TextEnv):
    """Household tasks in ALFWorld's language.

    The reward is 1.0 for the command that fulfils the goal, which ends the episode, and 0.0 for every other.
    A command that is not admissible is answered with "Nothing happens." and marked `info["valid"] = False`.
    `info["rewards"]["goal_conditions"]` is the change of the share of the goal's conditions that hold: a
    component for training (`rl.rewards`), privileged as the state key is. It is no part of the reward.

    Args:
        settings: the size of the household, or the name of a preset: "two_rooms", "small", "medium" or
            "alfworld".
        randomized: the share of training tasks with houses in which anything may lie anywhere, in place of
            that of the settings; see `HouseholdSettings`.
        instructions: whether `system_text` lists the commands; a model trained on this world needs no list.
        render_mode: None or "ansi".

    Raises:
        ConfigError: there is no preset of that name, `settings` is neither, or `randomized` is no share.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(
        self,
        settings: HouseholdSettings | str = "small",
        *,
        randomized: float | None = None,
        instructions: bool = False,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode)
        chosen = preset(settings) if isinstance(settings, str) else settings
        if not isinstance(chosen, HouseholdSettings):
            raise ConfigError(
                f"settings must be HouseholdSettings or the name of a preset ({', '.join(PRESETS)}); "
                f"got {settings!r}."
            )
        self.settings = chosen if randomized is None else replace(chosen, randomized=randomized)
        self.instructions = instructions
        self._world: World | None = None
        self._belief = Belief(())

    def num_tasks(self, split: str) -> int:
        """Return the number of tasks of a split."""
        self._check_split(split)
        return self.settings.size_of(split)

    def get_task(self, split: str, index: int) -> Task:
        """Return the task at (split, index); drawing it takes about a millisecond."""
        self._check_split(split)
        household = make_task(self.settings, split, index)
        prompt = World(household).intro()
        return Task(split, index, prompt, {"household": household}, household.goal.task_type)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin a task; the first observation lists the receptacles and states the goal."""
        observation, _ = super().reset(seed=seed, options=options)
        self._world = _world_of(self.task)
        self._belief = read_room(observation)
        return observation, {"task_type": self.task.type}

    def step(self, action: str) -> StepResult:
        """Execute one command."""
        world = self._playing()
        before = world.goal_conditions()
        observation = world.do(action)
        self._belief.update(observation)
        after = world.goal_conditions()
        won = after == 1.0
        info: dict[str, object] = {
            "valid": observation != NOTHING,
            "success": won,
            "rewards": {"goal_conditions": after - before},
            "task_type": self.task.type,
        }
        return observation, float(won), won, False, info

    def system_text(self) -> str:
        """Return the list of commands, or nothing."""
        return f"You act in a house by one command in each turn.\n{HELP}" if self.instructions else ""

    def observation_key(self) -> Hashable | None:
        """Return the first observation, the place in view as last seen, and what is in hand.

        All as the agent knows it; the first observation names the goal and the receptacles.
        Only texts that the agent has read count. "Nothing happens." changes none of it, so it makes no key.
        """
        self._playing()
        return self.task.prompt, *as_seen(self._belief)

    def state_key(self) -> State:
        """Return the simulator's exact state: privileged, for training only."""
        return self._playing().state_key()

    def admissible(self) -> Sequence[str]:
        """Return the commands that would not be answered with "Nothing happens."."""
        return self._playing().admissible()

    def expert(self, observation: str) -> Expert:
        """Return the belief-based expert, which sees only texts."""
        return Expert(observation)

    def disturbance(self, rng: random.Random) -> str:
        """Return a random command about this room, as often admissible as not."""
        return random_command(self._playing(), rng)

    def snapshot(self) -> Snapshot:
        """Freeze the episode."""
        state = self._playing().snapshot()
        belief = copy.deepcopy(self._belief)
        random_state = self.rng.bit_generator.state
        return Snapshot(self.task, state, belief, self._phase, self._last_observation, random_state)

    def restore(self, state: object) -> None:
        """Go back to a snapshot, also one of another instance."""
        if not isinstance(state, Snapshot):
            raise EnvironmentUsageError(
                f"restore needs what snapshot() returned; got {type(state).__name__}."
            )
        if self._world is None or self.task != state.task:
            self.task = state.task
            self._world = _world_of(state.task)
        self._world.restore(state.state)
        self._belief = copy.deepcopy(state.belief)
        self._phase = state.phase
        self._last_observation = state.observation
        self.rng.bit_generator.state = state.random_state

    def _playing(self) -> World:
        if self._world is None:
            raise EnvironmentUsageError("HouseholdEnv has no episode yet; call reset() first.")
        return self._world


def preset(name: str) -> HouseholdSettings:
    """Return the settings of that name.

    Raises:
        ConfigError: there is no such preset.

    >>> preset("alfworld").receptacles
    (24, 30)
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no household preset {name!r}; the presets are {', '.join(PRESETS)}.")
    return PRESETS[name]


def _world_of(task: Task) -> World:
    household = task.data["household"]
    if not isinstance(household, HouseholdTask):
        raise EnvironmentUsageError(f"{task.id} is no household task; use HouseholdEnv.get_task.")
    return World(household)

"""The environment `agentrl/TextWorld-v0`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from agentrl.errors import ConfigError, EnvironmentUsageError
from agentrl.world.env import Task, TextEnv
from agentrl.world.protocol import PlainText
from agentrl_envs.textworld.expert import WalkthroughExpert
from agentrl_envs.textworld.players import has_player, player_of
from agentrl_envs.textworld.session import Mark, Session
from agentrl_envs.textworld.settings import SPLITS, Files, game_of
from agentrl_envs.textworld.shelves import GivenGames, MadeGames
from agentrl_envs.textworld.store import Library, default_folder, require_textworld

if TYPE_CHECKING:
    import random
    from collections.abc import Hashable, Mapping, Sequence

    from agentrl.world.env import StepResult
    from agentrl_envs.textworld.reader import Reader
    from agentrl_envs.textworld.settings import Source
    from agentrl_envs.textworld.shelves import Shelf
    from agentrl_envs.textworld.walker import Planned

_NOT_EPISODE: Final = frozenset({
    "_session", "_shelf", "observation_space", "action_space", "protocol", "toolbox", "render_mode",
    "game", "max_steps", "reward", "_reads",
})  # fmt: skip
_IDLE: Final = ("look", "inventory", "goal")
_SYSTEM: Final = (
    "You play a text game. Each turn, write one command and nothing else, for example: look, inventory, "
    "go north, open chest, take key from chest, unlock door with key. The command `goal` repeats your task."
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An episode at one moment: this environment's own attributes and the interpreter's memory."""

    episode: Mapping[str, object]
    mark: Mark


class TextWorldEnv(TextEnv):
    """Real TextWorld games: each (game, split, index) is one compiled game, made here or a file of yours.

    Splits of games made here differ by the seeds of the generator and nothing else: `train`, `valid_seen` and
    `valid_unseen` are draws from one distribution in disjoint seed ranges. So "unseen" means games that were
    not trained on, not another kind of game, and tiny worlds may repeat by chance (most of all
    `CoinCollector(level=1)`). Only `Cooking` goes further: there `valid_unseen` draws from TextWorld's own
    held-out foods and preparations. The splits of `Files` are the folders of that name, or `train` alone.

    Args:
        game: a family as a value, `Custom(rooms=5)` or `Files("quest.z8")`, or by name with `settings`, as a
            TOML file gives it.
        settings: fields of the family when `game` is a name.
        max_steps: commands before the episode is truncated, refused ones included.
        reward: `"win"`: 1.0 for winning; `"score"`: the game's score, normalised to sum to 1.0 on a win.
        expert: "walkthrough", which knows the game's file; or "texts", a player that sees no more than an
            agent: it does what the objective spells out (`Reader`), looks for the coin, or cooks (`Planned`).
        train_games, valid_games: number of games in `train` and in each of the two other splits, of those
            made here.
        folder: cache of compiled games, 410 kB each; default `$XDG_CACHE_HOME/agentrl/textworld`.

    Raises:
        MissingExtraError: the textworld package is not installed.
        ConfigError: a setting is wrong.
        EnvironmentFault: from `reset`, where TextWorld cannot make a game of these settings.
    """

    blocks: bool = True  # a new game takes seconds to make
    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(  # noqa: PLR0913  # the settings of a world
        self,
        game: Source | str = "custom",
        *,
        settings: Mapping[str, object] | None = None,
        max_steps: int = 50,
        reward: Literal["win", "score"] = "win",
        expert: Literal["walkthrough", "texts"] = "walkthrough",
        train_games: int = 1000,
        valid_games: int = 100,
        folder: str | Path | None = None,
        render_mode: str | None = None,
    ) -> None:
        require_textworld()
        super().__init__(render_mode=render_mode)
        if max_steps < 1:
            raise ConfigError(f"max_steps must be at least 1; got {max_steps}.")
        if reward not in {"win", "score"}:
            raise ConfigError(f"reward must be 'win' or 'score'; got {reward!r}.")
        if expert not in {"walkthrough", "texts"}:
            raise ConfigError(f"expert must be 'walkthrough' or 'texts'; got {expert!r}.")
        self.protocol = PlainText()
        self.game = game_of(game, settings)
        self._reads = expert == "texts"
        if self._reads and not has_player(self.game):
            raise ConfigError(
                f"expert 'texts' does what an objective spells out, and those of {self.game} do not; take a "
                "grammar that has neither only_last_action nor blend_instructions nor "
                "ambiguous_instructions, or expert 'walkthrough'."
            )
        self.max_steps = max_steps
        self.reward = reward
        library = Library(default_folder() if folder is None else Path(folder))
        self._shelf: Shelf = (
            GivenGames.of(self.game, library)
            if isinstance(self.game, Files)
            else MadeGames(self.game, library, train_games, valid_games)
        )
        self._session = Session()
        self._steps = 0
        self._score = 0

    # -- tasks -------------------------------------------------------------------------------------------

    def list_splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return self._shelf.splits

    def num_tasks(self, split: str) -> int:
        """Return the number of games of a split."""
        self._check_split(split)
        return self._shelf.size(split)

    def get_task(self, split: str, index: int) -> Task:
        """Return the task at (split, index); nothing is generated yet."""
        size = self.num_tasks(split)
        if not 0 <= index < size:
            raise EnvironmentUsageError(f"split {split!r} has {size} games; index {index} is outside.")
        return Task(split, index, data=self._shelf.about(split, index), type=self.game.family)

    def prepare(self, split: str, indices: Sequence[int], *, workers: int = 1) -> int:
        """Make these games ahead of time in `workers` processes and return how many were new."""
        return self._shelf.prepare(split, [self.get_task(split, i).index for i in indices], workers=workers)

    # -- the episode -------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin the game of a task (see `TextEnv.reset`) and return its objective and first room."""
        super().reset(seed=seed, options=options)
        self._phase = "new"  # until the game stands: making it may fail
        observation = self._session.start(self._shelf.get(self.task.split, self.task.index))
        self._steps = self._score = 0
        return observation, {"domain": "textworld", "task_type": self.game.family}

    def step(self, action: str) -> StepResult:
        """Carry out one command. `info["valid"]` is False where the game did nothing."""
        reply = self._session.send(action)
        self._steps += 1
        gained = (reply.score - self._score) / max(1, self._session.max_score)
        self._score = reply.score
        reward = float(reply.won) if self.reward == "win" else gained
        terminated = reply.won or reply.lost
        truncated = not terminated and self._steps >= self.max_steps
        info: dict[str, object] = {
            "valid": reply.valid,
            "rewards": {self.reward: reward},
            "metrics": {"score": self._score / max(1, self._session.max_score)},
        }
        if terminated or truncated:
            info["success"] = reply.won
        return reply.text, reward, terminated, truncated, info

    def system_text(self) -> str:
        """Say how to play; the objective is part of the first observation."""
        return _SYSTEM

    def close(self) -> None:
        """Free the interpreter; `reset` opens another."""
        self._session.close()
        self._phase = "new"

    # -- hooks -------------------------------------------------------------------------------------------

    def state_key(self) -> Hashable | None:
        """Return the score and all facts of the world: the true state. Privileged, for training only.

        The score is part of it: a subquest once done stays done, whatever becomes of its objects.
        """
        return None if self._phase == "new" else (self._score, self._session.facts())

    def admissible(self) -> Sequence[str] | None:
        """Return the commands that would do something now. For checks and random play only."""
        return None if self._phase == "new" else self._session.commands()

    def expert(self, observation: str) -> WalkthroughExpert | Planned | Reader | None:
        """Return the player of the task: of its walkthrough, if it has one (privileged), or of texts."""
        if self._reads:
            return player_of(self.game, observation)
        known = self._phase != "new" and self._session.walkthrough
        return WalkthroughExpert.for_env(self) if known else None

    def disturbance(self, rng: random.Random) -> str:
        """Return a command that changes nothing, so that the walkthrough still leads to the goal."""
        return rng.choice(_IDLE)

    def walkthrough(self) -> tuple[str, ...]:
        """Return the solution that the game's file holds, from the beginning; maybe none. Privileged."""
        if self._phase == "new":
            raise EnvironmentUsageError("walkthrough() belongs to a task; call reset() first.")
        return self._session.walkthrough

    def snapshot(self) -> Snapshot:
        """Return this moment: exact, by copying the interpreter's memory (37 kB); nothing is replayed."""
        if self._phase == "new":
            raise EnvironmentUsageError("snapshot() was called before reset(); call reset() first.")
        episode = {name: value for name, value in self.__dict__.items() if name not in _NOT_EPISODE}
        return Snapshot(copy.deepcopy(episode), self._session.mark())

    def restore(self, state: object) -> None:
        """Go back to a snapshot, also one of another instance with the same settings."""
        if not isinstance(state, Snapshot):
            given = type(state).__name__
            raise EnvironmentUsageError(f"restore needs what snapshot() returned; got {given}.")
        self._session.back_to(state.mark)
        self.__dict__.update(copy.deepcopy(dict(state.episode)))

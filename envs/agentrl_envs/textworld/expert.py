"""An expert that knows the answer: it reads the walkthrough of the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl_envs.textworld.session import walkthrough_of
from agentrl_envs.textworld.settings import recipe_of
from agentrl_envs.textworld.store import Library, default_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agentrl.world.env import Task
    from agentrl_envs.textworld.env import TextWorldEnv
    from agentrl_envs.textworld.settings import Game


class WalkthroughExpert:
    """Gives the generator's walkthrough one command at a time, whatever it observes.

    Privileged: the commands come from the game's file and not from what the agent has seen, so imitating them
    can ask for knowledge that the observations do not give (where a thing is, before it was found). Commands
    in between must change nothing, since it goes on where it was; after the last one it looks around.

    >>> expert = WalkthroughExpert(["open box", "take coin"])
    >>> expert.act()
    'open box'
    >>> expert.observe("look", "You see a box.")
    >>> expert("You see a box."), expert("You see a coin.")
    ('open box', 'take coin')
    """

    def __init__(self, commands: Sequence[str]) -> None:
        self._rest = list(commands)

    @classmethod
    def for_task(cls, game: Game, task: Task, folder: Path | None = None) -> WalkthroughExpert:
        """Look the task up among the compiled games (made now if it is new)."""
        library = Library(default_folder() if folder is None else folder)
        return cls(walkthrough_of(library.get(recipe_of(game, task.split, task.index))))

    @classmethod
    def for_env(cls, env: TextWorldEnv) -> WalkthroughExpert:
        """Solve the task that `env` was reset to."""
        return cls(env.walkthrough())

    def __call__(self, observation: str) -> str:
        """Return the next command and count it as carried out."""
        command = self.act()
        self.observe(command, observation)
        return command

    def act(self) -> str:
        """Return the next command."""
        return self._rest[0] if self._rest else "look"

    def observe(self, command: str, feedback: str) -> None:
        """Go on after the walkthrough's own command, and stay where another one was carried out."""
        del feedback
        if self._rest and command == self._rest[0]:
            del self._rest[0]

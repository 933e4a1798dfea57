"""An environment's own expert as a policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentrl.errors import PolicyError
from agentrl.policy.base import Request, Sample

if TYPE_CHECKING:
    from agentrl.policy.base import Player


@dataclass
class ExpertPolicy:
    """Plays each trajectory with a player of its own, made by the environment that is being played."""

    name: str = "expert"
    renderer: None = None
    _players: dict[str, tuple[Player, str]] = field(default_factory=dict, repr=False)

    async def generate(self, request: Request) -> Sample:
        """Act on what was observed. Raises `PolicyError` where the world has no expert."""
        known = self._players.get(request.trajectory)
        if known is None:
            player = request.expert(request.observation)
            if player is None:
                raise PolicyError(
                    "this environment has no expert; define expert() on it or evaluate another policy."
                )
        else:
            player, last = known
            player.observe(last, request.observation)
        action = player.act()
        self._players[request.trajectory] = (player, action)
        return Sample(text=action)

    def finish(self, trajectory: str) -> None:
        """Forget the player."""
        self._players.pop(trajectory, None)

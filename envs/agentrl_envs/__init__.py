"""Worlds for agents, one folder per world: household, textworld, search, code, sql, ...

Importing the package loads no world. It enters the ids of our worlds into Gymnasium, which imports this
package for `gymnasium.make("agentrl_envs:agentrl/Household-v0")`.
"""

from agentrl.world.entrypoints import discovered
from agentrl.world.registry import ENVIRONMENTS, EnvSpec, mirror_to_gymnasium


def _mirror_ids() -> None:
    for offered in discovered(ENVIRONMENTS):
        if offered.value.startswith(f"{__name__}."):
            mirror_to_gymnasium(EnvSpec(offered.name, offered.value, distribution=offered.distribution))


_mirror_ids()

"""Collecting in one call: an environment by name or class, a policy, and how many tasks."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from agentrl.errors import ConfigError, PolicyError
from agentrl.policy.base import Sampling
from agentrl.policy.expert import ExpertPolicy
from agentrl.policy.scripted import RandomPolicy
from agentrl.rollout.assignment import assign_groups
from agentrl.rollout.collect import Stock
from agentrl.rollout.collect import collect as collect_on
from agentrl.rollout.episode import Play
from agentrl.rollout.limits import Limits
from agentrl.rollout.memory import whole_history
from agentrl.world.asynchronous import AsyncTextEnv
from agentrl.world.env import TextEnv
from agentrl.world.registry import make_any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentrl.policy.base import Policy
    from agentrl.rollout.branch import Brancher
    from agentrl.rollout.memory import Memory
    from agentrl.trajectory import Invalid, Trajectory
    from agentrl.world.protocol import Protocol
    from agentrl.world.registry import AnyEnv
    from agentrl.world.terms import Terms

    World: TypeAlias = str | AnyEnv | Callable[[], AnyEnv]
    # An id, a class or function that makes the environment, or an instance that was not reset yet.


def collect(  # noqa: PLR0913  # one door with a default for everything but the first two
    env: World,
    policy: Policy | str,
    *,
    split: str = "",
    tasks: int | Sequence[int] = 1,
    members: int = 1,
    limits: Limits | None = None,
    protocol: Protocol | None = None,
    sampling: Sampling | None = None,
    terms: Mapping[str, Terms] | None = None,
    memory: Memory = whole_history,
    brancher: Brancher | None = None,
    seed: int = 0,
) -> list[Trajectory | Invalid]:
    """Play tasks of an environment and return what happened, in the order of the tasks.

    Args:
        env: an id ("agentrl/Household-v0", "module:Class"), a class or function, or an instance.
        policy: who acts; "random" and "expert" stand for the environment's own.
        split: the environment's first one by default.
        tasks: how many, from the first on; or which, by index.
        members: trajectories of each task; they share task and environment seed, not the sampling noise.
        limits: of turns, tokens and seconds.
        protocol: how turns are written; by default an environment that defines its own `step` reads plain
            text, and a world of tools uses its own protocol.
        terms: budgets and costs of tools by name.
        memory: what of its past the agent is shown; `brancher`: how each task's members grow as trees.
        sampling: temperature and top-p; at most `limits.turn_tokens` tokens a turn.
        seed: of the environments and the noise.

    Raises:
        RegistryError, PolicyError, ConfigError: sentences that name the repair.

    >>> from agentrl.policy.scripted import ScriptedPolicy
    >>> from agentrl.world.env import TextEnv
    >>> class Door(TextEnv):
    ...     def step(self, action):
    ...         return "It opens.", 1.0, True, False, {"success": True}
    >>> (trajectory,) = collect(Door, ScriptedPolicy(["open door"]))
    >>> trajectory.success, trajectory.reward
    (True, 1.0)
    """
    factory = _factory(env)
    first = factory()
    limits = limits or Limits()
    sampling = sampling or Sampling(max_tokens=limits.turn_tokens)
    indices = range(tasks) if isinstance(tasks, int) else tasks
    split = split or first.list_splits()[0]
    if split not in first.list_splits():
        raise ConfigError(
            f"there is no split {split!r}; the environment has {', '.join(first.list_splits())}."
        )
    size = first.num_tasks(split)
    if size is not None and max(indices, default=0) >= size:
        raise ConfigError(f"split {split!r} has {size} tasks; task {max(indices)} is outside. Ask for fewer.")
    protocol = protocol or default_protocol(first)
    if brancher is not None:
        sampling = replace(sampling, entropy=True)
    play = Play(_policy(policy), protocol, sampling, limits, _name(env, first), terms or {}, memory, brancher)
    stock = Stock(factory)
    stock.put_back(first)
    try:
        return collect_on(stock, play, assign_groups(split, indices, members=members, seed=seed))
    finally:
        stock.close()


def _factory(env: World) -> Callable[[], AnyEnv]:
    if isinstance(env, str):
        identifier = env
        return lambda: make_any(identifier)
    if isinstance(env, TextEnv | AsyncTextEnv):
        pristine = copy.deepcopy(env)
        return lambda: copy.deepcopy(pristine)
    return env


def _policy(policy: Policy | str) -> Policy:
    if not isinstance(policy, str):
        return policy
    if policy == "random":
        return RandomPolicy()
    if policy == "expert":
        return ExpertPolicy()
    raise PolicyError(f"{policy!r} names no policy here; give a policy object, 'random' or 'expert'.")


def default_protocol(env: AnyEnv) -> Protocol:
    """Return the protocol that an environment reads by itself."""
    return env.default_protocol() if isinstance(env, TextEnv) else env.protocol


def _name(env: World, made: AnyEnv) -> str:
    return env if isinstance(env, str) else type(made).__name__

"""Our credit in TRL's `GRPOTrainer`, and our worlds as its environments.

    from agentrl.adapters.trl import credit_trainer, environment_factory, task_rows

    trainer = credit_trainer("GIGPO")(
        model=...,
        args=GRPOConfig(...),
        environment_factory=environment_factory("agentrl/Household-v0"),
        train_dataset=Dataset.from_list(task_rows("agentrl/Household-v0", 512)),
    )

TRL takes the advantage of every token; loss, ratio and averaging stay its own (`GRPOConfig.loss_type`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from agentrl.adapters.padded import PaddedRows
from agentrl.adapters.trl_world import TrlWorld, world_class
from agentrl.errors import ConfigError
from agentrl.recipes import get
from agentrl.world.registry import make

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from agentrl.learn.algorithm import Algorithm

Message: TypeAlias = Mapping[str, object]
Array: TypeAlias = "NDArray[np.generic]"


def credit_trainer(algorithm: Algorithm | str = "GIGPO") -> type[Any]:
    """Return a `GRPOTrainer` class whose advantages are those of an algorithm of ours.

    A group are the `num_generations` completions of a prompt; a turn is a run of sampled tokens between
    answers of tools. With worlds of `environment_factory`, a turn has the reward and the key of its calls;
    other rewards stand at the last turn. Schedules are taken at the start of training.

    Raises:
        ConfigError: TRL is not installed, or there is no such recipe; the trainer raises it where it runs on
            several processes, because groups may be cut there.
    """
    try:
        base = importlib.import_module("trl").GRPOTrainer
    except ImportError as error:
        raise ConfigError(f"TRL cannot be imported ({error}); install it: pip install trl") from error
    found = get(algorithm) if isinstance(algorithm, str) else algorithm
    chosen = replace(found.at(0.0), on_empty="skip")

    class CreditTrainer(base):  # type: ignore[misc,valid-type]  # TRL may be absent and ships no types
        """GRPOTrainer with credit of agentrl."""

        def _calculate_rewards(
            self,
            inputs: Sequence[Mapping[str, Any]],
            prompts: object,
            completions: Sequence[Sequence[Message]],
            completion_ids: object,
        ) -> torch.Tensor:
            rewards = cast(
                "torch.Tensor", super()._calculate_rewards(inputs, prompts, completions, completion_ids)
            )
            weighted = rewards * self.reward_weights.to(rewards.device)
            self._agentrl_rows = (weighted.nansum(1).double().cpu().numpy(), completions)
            return rewards

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            if self.accelerator.num_processes > 1:
                raise ConfigError("credit_trainer runs on one process; groups may be cut over several.")
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            members = self.num_generations if self.model.training else self.num_generations_eval
            mask = output["completion_mask"] * output.get("tool_mask", 1)
            reward, completions = self._agentrl_rows
            rows = padded_rows(
                np.arange(len(reward)) // members, mask.cpu().numpy(), reward, completions, self.environments
            )
            advantage = rows.spread(chosen.credit(rows.batch))
            output["advantages"] = mask.new_tensor(advantage, dtype=output["advantages"].dtype)
            return output

    return CreditTrainer


def padded_rows(
    group: Array,
    mask: Array,
    reward: Array,
    completions: Sequence[Sequence[Message]],
    worlds: Sequence[object] | None,
) -> PaddedRows:
    """Return rows whose turns have what our worlds remember of them; (B,) rewards count at the last turn.

    A world's turn is an assistant message with its calls. Where messages and runs of the mask do not match (a
    completion that was cut), the whole reward stands at the last turn and there are no keys.
    """
    begins = mask.astype(bool) & ~np.pad(mask.astype(bool), ((0, 0), (1, 0)))[:, :-1]
    spread = np.zeros(mask.shape)
    keys: list[list[Hashable]] = []
    for row in range(len(mask)):
        places = np.flatnonzero(begins[row])
        earned, seen = _told(completions[row], worlds[row]) if worlds else ([], [])
        if len(earned) != len(places):
            unknown: list[Hashable] = [None] * len(places)
            earned, seen = [0.0] * len(places), unknown
        if len(places):
            spread[row, places] = earned
            spread[row, places[-1]] += reward[row] - sum(earned)
        else:
            spread[row, -1:] = reward[row]
        keys.append(seen)
    return PaddedRows.of(group, mask, spread, keys=keys)


def _told(completion: Sequence[Message], world: object) -> tuple[list[float], list[Hashable]]:
    """Return reward and key of each assistant message, in order; nothing for a world of others."""
    if not isinstance(world, TrlWorld):
        return [], []
    earned: list[float] = []
    keys: list[Hashable] = []
    steps = list(world.agentrl_steps)
    for message in completion:
        if message["role"] != "assistant":
            continue
        calls = min(len(cast("Sequence[object]", message.get("tool_calls") or ())), len(steps))
        own, steps = steps[:calls], steps[calls:]
        earned.append(sum(step.reward for step in own))
        keys.append(own[0].key if own else (steps[0].key if steps else world.agentrl_key))
    return earned, keys


def environment_factory(env: str, **arguments: object) -> Callable[[], TrlWorld]:
    """Return what TRL's `environment_factory` takes: each call makes one instance of a world.

    A world of tools shows its tools; a world of texts shows one, `act(action)`. The reward is the sum of the
    world's, through TRL's `get_reward`. `reset` reads "split", "index" and "seed" of the data set's row.

    Args:
        env: an id or "module:Class"; `arguments`: of its constructor.
    """
    return world_class(env, arguments)


def task_rows(env: str, tasks: int, *, split: str | None = None, prompt: str = "") -> list[dict[str, object]]:
    """Return rows of a data set: one for each task, whose first observation the world adds to `prompt`."""
    world = make(env)
    chosen = split or world.list_splits()[0]
    world.close()
    return [
        {"prompt": [{"role": "user", "content": prompt}], "split": chosen, "index": index, "seed": index}
        for index in range(tasks)
    ]

"""Our credit as an advantage estimator of verl.

    from agentrl.adapters.verl import register

    register("agentrl_gigpo", "GIGPO")  # then algorithm.adv_estimator=agentrl_gigpo in verl's config

verl takes the advantage; ratio, clip and averaging stay its own. Call it in every process that computes
advantages, that is in the trainer's (verl imports `actor_rollout_ref.model.external_lib` there).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agentrl.adapters.padded import PaddedRows
from agentrl.errors import ConfigError
from agentrl.recipes import get

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import torch
    from numpy.typing import ArrayLike

    from agentrl.learn.algorithm import Algorithm


@dataclass(frozen=True)
class Estimator:
    """An estimator with verl's signature, `(token_level_rewards, response_mask, index) -> two tensors`."""

    algorithm: Algorithm

    def __call__(
        self,
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        config: object = None,
        index: ArrayLike | None = None,
        turn_keys: Sequence[Sequence[Hashable]] | None = None,
        **extra: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return advantages and returns, both (B, L): the advantage at every token of the mask.

        Args:
            token_level_rewards: (B, L); `response_mask`: (B, L), 1 on what the policy sampled, so that every
                run of ones is a turn. `index`: (B,) verl's uid.
            turn_keys: a key for each turn of each row. verl's trainer hands on none, so there recipes that
                compare places add nothing to the episode term; a trainer of your own can pass them.
            config, extra: what verl also hands on; not read.
        """
        import torch

        del config, extra
        if index is None:
            raise ConfigError("verl gave no index; the data must hold 'uid', the group of each row.")
        rows = PaddedRows.of(
            index, response_mask.cpu().numpy(), token_level_rewards.double().cpu().numpy(), keys=turn_keys
        )
        found = rows.spread(self.algorithm.credit(rows.batch))
        advantage = torch.from_numpy(found).to(token_level_rewards)
        return advantage, advantage


def register(name: str, algorithm: Algorithm | str = "GIGPO") -> Estimator:
    """Register an algorithm's credit with verl under `name` and return the estimator.

    Schedules are taken at the start of training, and a batch of which the filter keeps nothing gets zeros.

    Raises:
        ConfigError: verl is not installed, or there is no such recipe.
    """
    try:
        core = importlib.import_module("verl.trainer.ppo.core_algos")
    except ImportError as error:
        raise ConfigError(f"verl cannot be imported ({error}); install it: pip install verl") from error
    found = get(algorithm) if isinstance(algorithm, str) else algorithm
    estimator = Estimator(replace(found.at(0.0), on_empty="skip"))
    core.register_adv_est(name)(estimator)
    return estimator

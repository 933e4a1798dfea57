"""Our credit as an advantage estimator of verl.

    from agentrl.adapters.verl import register

    register("agentrl_gigpo", "GIGPO")  # then algorithm.adv_estimator=agentrl_gigpo in verl's config

verl takes the advantage; ratio, clip and averaging stay its own. Call it in every process that computes
advantages, that is in the trainer's (verl imports `actor_rollout_ref.model.external_lib` there).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from agentrl.adapters.padded import PaddedRows
from agentrl.errors import BatchError, ConfigError
from agentrl.recipes import get
from agentrl.trajectory.builder import sampled_mask, stream_tokens, stream_turns

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import torch
    from numpy.typing import ArrayLike, NDArray

    from agentrl.learn.algorithm import Algorithm
    from agentrl.trajectory import Trajectory

Number = TypeVar("Number", np.int64, np.float32)


@dataclass(frozen=True, eq=False)
class ProtoArrays:
    """Rows of verl's `DataProto`, as plain arrays: `DataProto.from_dict(tensors=..., non_tensors=...)`.

    One row for each token stream. The prompt is what stood before the first sampled token.

    Attributes:
        tensors: "prompts" (B, P) padded on the left; "responses", "response_mask" (1 on sampled tokens),
            "rollout_log_probs", "token_level_scores", "token_level_rewards" (B, L) padded on the right;
            "input_ids", "attention_mask", "position_ids" (B, P + L). Rewards stand at the last sampled token
            of their turn, or at the stream's last one where a turn has none.
        non_tensors: "uid" (the group), "data_source", "task", "trajectory" (B,) as objects.
    """

    tensors: Mapping[str, NDArray[np.generic]]
    non_tensors: Mapping[str, NDArray[np.object_]]

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory], *, pad_token: int = 0) -> ProtoArrays:
        """Lay out trajectories.

        Raises:
            BatchError: there are none, or one has no token ids.
        """
        rows = [row for item in trajectories for row in _rows(item)]
        if not rows:
            raise BatchError("there are no turns to lay out for verl; give trajectories with tokens.")
        prompts = _padded([row.tokens[: row.begin] for row in rows], pad_token, left=True)
        responses = _padded([row.tokens[row.begin :] for row in rows], pad_token)
        before = _padded([np.ones(row.begin, np.int64) for row in rows], 0, left=True)
        after = _padded([np.ones(len(row.tokens) - row.begin, np.int64) for row in rows], 0)
        attention = np.concatenate([before, after], axis=1)
        rewards = _padded([row.rewards[row.begin :] for row in rows], 0.0)
        owners = [row.owner for row in rows]
        return cls(
            tensors={
                "prompts": prompts,
                "responses": responses,
                "response_mask": _padded([row.sampled[row.begin :].astype(np.int64) for row in rows], 0),
                "rollout_log_probs": _padded([row.logprobs[row.begin :] for row in rows], 0.0),
                "token_level_scores": rewards,
                "token_level_rewards": rewards.copy(),
                "input_ids": np.concatenate([prompts, responses], axis=1),
                "attention_mask": attention,
                "position_ids": np.maximum(attention.cumsum(1) - 1, 0),
            },
            non_tensors={
                "uid": _objects([item.group for item in owners]),
                "data_source": _objects([item.environment for item in owners]),
                "task": _objects([item.task for item in owners]),
                "trajectory": _objects([item.id for item in owners]),
            },
        )


@dataclass(frozen=True, eq=False)
class _Row:
    """One stream: (T,) tokens, whether sampled, log-probabilities and rewards; `begin`: of the response."""

    owner: Trajectory
    tokens: NDArray[np.int64]
    sampled: NDArray[np.bool_]
    logprobs: NDArray[np.float32]
    rewards: NDArray[np.float32]

    @property
    def begin(self) -> int:
        return int(self.sampled.argmax()) if self.sampled.any() else len(self.tokens)


def _rows(item: Trajectory) -> list[_Row]:
    rows: list[_Row] = []
    streams = zip(stream_turns(item), stream_tokens(item), sampled_mask(item), strict=True)
    for turns, tokens, sampled in streams:
        logprobs, rewards = np.zeros(len(tokens), np.float32), np.zeros(len(tokens), np.float32)
        end = 0
        for turn in turns:
            size = 0 if turn.tokens is None else len(turn.tokens)
            end += len(turn.prompt_tokens) + size
            if turn.logprobs is not None:
                logprobs[end - size : end] = turn.logprobs
            place = end - 1 if size else int(np.flatnonzero(sampled)[-1]) if sampled.any() else -1
            if len(tokens):
                rewards[place] += turn.reward
        rows.append(_Row(item, tokens.astype(np.int64), sampled, logprobs, rewards))
    return rows


def _padded(rows: Sequence[NDArray[Number]], fill: float, *, left: bool = False) -> NDArray[Number]:
    """(B, longest) the rows, padded on the right or left."""
    width = max(len(row) for row in rows)
    result = np.full((len(rows), width), fill, dtype=rows[0].dtype)
    for number, row in enumerate(rows):
        if len(row):
            result[number, slice(-len(row), None) if left else slice(len(row))] = row
    return result


def _objects(values: Sequence[str]) -> NDArray[np.object_]:
    return np.array(values, dtype=object)


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

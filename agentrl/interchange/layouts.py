"""What a trajectory gives to other programs, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from agentrl.interchange.conversation import conversation_of, opening_of, reply_of
from agentrl.trajectory.builder import sampled_mask, stream_tokens, stream_turns
from agentrl.trajectory.table import struct_type, table_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agentrl.interchange.sink import Row
    from agentrl.trajectory.turn import Trajectory

IGNORED: Final = -100
"""Label of a token that carries no loss, in every trainer built on transformers."""


# -- tables for analysis -------------------------------------------------------------------------------------

TRAJECTORY_COLUMNS: Final[Mapping[str, str]] = {
    "trajectory": "int64", "id": "string", "environment": "string", "task": "string", "group": "string",
    "member": "int64", "seed": "int64", "step": "int64", "policy": "string", "success": "bool",
    "reward": "float64", "stop": "string", "truncated": "bool", "turns": "int64", "prompt_tokens": "int64",
    "sampled_tokens": "int64", "invalid_actions": "int64", "tool_calls": "int64", "tool_errors": "int64",
    "streams": "int64", "parent": "string", "branch_turn": "int64", "domain": "string", "task_type": "string",
    "hint_level": "int64", "sandbox_tier": "string", "generate_seconds": "float64",
    "environment_seconds": "float64", "metrics": "named", "gold": "string", "messages": "messages",
    "final_observation": "string",
}  # fmt: skip


def trajectory_row(number: int, item: Trajectory) -> Iterator[Row]:
    """Yield one row: the trajectory's fields, sums over its turns, and the conversation."""
    turns = item.turns
    calls = [call for turn in turns for call in turn.tool_calls]
    same = {name: getattr(item, name) for name in TRAJECTORY_COLUMNS if name in _FIELDS}
    yield {
        **same,
        "trajectory": number,
        "reward": item.reward,
        "stop": item.stop.value,
        "truncated": item.truncated,
        "turns": len(turns),
        "prompt_tokens": sum(len(turn.prompt_tokens) for turn in turns),
        "sampled_tokens": sum(0 if turn.tokens is None else len(turn.tokens) for turn in turns),
        "invalid_actions": sum(not turn.valid for turn in turns),
        "tool_calls": len(calls),
        "tool_errors": sum(call.error is not None for call in calls),
        "streams": len(stream_turns(item)),
        "generate_seconds": sum(turn.generate_seconds for turn in turns),
        "environment_seconds": sum(turn.environment_seconds for turn in turns),
        "metrics": [{"name": name, "value": item.metrics[name]} for name in sorted(item.metrics)],
        "messages": conversation_of(item),
    }


_FIELDS: Final = frozenset(
    {"id", "environment", "task", "group", "member", "seed", "step", "policy", "success", "parent",
     "branch_turn", "domain", "task_type", "hint_level", "sandbox_tier", "gold", "final_observation"}
)  # fmt: skip


def trajectory_schema() -> object:
    """Return the schema of `trajectory_row`."""
    return table_schema(TRAJECTORY_COLUMNS)


# -- supervised fine-tuning ----------------------------------------------------------------------------------


def chat_row(_number: int, item: Trajectory) -> Iterator[Row]:
    """Yield `messages`, where the agent said anything: what SFT trainers read."""
    if item.turns:
        yield {"messages": conversation_of(item)}


def chat_schema() -> object:
    """Return the schema of `chat_row`."""
    return table_schema({"messages": "messages"})


def label_rows(_number: int, item: Trajectory) -> Iterator[Row]:
    """Yield `input_ids` and `labels` of each stream: the tokens that the model saw, loss on those it drew."""
    for tokens, sampled in zip(stream_tokens(item), sampled_mask(item), strict=True):
        yield {"input_ids": tokens, "labels": np.where(sampled, tokens, IGNORED).astype(np.int32)}


def label_schema() -> object:
    """Return the schema of `label_rows`."""
    return table_schema({"input_ids": "ids", "labels": "ids"})


# -- TRL -----------------------------------------------------------------------------------------------------

_ABOUT: Final[Mapping[str, str]] = {
    "reward": "float64", "success": "bool", "group": "string", "task": "string", "id": "string",
    "step": "int64",
}  # fmt: skip


def rollout_rows(_number: int, item: Trajectory) -> Iterator[Row]:
    """Yield each stream as TRL's `rollout_func` returns it.

    The prompt is what stood before the first sampled token; `env_mask` is 1 on the completion's sampled
    tokens and 0 on what the world said, and `logprobs` is 0 there. `turn_rewards` stand at sampled turns.
    """
    streams = zip(stream_turns(item), stream_tokens(item), sampled_mask(item), strict=True)
    for turns, tokens, sampled in streams:
        begin = int(sampled.argmax()) if sampled.any() else len(tokens)
        logprobs = np.zeros(len(tokens), np.float32)
        drawn = [turn.logprobs for turn in turns if turn.logprobs is not None]
        if drawn:
            logprobs[sampled] = np.concatenate(drawn)
        yield {
            "prompt_ids": tokens[:begin],
            "completion_ids": tokens[begin:],
            "env_mask": sampled[begin:].astype(np.int32),
            "logprobs": logprobs[begin:],
            "turn_rewards": [turn.reward for turn in turns],
            **_about(item),
        }


def rollout_schema() -> object:
    """Return the schema of `rollout_rows`."""
    import pyarrow  # noqa: ICN001  # one use

    ids = {"prompt_ids": "ids", "completion_ids": "ids", "env_mask": "ids", "logprobs": "numbers"}
    return table_schema({**ids, "turn_rewards": pyarrow.list_(pyarrow.float64()), **_ABOUT})


def preference_row(_number: int, item: Trajectory) -> Iterator[Row]:
    """Yield `prompt` and `completion` as conversations, with reward columns; `label` is what KTO reads."""
    if item.turns:
        yield {
            "prompt": opening_of(item),
            "completion": reply_of(item),
            "label": item.success,
            **_about(item),
        }


def _about(item: Trajectory) -> Row:
    return {name: getattr(item, name) for name in _ABOUT}


# -- verl ----------------------------------------------------------------------------------------------------


def task_row(number: int, item: Trajectory) -> Iterator[Row]:
    """Yield a task as verl's data sets hold it; `ground_truth` is the gold answer where the world has one."""
    split, _, index = item.task.rpartition("/")
    yield {
        "prompt": opening_of(item),
        "data_source": item.environment,
        "ability": item.task_type or item.domain or "agent",
        "reward_model": {"style": "rule", "ground_truth": item.gold or ""},
        "extra_info": {
            "split": split,
            "index": int(index) if index.isdecimal() else number,
            "task": item.task,
            "seed": item.seed,
        },
    }


def task_schema() -> object:
    """Return the schema of `task_row`."""
    return table_schema(
        {
            "prompt": "messages",
            "data_source": "string",
            "ability": "string",
            "reward_model": struct_type({"style": "string", "ground_truth": "string"}),
            "extra_info": struct_type(
                {"split": "string", "index": "int64", "task": "string", "seed": "int64"}
            ),
        }
    )


def task_of(item: Trajectory) -> str:
    """Return what names a task: the environment, the task and the environment's seed."""
    return f"{item.environment}\n{item.task}\n{item.seed}"

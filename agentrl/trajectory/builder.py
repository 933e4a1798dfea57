"""A trajectory under construction, and the token streams of a finished one.

A stream is what the model saw: the concatenation of each turn's added prompt and sampled tokens. A turn with
`fresh=True` begins a new one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentrl.errors import BatchError, RolloutError, TemplateError
from agentrl.trajectory.turn import Trajectory, no_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentrl.trajectory.turn import IntArray, StopReason, Turn

BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(slots=True)
class TrajectoryBuilder:
    """A mutable trajectory: turns are added while the rollout goes on, `finish` freezes it. See `Trajectory`.

    >>> from agentrl.trajectory.turn import StopReason, Turn
    >>> builder = TrajectoryBuilder(id="a", environment="e", task="t", group="g")
    >>> prompt = np.array([1, 2], np.int32)
    >>> turn = Turn(prompt, np.array([3], np.int32), np.zeros(1, np.float32), "look", "a lamp", "look")
    >>> builder.add_turn(turn, prompt)
    >>> builder.stream_tokens(0).tolist(), builder.added(np.array([1, 2, 3, 4], np.int32)).tolist()
    ([1, 2, 3], [4])
    >>> builder.finish(StopReason.TERMINATED).reward
    0.0
    """

    id: str
    environment: str
    task: str
    group: str
    member: int = 0
    seed: int = 0
    step: int = 0
    domain: str = ""
    task_type: str = ""
    hint_level: int = 0
    policy: str = ""
    sandbox_tier: str = ""
    system: str = ""
    parent: str | None = None
    branch_turn: int | None = None
    _turns: list[Turn] = field(default_factory=list["Turn"], init=False)
    _finished: bool = field(default=False, init=False)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns so far."""
        return tuple(self._turns)

    def stream_tokens(self, stream: int = -1) -> IntArray:
        """Return the tokens of one stream so far, the current one by default; empty before the first turn.

        Raises:
            BatchError: the stream has a text-only turn.
        """
        streams = _streams(self._turns)
        return _stream(streams[stream], self.id) if streams else no_tokens()

    def added(self, prompt: IntArray) -> IntArray:
        """Return the tokens that a full prompt (P,) adds to the current stream.

        Raises:
            TemplateError: the prompt does not begin with the stream, so only a fresh turn can follow.
        """
        seen = self.stream_tokens()
        if len(prompt) >= len(seen) and np.array_equal(prompt[: len(seen)], seen):
            return prompt[len(seen) :]
        raise TemplateError(
            f"the prompt of turn {len(self._turns)} of trajectory {self.id!r} rewrites history: it "
            "departs from what "
            f"the model saw at token {_first_difference(prompt, seen)} of {len(seen)}. Add only new "
            "tokens, or begin a "
            "new stream with Turn(fresh=True)."
        )

    def add_turn(self, turn: Turn, prompt: IntArray | None = None) -> None:
        """Add a finished turn.

        Args:
            turn: holds the tokens that it adds to the stream.
            prompt: (P,) the full prompt that the policy was given; asserted to be the stream plus
                `turn.prompt_tokens`, or `turn.prompt_tokens` alone for a fresh turn.

        Raises:
            TemplateError: the prompt is not what the turn's tokens say.
            RolloutError: the trajectory is finished, or the turn's arrays do not fit together.
        """
        self._refuse_finished()
        where = f"turn {len(self._turns)} of trajectory {self.id!r}"
        _check_sizes(turn, where)
        if self._turns and not turn.fresh and (turn.tokens is None) != (self._turns[-1].tokens is None):
            raise RolloutError(
                f"{where} mixes text-only and token turns in one stream; begin a new stream with fresh=True."
            )
        if prompt is not None:
            expected = prompt if turn.fresh else self.added(prompt)
            if not np.array_equal(expected, turn.prompt_tokens):
                raise TemplateError(
                    f"{where} stores {len(turn.prompt_tokens)} prompt tokens that are not the "
                    f"{len(expected)} that its "
                    "prompt adds; store TrajectoryBuilder.added(prompt), never text tokenised again."
                )
        self._turns.append(turn)

    def finish(
        self,
        stop: StopReason,
        success: bool | None = None,
        *,
        final_observation: str = "",
        final_observation_key: int | None = None,
        final_state_key: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Trajectory:
        """Return the frozen trajectory. No more turns can be added; a second call is a `RolloutError`."""
        self._refuse_finished()
        self._finished = True
        return Trajectory(
            id=self.id,
            environment=self.environment,
            task=self.task,
            group=self.group,
            turns=self.turns,
            stop=stop,
            member=self.member,
            seed=self.seed,
            step=self.step,
            success=success,
            final_observation=final_observation,
            final_observation_key=final_observation_key,
            final_state_key=final_state_key,
            parent=self.parent,
            branch_turn=self.branch_turn,
            domain=self.domain,
            task_type=self.task_type,
            hint_level=self.hint_level,
            policy=self.policy,
            sandbox_tier=self.sandbox_tier,
            system=self.system,
            metrics=dict(metrics or {}),
        )

    @classmethod
    def branch(
        cls,
        source: Trajectory | TrajectoryBuilder,
        at_turn: int,
        *,
        id: str,  # noqa: A002  the field
        member: int,
    ) -> TrajectoryBuilder:
        """Return a builder that shares the first `at_turn` turns of `source` and leaves it there.

        Args:
            source: the parent, finished or still under construction.
            at_turn: number of shared turns; the branch's own first turn has this index.
            id: of the branch; `member`: its number within the group.

        Raises:
            RolloutError: the parent has fewer turns.
        """
        if not 0 <= at_turn <= len(source.turns):
            raise RolloutError(
                f"cannot branch {source.id!r} at turn {at_turn}: it has {len(source.turns)} turns; "
                f"give a turn from 0 to {len(source.turns)}."
            )
        shared = {name: getattr(source, name) for name in _SHARED}
        builder = cls(id=id, member=member, parent=source.id, branch_turn=at_turn, **shared)
        builder._turns = list(source.turns[:at_turn])
        return builder

    def _refuse_finished(self) -> None:
        if self._finished:
            raise RolloutError(
                f"trajectory {self.id!r} is finished; branch it to go on from one of its turns."
            )


_SHARED = (
    "environment", "task", "group", "seed", "step", "domain", "task_type", "hint_level", "policy",
    "sandbox_tier", "system",
)  # fmt: skip


def stream_tokens(trajectory: Trajectory) -> list[IntArray]:
    """Return the tokens of each stream, as the model saw them. Raises `BatchError` on text-only turns."""
    return [_stream(turns, trajectory.id) for turns in _streams(trajectory.turns)]


def sampled_mask(trajectory: Trajectory) -> list[BoolArray]:
    """Return for each stream which of its tokens the policy drew; shapes as of `stream_tokens`."""
    masks = ((turn.prompt_tokens, _ids(turn, trajectory.id)) for turn in trajectory.turns)
    parts = [np.repeat([False, True], [len(prompt), len(ids)]) for prompt, ids in masks]
    result: list[BoolArray] = []
    for turns in _streams(trajectory.turns):
        result.append(np.concatenate(parts[: len(turns)]))
        parts = parts[len(turns) :]
    return result


def stream_turns(trajectory: Trajectory) -> list[list[Turn]]:
    """Return the turns of each stream."""
    return _streams(trajectory.turns)


def _streams(turns: Sequence[Turn]) -> list[list[Turn]]:
    streams: list[list[Turn]] = []
    for turn in turns:
        if turn.fresh or not streams:
            streams.append([])
        streams[-1].append(turn)
    return streams


def _stream(turns: Iterable[Turn], owner: str) -> IntArray:
    parts = [part for turn in turns for part in (turn.prompt_tokens, _ids(turn, owner))]
    return np.concatenate([no_tokens(), *parts])


def _ids(turn: Turn, owner: str) -> IntArray:
    if turn.tokens is None:
        raise BatchError(
            f"trajectory {owner!r} has text-only turns, so there is no token stream; collect it with a "
            "policy that "
            "returns token ids."
        )
    return turn.tokens


def _first_difference(prompt: IntArray, seen: IntArray) -> int:
    size = min(len(prompt), len(seen))
    differs = np.flatnonzero(prompt[:size] != seen[:size])
    return int(differs[0]) if len(differs) else size


def _check_sizes(turn: Turn, where: str) -> None:
    if turn.tokens is None:
        return
    size = len(turn.tokens)
    sizes = {f"token measure {name!r}": len(values) for name, values in turn.token_measures.items()}
    if turn.logprobs is not None:
        sizes["logprobs"] = len(turn.logprobs)
    for name, length in sizes.items():
        if length != size:
            raise RolloutError(
                f"{where} sampled {size} tokens but {name} has {length} entries; give one per token."
            )
    for kind, start, end in (
        *((f"span {span.role!r}", span.start, span.end) for span in turn.spans),
        *((f"call of {call.name!r}", call.start, call.end) for call in turn.tool_calls),
    ):
        if not 0 <= start <= end <= size:
            raise RolloutError(
                f"{where}: {kind} runs from {start} to {end}, outside its {size} sampled tokens."
            )

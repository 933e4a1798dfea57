"""One trajectory: a world and a policy, turn by turn, with exact tokens and typed endings."""

from __future__ import annotations

import asyncio
import bisect
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from agentrl.errors import AgentrlError
from agentrl.policy.base import Message, Request, Sampling
from agentrl.rollout.stage import Stage, StageFailure
from agentrl.trajectory import Invalid, InvalidReason, Span, StopReason, Trajectory, Turn, TurnKind, digest, no_tokens

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from agentrl.policy.base import Policy, Sample
    from agentrl.rollout.assignment import Assignment
    from agentrl.rollout.limits import Limits
    from agentrl.trajectory import IntArray, ToolCall
    from agentrl.world.env import StepResult
    from agentrl.world.protocol import Parsed, Protocol

KIND_ORDER = (TurnKind.OK, TurnKind.TOOL_ERROR, TurnKind.PARSE_ERROR, TurnKind.TRUNCATED)


@dataclass(frozen=True, slots=True)
class Play:
    """How trajectories are played: who acts, how turns are written, drawn and bounded."""

    policy: Policy
    protocol: Protocol
    sampling: Sampling
    limits: Limits
    environment: str = ""


@dataclass
class Episode:
    """The state of one trajectory while it is being collected."""

    play: Play
    stage: Stage
    turns: list[Turn] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    tokens: int = 0
    closed: bool = True
    info: Mapping[str, object] = field(default_factory=dict)

    @property
    def assignment(self) -> Assignment:
        return self.stage.assignment

    async def run(self) -> Trajectory | Invalid:
        """Play to the end. Never raises for what the environment or the policy's infrastructure does."""
        try:
            seconds = self.play.limits.trajectory_seconds
            return await asyncio.wait_for(self._play(), seconds)
        except StageFailure as failure:
            return self._invalid(failure.reason, failure.detail)
        except TimeoutError:
            return self._invalid(InvalidReason.WALL_CLOCK, f"the trajectory took longer than {seconds:g} s")
        except AgentrlError:
            raise
        except (OSError, RuntimeError, ValueError, ConnectionError) as error:
            return self._invalid(InvalidReason.POLICY_ERROR, f"{type(error).__name__}: {error}")
        finally:
            self.play.policy.finish(self.assignment.id)

    async def _play(self) -> Trajectory | Invalid:
        observation = await self.stage.open()
        self._tell_system()
        while True:
            prompt = self._prompt(observation)
            stop = self._limit(prompt)
            if stop is not None:
                return self._finish(stop, observation)
            keys = self._keys()
            sample, seconds = await self._ask(observation, prompt)
            if sample.finish == "context" and (sample.tokens is None or not len(sample.tokens)):
                return self._finish(StopReason.CONTEXT, observation)
            if sample.finish == "invalid":
                return self._invalid(InvalidReason.POLICY_ERROR, "the model gave numbers that are not finite")
            before = observation
            observation, terminated, truncated = await self._act(sample, before, prompt, keys, seconds)
            if terminated or truncated:
                return self._finish(StopReason.TERMINATED if terminated else StopReason.TRUNCATED, observation)

    # -- asking ------------------------------------------------------------------------------------------

    def _tell_system(self) -> None:
        env = self.stage.env
        system = env.system_text() if env is not None else ""
        if system:
            self.messages.append(Message("system", system))

    def _prompt(self, observation: str) -> IntArray | None:
        self.messages.append(Message("user", observation))
        renderer = self.play.policy.renderer
        if renderer is None:
            return None
        if not self.turns:
            system = self.messages[0].content if self.messages[0].role == "system" else ""
            return renderer.begin(system, observation)
        return renderer.extend(observation, closed=self.closed)

    def _limit(self, prompt: IntArray | None) -> StopReason | None:
        limits = self.play.limits
        if len(self.turns) >= limits.turns:
            return StopReason.MAX_TURNS
        room = limits.trajectory_tokens
        if room is not None and prompt is not None and self.tokens + len(prompt) + 1 > room:
            return StopReason.MAX_TOKENS
        return None

    async def _ask(self, observation: str, prompt: IntArray | None) -> tuple[Sample, float]:
        env = self.stage.env
        request = Request(
            trajectory=self.assignment.id,
            stream=self.assignment.id,
            turn=len(self.turns),
            observation=observation,
            messages=tuple(self.messages),
            tokens=prompt,
            sampling=self._sampling(prompt),
            key=self.assignment.key(len(self.turns)),
            admissible=env.admissible if env is not None else Request.admissible,
        )
        begin = time.perf_counter()
        sample = await self.play.policy.generate(request)
        return sample, time.perf_counter() - begin

    def _sampling(self, prompt: IntArray | None) -> Sampling:
        limits, sampling = self.play.limits, self.play.sampling
        most = min(limits.turn_tokens, sampling.max_tokens)
        if limits.trajectory_tokens is not None and prompt is not None:
            most = min(most, limits.trajectory_tokens - self.tokens - len(prompt))
        stops = tuple(dict.fromkeys((*sampling.stop_strings, *self.play.protocol.stop_strings)))
        return Sampling(sampling.temperature, sampling.top_p, most, stops)

    # -- acting ------------------------------------------------------------------------------------------

    async def _act(
        self, sample: Sample, observation: str, prompt: IntArray | None, keys: Keys, seconds: float
    ) -> tuple[str, bool, bool]:
        parsed = self.play.protocol.parse(sample.text)
        begin = time.perf_counter()
        reply, reward, terminated, truncated, info = await self._step(parsed)
        self.info = info
        self.turns.append(
            Turn(
                prompt_tokens=prompt if prompt is not None else no_tokens(),
                tokens=sample.tokens,
                logprobs=sample.logprobs,
                observation=observation,
                text=sample.text,
                action=parsed.text,
                reward=float(reward),
                rewards=cast("Mapping[str, float]", info.get("rewards", {})),
                kind=_kind(sample, parsed, info),
                valid=bool(info.get("valid", parsed.error is None)),
                spoofed=parsed.spoofed,
                observation_key=keys[0],
                state_key=keys[1],
                tool_calls=cast("tuple[ToolCall, ...]", info.get("tool_calls", ())),
                spans=self._spans(sample, parsed),
                finish=sample.finish,
                policy_version=sample.version,
                generate_seconds=seconds,
                environment_seconds=time.perf_counter() - begin,
                measures=cast("Mapping[str, float]", info.get("measures", {})),
                token_measures=sample.token_measures,
            )
        )
        self.tokens += (len(prompt) if prompt is not None else 0) + (len(sample.tokens) if sample.tokens is not None else 0)
        self.closed = sample.finish == "stop"
        self.messages.append(Message("assistant", sample.text))
        return reply, terminated, truncated

    async def _step(self, parsed: Parsed) -> StepResult:
        if parsed.error is not None:
            return parsed.error, 0.0, False, False, {"turn_kind": TurnKind.PARSE_ERROR, "valid": False}
        return await self.stage.act(parsed.text)

    def _spans(self, sample: Sample, parsed: Parsed) -> tuple[Span, ...]:
        """The parser's character spans as spans of sampled tokens."""
        renderer = self.play.policy.renderer
        if renderer is None or sample.tokens is None or not parsed.spans:
            return ()
        ids = sample.tokens.tolist()
        ends = [len(renderer.decode(ids[: count + 1])) for count in range(len(ids))]
        return tuple(
            Span(span.role, bisect.bisect_right(ends, span.start), bisect.bisect_left(ends, span.end) + 1)
            for span in parsed.spans
        )

    def _keys(self) -> Keys:
        env = self.stage.env
        if env is None:
            return (None, None)
        return _digest(env.observation_key()), _digest(env.state_key())

    # -- ending ------------------------------------------------------------------------------------------

    def _finish(self, stop: StopReason, observation: str) -> Trajectory:
        keys, env = self._keys(), self.stage.env
        task = getattr(env, "task", None)
        success = self.info.get("success", None if stop is StopReason.TERMINATED else False)
        return Trajectory(
            id=self.assignment.id,
            environment=self.play.environment,
            task=self.assignment.task,
            group=self.assignment.group,
            turns=tuple(self.turns),
            stop=stop,
            member=self.assignment.member,
            seed=self.assignment.seed,
            step=self.assignment.step,
            success=None if success is None else bool(success),
            final_observation=observation,
            final_observation_key=keys[0],
            final_state_key=keys[1],
            domain=str(self.info.get("domain", "")),
            task_type=task.type if task is not None else "",
            policy=self.play.policy.name,
            metrics=cast("Mapping[str, float]", self.info.get("metrics", {})),
        )

    def _invalid(self, reason: InvalidReason, detail: str) -> Invalid:
        where = self.assignment
        return Invalid(
            reason=reason,
            detail=detail,
            environment=self.play.environment,
            task=where.task,
            group=where.group,
            member=where.member,
            step=where.step,
            turns_done=len(self.turns),
        )


Keys = tuple[int | None, int | None]


def _digest(key: Hashable | None) -> int | None:
    return None if key is None else digest(key)


def _kind(sample: Sample, parsed: Parsed, info: Mapping[str, object]) -> TurnKind:
    """The strongest of what the sample, the parser and the environment say."""
    said: Sequence[TurnKind] = (
        TurnKind.TRUNCATED if sample.finish in {"length", "context"} else TurnKind.OK,
        TurnKind.PARSE_ERROR if parsed.error is not None else TurnKind.OK,
        TurnKind(cast("str", info.get("turn_kind", TurnKind.OK))),
    )
    return max(said, key=KIND_ORDER.index)

"""One trajectory: a world and a policy, turn by turn, with exact tokens and typed endings."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from agentrl.errors import AgentrlError, ServerUnavailable
from agentrl.policy.base import Message, Request, Sampling
from agentrl.rollout.stage import Stage, StageFailure
from agentrl.rollout.text import TokenPlaces, cut_middle, rendered
from agentrl.trajectory import Invalid, InvalidReason, Span, StopReason, Trajectory, Turn, TurnKind, no_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl.policy.base import Policy, Sample
    from agentrl.rollout.assignment import Assignment
    from agentrl.rollout.limits import Limits
    from agentrl.rollout.stage import Keys
    from agentrl.rollout.text import Places
    from agentrl.trajectory import IntArray, ToolCall
    from agentrl.world.env import StepResult
    from agentrl.world.protocol import Parsed, Protocol
    from agentrl.world.terms import Terms

KIND_ORDER = (TurnKind.OK, TurnKind.TOOL_ERROR, TurnKind.PARSE_ERROR, TurnKind.TRUNCATED)


@dataclass(frozen=True, slots=True)
class Play:
    """How trajectories are played: who acts, how turns are written, drawn and bounded, what tools cost."""

    policy: Policy
    protocol: Protocol
    sampling: Sampling
    limits: Limits
    environment: str = ""
    terms: Mapping[str, Terms] = field(default_factory=dict[str, "Terms"])


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
    gold: str | None = None

    @property
    def assignment(self) -> Assignment:
        """What is being played."""
        return self.stage.assignment

    async def run(self) -> Trajectory | Invalid:
        """Play to the end. Never raises for what the environment or the policy's infrastructure does."""
        seconds = self.play.limits.trajectory_seconds
        clock = asyncio.timeout(seconds)
        try:
            async with clock:
                return await self._play()
        except StageFailure as failure:
            return self._invalid(failure.reason, failure.detail)
        except ServerUnavailable as error:
            return self._invalid(InvalidReason.POLICY_ERROR, str(error))
        except AgentrlError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            if isinstance(error, TimeoutError) and clock.expired():
                return self._invalid(InvalidReason.WALL_CLOCK, f"the trajectory took longer than {seconds} s")
            return self._invalid(InvalidReason.POLICY_ERROR, f"{type(error).__name__}: {error}")
        finally:
            self.play.policy.finish(self.assignment.id)

    async def _play(self) -> Trajectory | Invalid:
        observation = self._cut(await self.stage.open())
        self.gold = self.stage.gold()
        self._tell_system()
        while True:
            prompt = self._prompt(observation)
            stop = self._limit(prompt)
            if stop is not None:
                return self._finish(stop, observation)
            keys = self.stage.keys()
            sample, seconds = await self._ask(observation, prompt)
            problem = _problem(sample)
            if problem is not None:
                return self._invalid(InvalidReason.POLICY_ERROR, problem)
            if sample.finish == "context" and (sample.tokens is None or not len(sample.tokens)):
                return self._finish(StopReason.CONTEXT, observation)
            before = observation
            observation, terminated, truncated = await self._act(sample, before, prompt, keys, seconds)
            if terminated or truncated:
                return self._finish(
                    StopReason.TERMINATED if terminated else StopReason.TRUNCATED, observation
                )

    # -- asking ------------------------------------------------------------------------------------------

    def _tell_system(self) -> None:
        system = self.stage.system_text()
        if system:
            self.messages.append(Message("system", system))

    def _shown(self, observation: str, info: Mapping[str, object]) -> str:
        """The observation as the protocol writes it; what is too long is cut inside of the markup."""
        results = cast("tuple[str, ...]", info.get("results", ()))
        return rendered(self.stage.protocol, observation, results, cut=self._cut)

    def _cut(self, text: str, shares: int = 1) -> str:
        limit, renderer = self.play.limits.observation_tokens, self.play.policy.renderer
        if limit is None or renderer is None:
            return text
        return cut_middle(text, max(limit // shares, 1), renderer)

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
        request = Request(
            trajectory=self.assignment.id,
            stream=self.assignment.id,
            turn=len(self.turns),
            observation=observation,
            messages=tuple(self.messages),
            tokens=prompt,
            sampling=self._sampling(prompt),
            key=self.assignment.key(len(self.turns)),
            tools=self.stage.schemas(),
            admissible=self.stage.admissible,
        )
        begin = time.perf_counter()
        seconds = self.play.limits.step_seconds
        clock = asyncio.timeout(seconds)
        try:
            async with clock:
                sample = await self.play.policy.generate(request)
        except TimeoutError as error:
            if not clock.expired():
                raise
            raise StageFailure(
                InvalidReason.WALL_CLOCK, f"a turn of the policy took longer than {seconds:g} s"
            ) from error
        return sample, time.perf_counter() - begin

    def _sampling(self, prompt: IntArray | None) -> Sampling:
        limits, sampling = self.play.limits, self.play.sampling
        most = min(limits.turn_tokens, sampling.max_tokens)
        if limits.trajectory_tokens is not None and prompt is not None:
            most = min(most, limits.trajectory_tokens - self.tokens - len(prompt))
        stops = tuple(dict.fromkeys((*sampling.stop_strings, *self.stage.protocol.stop_strings)))
        return Sampling(sampling.temperature, sampling.top_p, most, stops)

    # -- acting ------------------------------------------------------------------------------------------

    async def _act(
        self, sample: Sample, observation: str, prompt: IntArray | None, keys: Keys, seconds: float
    ) -> tuple[str, bool, bool]:
        parsed = self.stage.protocol.parse(sample.text)
        begin = time.perf_counter()
        reply, reward, terminated, truncated, info = await self._step(parsed)
        spent = time.perf_counter() - begin
        self.info = info
        places = self._places(sample)
        self.turns.append(
            Turn(
                prompt_tokens=prompt if prompt is not None else no_tokens(),
                tokens=sample.tokens,
                logprobs=sample.logprobs,
                observation=observation,
                text=sample.text,
                action=parsed.text,
                reward=reward,
                rewards=cast("Mapping[str, float]", info.get("rewards", {})),
                kind=_kind(sample, parsed, info),
                valid=bool(info.get("valid", parsed.error is None)),
                spoofed=parsed.spoofed,
                observation_key=keys[0],
                state_key=keys[1],
                tool_calls=_placed(cast("tuple[ToolCall, ...]", info.get("tool_calls", ())), parsed, places),
                spans=tuple(Span(span.role, *places(span.start, span.end)) for span in parsed.spans),
                finish=sample.finish,
                policy_version=sample.version,
                generate_seconds=seconds,
                environment_seconds=spent,
                measures={**cast("Mapping[str, float]", info.get("measures", {})), **sample.measures},
                token_measures=sample.token_measures,
            )
        )
        self.tokens += (len(prompt) if prompt is not None else 0) + (
            len(sample.tokens) if sample.tokens is not None else 0
        )
        self.closed = self._ends_itself(sample)
        self.messages.append(Message("assistant", sample.text))
        return self._shown(reply, info), terminated, truncated

    def _ends_itself(self, sample: Sample) -> bool:
        """Whether the turn's last token closes it; one ended by a limit or a stop string lacks that token."""
        renderer = self.play.policy.renderer
        if renderer is None or sample.tokens is None:
            return sample.finish == "stop"
        return len(sample.tokens) > 0 and int(sample.tokens[-1]) in renderer.stop_tokens

    async def _step(self, parsed: Parsed) -> StepResult:
        if parsed.error is not None:
            return parsed.error, 0.0, False, False, {"turn_kind": TurnKind.PARSE_ERROR, "valid": False}
        return await self.stage.act(len(self.turns), parsed.text)

    def _places(self, sample: Sample) -> Places:
        """What turns characters [start, end) of the turn's text into sampled tokens [start, end)."""
        renderer = self.play.policy.renderer
        if renderer is None or sample.tokens is None:
            return lambda _, __: (0, 0)
        return TokenPlaces(sample.text, sample.tokens.tolist(), renderer)

    # -- ending ------------------------------------------------------------------------------------------

    def _finish(self, stop: StopReason, observation: str) -> Trajectory:
        keys, env = self.stage.keys(), self.stage.env
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
            task_type=str(self.info.get("task_type", task.type if task is not None else "")),
            policy=self.play.policy.name,
            metrics=cast("Mapping[str, float]", self.info.get("metrics", {})),
            gold=self.gold,
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


def _placed(calls: tuple[ToolCall, ...], parsed: Parsed, places: Places) -> tuple[ToolCall, ...]:
    """Tool calls with the tokens that wrote them; the toolbox runs what the parser read, in order."""
    written = [(call.start, call.end) for call in parsed.calls]
    written += [(span.start, span.end) for span in parsed.spans if span.role == "answer"]
    found = [places(*characters) for characters in written[: len(calls)]]
    placed = [replace(call, start=start, end=end) for call, (start, end) in zip(calls, found, strict=False)]
    return (*placed, *calls[len(found) :])


def _problem(sample: Sample) -> str | None:
    """What makes a sample unusable, as a sentence, or None."""
    if sample.finish == "invalid":
        return "the model gave numbers that are not finite"
    if sample.tokens is None:
        return None
    if sample.logprobs is None or len(sample.logprobs) != len(sample.tokens):
        return "the policy gave tokens without one log-probability for each"
    if not np.isfinite(sample.logprobs).all():
        return "the policy gave a log-probability that is not finite"
    return None


def _kind(sample: Sample, parsed: Parsed, info: Mapping[str, object]) -> TurnKind:
    """The strongest of what the sample, the parser and the environment say."""
    said: Sequence[TurnKind] = (
        TurnKind.TRUNCATED if sample.finish in {"length", "context"} else TurnKind.OK,
        TurnKind.PARSE_ERROR if parsed.error is not None else TurnKind.OK,
        TurnKind(cast("str", info.get("turn_kind", TurnKind.OK))),
    )
    return max(said, key=KIND_ORDER.index)

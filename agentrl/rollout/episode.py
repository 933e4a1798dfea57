"""One trajectory: a world and a policy, turn by turn, with exact tokens and typed endings."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from agentrl.errors import AgentrlError, ServerUnavailable
from agentrl.policy.base import Request, Sample, Sampling
from agentrl.rollout.context import EXPERT, Context
from agentrl.rollout.deadline import Patience
from agentrl.rollout.memory import whole_history
from agentrl.rollout.stage import Stage, StageFailure
from agentrl.rollout.text import TokenPlaces, cut_middle, rendered
from agentrl.trajectory import Invalid, InvalidReason, Span, StopReason, Trajectory, Turn, TurnKind, no_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl.policy.base import Policy
    from agentrl.rollout.assignment import Assignment
    from agentrl.rollout.branch import Brancher, Origin
    from agentrl.rollout.context import Prompt
    from agentrl.rollout.limits import Limits
    from agentrl.rollout.memory import Memory
    from agentrl.rollout.stage import Keys
    from agentrl.rollout.text import Places
    from agentrl.trajectory import ToolCall
    from agentrl.world.env import StepResult
    from agentrl.world.protocol import Parsed, Protocol
    from agentrl.world.terms import Terms

CUT = frozenset({"length", "context"})
"""How a sample ends that a limit cut off."""


@dataclass(frozen=True, slots=True)
class Play:
    """How trajectories are played: who acts, how turns are written, drawn and bounded, what tools cost."""

    policy: Policy
    protocol: Protocol
    sampling: Sampling
    limits: Limits
    environment: str = ""
    terms: Mapping[str, Terms] = field(default_factory=dict[str, "Terms"])
    memory: Memory = whole_history
    brancher: Brancher | None = None


@dataclass
class Episode:
    """The state of one trajectory while it is being collected.

    Attributes:
        id: of the trajectory.
        origin: where a branch leaves its parent; `hints`: what the expert writes in the first turns.
    """

    play: Play
    stage: Stage
    origin: Origin | None = None
    turns: list[Turn] = field(default_factory=list)
    hints: Sequence[str] = ()
    info: Mapping[str, object] = field(default_factory=dict)
    gold: str | None = None
    usual: Sampling | None = None
    id: str = field(init=False)
    context: Context = field(init=False)
    patience: Patience = field(init=False)

    def __post_init__(self) -> None:
        self.id = self.assignment.id
        self.context = Context(self.play.policy.renderer, self.play.memory)

    @property
    def assignment(self) -> Assignment:
        """What is being played."""
        return self.stage.assignment

    async def run(self) -> Trajectory | Invalid:
        """Play to the end. Never raises for what the environment or the policy's infrastructure does."""
        clock = asyncio.timeout(self.play.limits.trajectory_seconds)
        self.patience = Patience(clock, self.play.limits.step_seconds)
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
                return self._invalid(InvalidReason.WALL_CLOCK, self._late())
            return self._invalid(InvalidReason.POLICY_ERROR, f"{type(error).__name__}: {error}")
        finally:
            self.patience.close()
            self.play.policy.finish(self.id)

    async def _play(self) -> Trajectory | Invalid:
        observation = await self._begin()
        self.gold = self.stage.gold()
        while True:
            prompt = self.context.ask(observation)
            stop = self._limit(prompt)
            if stop is not None:
                return self._finish(stop, observation)
            keys = self.stage.keys()
            if self.play.brancher is not None:
                await self.stage.mark(len(self.turns))
            if len(self.turns) < len(self.hints):
                sample, seconds = self._hinted(), 0.0
            else:
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

    async def _begin(self) -> str:
        """The first observation that the policy is to answer."""
        origin = self.origin
        if origin is None:
            if self.assignment.hint > 0:
                texts = await self.stage.expert_texts(self.play.limits.turns)
                self.hints = texts[: min(int(self.assignment.hint * len(texts)), len(texts) - 1)]
            observation = self._cut(await self.stage.open())
            self.context.tell(self.stage.system_text(), self.stage.schemas())
            return observation
        await self.stage.resume(origin.course, origin.turn)
        self.context.tell(self.stage.system_text(), self.stage.schemas())
        for turn in origin.parent.turns[: origin.turn]:
            self.context.take_over(turn)
            self.turns.append(turn)
        return origin.parent.turns[origin.turn].observation

    def _hinted(self) -> Sample:
        """The expert's turn; nothing of it is sampled."""
        text = self.hints[len(self.turns)]
        if self.play.policy.renderer is None:
            return Sample(text)
        return Sample(text, no_tokens(), np.zeros(0, np.float32))

    # -- asking ------------------------------------------------------------------------------------------

    def _shown(self, observation: str, info: Mapping[str, object]) -> str:
        """The observation as the protocol writes it; what is too long is cut inside of the markup."""
        results = cast("tuple[str, ...]", info.get("results", ()))
        cut = None if self.play.limits.observation_tokens is None else self._cut
        return rendered(self.stage.protocol, observation, results, cut=cut)

    def _cut(self, text: str, shares: int = 1) -> str:
        limit, renderer = self.play.limits.observation_tokens, self.play.policy.renderer
        if limit is None or renderer is None:
            return text
        return cut_middle(text, max(limit // shares, 1), renderer)

    def _limit(self, prompt: Prompt) -> StopReason | None:
        if len(self.turns) >= self.play.limits.turns:
            return StopReason.MAX_TURNS
        if repeats(self.turns, self.play.limits.repeats):
            return StopReason.REPEATED
        room = self._room(prompt)
        return StopReason.MAX_TOKENS if room is not None and room < 1 else None

    def _room(self, prompt: Prompt) -> int | None:
        """Tokens that the stream may still sample, None where nothing bounds it."""
        most = self.play.limits.trajectory_tokens
        if most is None or prompt.tokens is None:
            return None
        return most - len(prompt.tokens) - (0 if prompt.fresh else self.context.size)

    async def _ask(self, observation: str, prompt: Prompt) -> tuple[Sample, float]:
        begun = len(self.turns) if prompt.fresh else self.context.begun
        tokens = self.context.unseen(prompt)
        begins = self.origin is not None and len(self.turns) == self.origin.turn
        request = Request(
            trajectory=self.id,
            stream=f"{self.id}#{begun}" if begun else self.id,
            turn=len(self.turns),
            observation=observation,
            messages=tuple(self.context.messages),
            tokens=tokens,
            sampling=self._sampling(prompt),
            key=self.assignment.key(len(self.turns)),
            tools=self.context.schemas,
            admissible=self.stage.admissible,
            expert=self.stage.expert,
            inherited=0 if tokens is None or not begins else len(tokens),
        )
        begin = time.perf_counter()
        with self.patience:
            sample = await self.play.policy.generate(request)
        if self.patience.late:  # a policy that goes on although it is cancelled
            raise StageFailure(InvalidReason.WALL_CLOCK, self._late())
        return sample, time.perf_counter() - begin

    def _sampling(self, prompt: Prompt) -> Sampling:
        room = self._room(prompt)
        if self.usual is None:
            sampling = self.play.sampling
            most = min(self.play.limits.turn_tokens, sampling.max_tokens)
            stops = tuple(dict.fromkeys((*sampling.stop_strings, *self.stage.protocol.stop_strings)))
            self.usual = replace(sampling, max_tokens=most, stop_strings=stops)
        if room is None:
            return self.usual
        return replace(self.usual, max_tokens=min(self.usual.max_tokens, room))

    # -- acting ------------------------------------------------------------------------------------------

    async def _act(
        self, sample: Sample, observation: str, prompt: Prompt, keys: Keys, seconds: float
    ) -> tuple[str, bool, bool]:
        parsed = self.stage.protocol.parse(sample.text)
        begin = time.perf_counter()
        reply, reward, terminated, truncated, info = await self._step(sample.text, parsed)
        spent = time.perf_counter() - begin
        self.info = info
        places = self._places(sample)
        hinted = len(self.turns) < len(self.hints)
        if hinted:
            added = self.context.told(prompt, sample.text)
        else:
            added = prompt.added
            self.context.answer(prompt, sample.text, sample.tokens)
        self.turns.append(
            Turn(
                prompt_tokens=added,
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
                fresh=prompt.fresh,
                observation_key=keys[0],
                state_key=keys[1],
                tool_calls=_placed(cast("tuple[ToolCall, ...]", info.get("tool_calls", ())), parsed, places),
                spans=() if hinted else _spans(parsed, places),
                role=EXPERT if hinted else "agent",
                finish=sample.finish,
                policy_version=sample.version,
                generate_seconds=seconds,
                environment_seconds=spent,
                measures={**cast("Mapping[str, float]", info.get("measures", {})), **sample.measures},
                token_measures=sample.token_measures,
            )
        )
        return self._shown(reply, info), terminated, truncated

    async def _step(self, text: str, parsed: Parsed) -> StepResult:
        if parsed.error is not None:
            return parsed.error, 0.0, False, False, {"turn_kind": TurnKind.PARSE_ERROR, "valid": False}
        return await self.stage.act(len(self.turns), parsed.text, parsed if parsed.text == text else None)

    def _places(self, sample: Sample) -> Places | None:
        """From characters of the turn's text to sampled tokens, None where there are no tokens."""
        renderer = self.play.policy.renderer
        if renderer is None or sample.tokens is None:
            return None
        return TokenPlaces(sample.text, sample.tokens.tolist(), renderer)

    # -- ending ------------------------------------------------------------------------------------------

    def _finish(self, stop: StopReason, observation: str) -> Trajectory:
        keys, env = self.stage.keys(), self.stage.env
        task = getattr(env, "task", None)
        success = self.info.get("success", None if stop is StopReason.TERMINATED else False)
        return Trajectory(
            id=self.id,
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
            parent=self.origin.parent.id if self.origin is not None else None,
            branch_turn=self.origin.turn if self.origin is not None else None,
            hint_level=self.origin.parent.hint_level if self.origin is not None else len(self.hints),
            domain=str(self.info.get("domain", "")),
            task_type=str(self.info.get("task_type", task.type if task is not None else "")),
            policy=self.play.policy.name,
            sandbox_tier=str(self.info.get("sandbox_tier", "")),
            metrics=cast("Mapping[str, float]", self.info.get("metrics", {})),
            gold=self.gold,
            system=self.context.system,
        )

    def _late(self) -> str:
        """Which of the two clocks ended the trajectory, as a sentence."""
        limits = self.play.limits
        if self.patience.late:
            return f"a turn of the policy took longer than {limits.step_seconds:g} s"
        return f"the trajectory took longer than {limits.trajectory_seconds} s"

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


def repeats(turns: Sequence[Turn], most: int | None) -> bool:
    """Whether the last `most` turns said the same of the same observation."""
    if most is None or len(turns) < most:
        return False
    return len({(turn.observation, turn.text) for turn in turns[-most:]}) == 1


def _spans(parsed: Parsed, places: Places | None) -> tuple[Span, ...]:
    if places is None or not parsed.spans:
        return ()
    return tuple([Span(span.role, *places(span.start, span.end)) for span in parsed.spans])


def _placed(calls: tuple[ToolCall, ...], parsed: Parsed, places: Places | None) -> tuple[ToolCall, ...]:
    """Tool calls with the tokens that wrote them; the toolbox runs what the parser read, in order."""
    if places is None or not calls:
        return calls
    written = [(call.start, call.end) for call in parsed.calls]
    written += [(span.start, span.end) for span in parsed.spans if span.role == "answer"]
    found = [places(*characters) for characters in written[: len(calls)]]
    placed = [
        call if place == (call.start, call.end) else replace(call, start=place[0], end=place[1])
        for call, place in zip(calls, found, strict=False)
    ]
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
    if sample.finish in CUT:
        return TurnKind.TRUNCATED
    return (
        TurnKind.PARSE_ERROR
        if parsed.error is not None
        else cast("TurnKind", info.get("turn_kind", TurnKind.OK))
    )

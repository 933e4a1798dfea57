"""A crew on the processes of torchrun: shards are dealt to them, and FSDP2 spreads the learner over them.

What a shard computes depends on its number and not on the process it lives in, so rollouts are those of one
process bit for bit while weights are, and gradients equal up to the order of additions.
"""

from __future__ import annotations

import signal
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from agentrl.errors import AgentrlError
from agentrl.run.crew import Crew, Recipe, Shards, revived
from agentrl.run.jobs import PolicyShare, SupervisedShare
from agentrl.run.shard import cpu_seconds
from agentrl.run.signals import stopping_by
from agentrl.run.torchrun import End, Failure, join

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from transformers import PreTrainedModel

    from agentrl.learn.learner import Learns
    from agentrl.learn.optimizer import Optimizer
    from agentrl.learn.sharded import ShardedLearner
    from agentrl.policy.render import Renderer
    from agentrl.run.crew import Job, Result_co
    from agentrl.run.settings import TrainSettings
    from agentrl.run.torchrun import Ranks

Errors = tuple[type[Exception], ...]


def crew_of(
    recipe: Recipe,
    model: PreTrainedModel,
    renderer: Renderer,
    settings: TrainSettings,
    ranks: Ranks | None = None,
) -> Crew:
    """Return the crew of a run: on helper processes, or on those of torchrun."""
    if ranks is None:
        return Crew(recipe, model, renderer, settings.shards, settings.processes)
    return RankCrew(recipe, model, renderer, settings.shards, ranks=ranks)


class Command(Protocol):
    """What the leader tells a process to do; picklable."""

    @property
    def harmless(self) -> Errors:
        """Errors after which the processes are still in step: no other waits for this one within the work."""
        ...

    def __call__(self, member: Member) -> object:
        """Do it."""
        ...


@dataclass
class Member:
    """What a process of torchrun holds: its shards, and its part of the learner."""

    shards: Shards | None = None
    learner: ShardedLearner | None = None

    def model(self) -> PreTrainedModel:
        """The whole model of this process."""
        model = self.shards.model() if self.shards else None
        if model is None:
            raise RuntimeError("this process has no model")  # a defect of the leader
        return model

    def part(self) -> ShardedLearner:
        """Its part of the learner."""
        if self.learner is None:
            raise RuntimeError("no phase has begun")  # a defect of the leader
        return self.learner

    def close(self) -> None:
        """Close the environments."""
        if self.shards is not None:
            self.shards.close()


@dataclass(frozen=True)
class Enlist:
    """Get ready to build shards."""

    recipe: Recipe
    harmless: Errors = (Exception,)

    def __call__(self, member: Member) -> None:
        """Keep the recipe; the leader has its shards already."""
        if member.shards is None:
            member.shards = Shards(self.recipe)


@dataclass(frozen=True, eq=False)
class Work:
    """Do jobs, each on the shard of its number. Gradients are taken together."""

    jobs: Sequence[tuple[int, Job[object]]]

    @property
    def harmless(self) -> Errors:
        """None where gradients are taken, for the other processes wait within."""
        together = any(isinstance(job, PolicyShare | SupervisedShare) for _, job in self.jobs)
        return () if together else (Exception,)

    def __call__(self, member: Member) -> list[object]:
        """Return the results."""
        if member.shards is None:
            raise RuntimeError("this process was not enlisted")  # a defect of the leader
        shards = member.shards
        return [job(shards[number]) for number, job in self.jobs]


@dataclass(frozen=True)
class Load:
    """Take the leader's weights."""

    harmless: Errors = ()

    def __call__(self, member: Member) -> None:
        """Receive them, or send them."""
        import torch.distributed as dist

        for parameter in member.model().parameters():
            dist.broadcast(parameter.data, src=0)


@dataclass(frozen=True)
class Begin:
    """Begin a phase: the leader's weights in parts, and a fresh optimizer."""

    optimizer: Optimizer
    most_skipped: int
    harmless: Errors = (AgentrlError,)

    def __call__(self, member: Member) -> None:
        """Make this process's part of the learner."""
        from agentrl.learn.sharded import ShardedLearner

        Load()(member)
        member.learner = ShardedLearner.of(member.model(), self.optimizer, self.most_skipped)
        if member.shards is not None:
            member.shards.read_by(member.learner.reader)


@dataclass(frozen=True)
class Step:
    """Take an optimizer step with the gradients that the parts hold."""

    progress: float
    harmless: Errors = (AgentrlError,)

    def __call__(self, member: Member) -> dict[str, float]:
        """Return its figures."""
        part = member.part()
        return part.step(part.reader.gradient(), self.progress)


@dataclass(frozen=True)
class Gather:
    """Gather what a checkpoint needs."""

    harmless: Errors = ()

    def __call__(self, member: Member) -> dict[str, object] | None:
        """Return it; only the leader's answer is of use, and the others send none."""
        state = member.part().state()
        return state if _leads() else None


@dataclass(frozen=True, eq=False)
class Restore:
    """Continue from a checkpoint's state."""

    state: dict[str, object]
    harmless: Errors = (AgentrlError,)

    def __call__(self, member: Member) -> None:
        """Take this process's parts of it."""
        member.part().restore(self.state)


def _leads() -> bool:
    import torch.distributed as dist

    return dist.get_rank() == 0


@dataclass(frozen=True)
class Answer:
    """What a command returned or why it failed, and the process's CPU-seconds so far."""

    result: object
    failure: Failure | None = None
    seconds: float = field(default_factory=cpu_seconds)


@dataclass
class RankCrew(Crew):
    """The leader's crew.

    Args:
        ranks: take the place of `processes`; `shards` is a multiple of their number.
    """

    ranks: Ranks = field(kw_only=True)
    _member: Member = field(init=False, repr=False)
    _elsewhere: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        self._own = Shards(self.recipe, self.model, self.renderer)
        self._helpers = []
        self.processes = self.ranks.size
        self._member = Member(self._own)
        self.everywhere(Enlist(self.recipe))

    def learner(self, model: PreTrainedModel, optimizer: Optimizer, most_skipped: int = 20) -> Learns:
        """Put the model into parts on all processes."""
        del model  # it is that of the member
        self.everywhere(Begin(optimizer, most_skipped))
        return RankLearner(self)

    def run(self, jobs: Sequence[Job[Result_co]], weights: torch.Tensor | None = None) -> list[Result_co]:
        """Do job k on shard k, and return the results in that order; see `Crew.run`.

        Raises:
            RolloutError: a process ended or was silent too long.
        """
        if weights is not None:
            self.everywhere(Load())
        shares = self._shares(len(jobs))
        results = self._all([Work([(number, jobs[number]) for number in share]) for share in shares])
        done: dict[int, object] = {}
        for share, result in zip(shares, results, strict=True):
            done.update(zip(share, cast("list[object]", result), strict=True))
        return cast("list[Result_co]", [done[number] for number in range(len(jobs))])

    def everywhere(self, command: Command) -> object:
        """Do the same on all processes and return this one's result."""
        return self._all([command] * self.ranks.size)[0]

    def _all(self, commands: Sequence[Command]) -> list[object]:
        self.ranks.tell(commands)
        failed: Exception | None = None
        own: object = None
        with self.ranks.connected():
            try:
                own = commands[0](self._member)
            except commands[0].harmless as error:
                failed = error
        answers = cast("list[Answer]", self.ranks.hear(Answer(None)))
        if failed is not None:
            raise failed
        for answer in answers:
            if answer.failure is not None:
                raise revived(answer.failure.kind, answer.failure.message)
        self._elsewhere = sum(answer.seconds for answer in answers[1:])
        return [own, *(answer.result for answer in answers[1:])]

    @property
    def cpu_seconds(self) -> float:
        """CPU-seconds of all processes, those of the others as of their last answers."""
        return cpu_seconds() + self._elsewhere


@dataclass(frozen=True)
class RankLearner:
    """The learner on all processes, as the leader sees it."""

    crew: RankCrew

    def step(self, gradient: torch.Tensor, progress: float) -> dict[str, float]:
        """Take one optimizer step everywhere with the gradients that the processes hold.

        Args:
            gradient: (0,) and unused.
        """
        del gradient
        return cast("dict[str, float]", self.crew.everywhere(Step(progress)))

    def weights(self) -> None:
        """None: every process has them."""

    def state(self) -> dict[str, object]:
        """Return what a checkpoint needs besides the weights, as one process writes it."""
        return cast("dict[str, object]", self.crew.everywhere(Gather()))

    def restore(self, state: dict[str, object]) -> None:
        """Continue from `state`, of one process or of many."""
        self.crew.everywhere(Restore(state))


def follow() -> End:
    """Do what the leader says until it ends the run; return how it did.

    Raises:
        RolloutError: the leader or another process ended, or was silent too long.
    """
    ranks, member = join(), Member()
    with stopping_by(signal.SIG_IGN):  # the leader ends its step and then dismisses its followers
        try:
            while not isinstance(heard := ranks.listen(), End):
                with ranks.connected():
                    answer = _answer(cast("Command", heard), member, ranks.rank)
                ranks.answer(answer)
        finally:
            member.close()
    return heard


def _answer(command: Command, member: Member, rank: int) -> Answer:
    try:
        return Answer(command(member))
    except command.harmless as error:
        if isinstance(error, AgentrlError):
            return Answer(None, Failure(type(error), str(error)))
        said = f"in process {rank} of torchrun:\n{traceback.format_exc()}"
        return Answer(None, Failure(RuntimeError, said))

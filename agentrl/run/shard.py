"""One share of the work: a model, a policy on it, and environments. A process holds one or more shards.

What a shard computes depends on the shard's number and never on the process it lives in, so a run on two
processes equals the same run on one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from agentrl.errors import ConfigError, did_you_mean
from agentrl.policy.base import Sampling
from agentrl.policy.expert import ExpertPolicy
from agentrl.policy.native import native_protocol
from agentrl.policy.scripted import RandomPolicy
from agentrl.rollout import Limits, Play, Stock, collect
from agentrl.rollout.easy import default_protocol
from agentrl.rollout.memory import whole_history
from agentrl.world.env import TextEnv
from agentrl.world.protocol import Fenced, JsonCalls, NativeCalls, PlainText, Tags
from agentrl.world.registry import make
from agentrl.world.terms import check_terms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from agentrl.learn.algorithm import Algorithm, Credit
    from agentrl.learn.belief import Answers
    from agentrl.learn.forward import Index
    from agentrl.learn.gradient import PolicyGradient, Reader, SupervisedGradient
    from agentrl.learn.probes import Measured
    from agentrl.learn.supervised import Example
    from agentrl.learn.value import ValueModel
    from agentrl.policy.base import Policy
    from agentrl.policy.hf import HfPolicy
    from agentrl.policy.render import Renderer
    from agentrl.rollout import Assignment
    from agentrl.rollout.branch import Brancher
    from agentrl.rollout.memory import Memory
    from agentrl.run.settings import EnvironmentSettings, LimitSettings, ModelSettings
    from agentrl.trajectory import Invalid, Trajectory
    from agentrl.trajectory.batch import Batch
    from agentrl.world.protocol import Protocol
    from agentrl.world.registry import AnyEnv
    from agentrl.world.terms import Terms

Actor = Literal["model", "random", "expert"]


@dataclass(frozen=True, slots=True)
class Task:
    """A share of a collection: who plays which assignments, and how.

    `turns` and `repeats` bound trajectories below the limits of the run; with a `brancher` groups grow as
    trees.
    """

    assignments: tuple[Assignment, ...]
    actor: Actor
    temperature: float
    top_p: float
    turns: int | None = None
    brancher: Brancher | None = None
    repeats: int | None = None


class Shard:
    """The work of one shard.

    Args:
        environment, limits: the world and its bounds.
        model: the policy's model, shared with other shards of this process; None for scripted players only.
        memory: what of its past the model is shown.

    Attributes:
        reader: whom gradients are taken through, by default the model.
    """

    def __init__(
        self,
        environment: EnvironmentSettings,
        limits: LimitSettings,
        model: PreTrainedModel | None,
        renderer: Renderer | None,
        shape: ModelSettings,
        memory: Memory = whole_history,
    ) -> None:
        self.environment = environment
        self.memory = memory
        self.limits = Limits(
            **limits.model_dump(), trajectory_tokens=shape.context if model is not None else None
        )
        self.stock = Stock(lambda: make(environment.id, **environment.kwargs))
        self.model = model
        self.reader: Reader | None = None
        self._reference: tuple[Path, PreTrainedModel] | None = None
        self._critic: ValueModel | None = None
        self.policy: HfPolicy | None = None
        if model is not None and renderer is not None:
            from agentrl.policy.hf import HfPolicy  # torch: scripted players do without

            self.policy = HfPolicy(model, renderer, slots=shape.slots, context=shape.context)
        self.concurrency = shape.slots
        env = self.stock.look()
        self.protocol, self.terms = protocol_of(environment, env, renderer), terms_of(environment, env)

    @property
    def schemas(self) -> tuple[Mapping[str, object], ...]:
        """Of the world's tools, where a chat template lists them."""
        env = self.stock.look()
        return self.protocol.schemas(env.toolbox.tools) if isinstance(env, TextEnv) else ()

    def collect(self, task: Task) -> list[Trajectory | Invalid]:
        """Play a share of a collection with the current weights."""
        policy = self._policy(task.actor)
        play = Play(
            policy=policy,
            protocol=self.protocol,
            sampling=Sampling(
                temperature=task.temperature,
                top_p=task.top_p,
                max_tokens=self.limits.turn_tokens,
                entropy=task.brancher is not None,
            ),
            limits=self._limits(task),
            environment=self.environment.id,
            memory=self.memory if task.actor == "model" else whole_history,
            brancher=task.brancher,
            terms=self.terms,
        )
        return collect(self.stock, play, task.assignments, concurrency=self.concurrency)

    def _limits(self, task: Task) -> Limits:
        turns = self.limits.turns if task.turns is None else min(task.turns, self.limits.turns)
        return replace(self.limits, turns=turns, repeats=task.repeats or self.limits.repeats)

    def _policy(self, actor: Actor) -> Policy:
        if actor == "random":
            return RandomPolicy()
        if actor == "expert":
            return ExpertPolicy()
        if self.policy is None:
            raise RuntimeError("this shard has no model")  # a defect of the caller
        self.policy.refresh()
        return self.policy

    def policy_gradient(
        self,
        algorithm: Algorithm,
        batch: Batch,
        credit: Credit,
        streams: Index,
        micro_tokens: int,
        temperature: float,
        minibatch: NDArray[np.bool_] | None = None,
    ) -> PolicyGradient:
        """Return the gradient of the given streams of a batch, or of a minibatch of it."""
        from agentrl.learn.gradient import policy_gradient
        from agentrl.learn.loss import prepare

        inputs = prepare(algorithm, batch, credit, minibatch)
        return policy_gradient(
            self.reader or self._model(), algorithm, batch, inputs, streams,
            micro_tokens=micro_tokens, temperature=temperature,
        )  # fmt: skip

    def measure(
        self,
        batch: Batch,
        streams: Index,
        micro_tokens: int,
        temperature: float,
        reference: Path | None,
        answers: Answers = (),
        *,
        vocabulary: bool = False,
    ) -> Measured:
        """Measure some streams under the current weights, or under those of a checkpoint."""
        from agentrl.learn.probes import measure

        model = self._model() if reference is None else self._reference_model(reference)
        return measure(
            batch, model, streams, answers=answers, vocabulary=vocabulary, temperature=temperature,
            micro_tokens=micro_tokens,
        )  # fmt: skip

    def critic(self, weights: torch.Tensor) -> ValueModel:
        """The shard's critic with the given flat weights, kept from one call to the next."""
        from agentrl.learn.gradient import load_flat
        from agentrl.learn.value import ValueModel

        if self._critic is None:
            self._critic = ValueModel(self._model())
        load_flat(self._critic, weights)
        return self._critic

    def _reference_model(self, checkpoint: Path) -> PreTrainedModel:
        """A second model with the weights of a checkpoint, kept from one call to the next."""
        if self._reference is None or self._reference[0] != checkpoint:
            from copy import deepcopy

            from agentrl.policy.load import load_weights

            model = deepcopy(self._model())
            load_weights(model, checkpoint / "model")
            self._reference = (checkpoint, model)
        return self._reference[1]

    def supervised_gradient(
        self, examples: Sequence[Example], total_weight: float, micro_tokens: int
    ) -> SupervisedGradient:
        """Return the gradient of some demonstrations."""
        from agentrl.learn.gradient import supervised_gradient

        return supervised_gradient(
            self.reader or self._model(), examples, total_weight=total_weight, micro_tokens=micro_tokens
        )

    def num_tasks(self, split: str) -> int | None:
        """Return the number of tasks of a split."""
        return self.stock.look().num_tasks(split)

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Return the components of the reward that the world declares."""
        return self.stock.look().reward_names

    def load(self, weights: torch.Tensor) -> None:
        """Put flat weights into the model."""
        from agentrl.learn.gradient import load_flat

        load_flat(self._model(), weights)

    def _model(self) -> PreTrainedModel:
        if self.model is None:
            raise RuntimeError("this shard has no model")  # a defect of the caller
        return self.model

    def close(self) -> None:
        """Close the environments."""
        self.stock.close()


PROTOCOLS: dict[str, Callable[[], Protocol]] = {
    "plain": PlainText,
    "tags": Tags,
    "fenced": Fenced,
    "json": JsonCalls,
    "native": NativeCalls,
}


def protocol_of(environment: EnvironmentSettings, env: AnyEnv, renderer: Renderer | None = None) -> Protocol:
    """Return the protocol that settings name, or the environment's default for "auto".

    Args:
        renderer: of the model that plays; for "native" its chat template says how calls are written.

    Raises:
        ConfigError: there is no protocol of that name, or the environment reads no turn that it writes.
        TemplateError: the model has no calls of its own that can be read.
    """
    name = environment.protocol
    if name == "auto":
        return default_protocol(env)
    protocol = _named(name, renderer)
    _check_read(environment, env, protocol)
    return protocol


def _named(name: str, renderer: Renderer | None) -> Protocol:
    if name == "native" and renderer is not None:
        return native_protocol(renderer)
    if name not in PROTOCOLS:
        raise ConfigError(
            f"there is no protocol {name!r}; environment.protocol is auto, {', '.join(PROTOCOLS)}."
            + did_you_mean(name, ("auto", *PROTOCOLS))
        )
    return PROTOCOLS[name]()


def _check_read(environment: EnvironmentSettings, env: AnyEnv, protocol: Protocol) -> None:
    """Raise `ConfigError` where every turn would be refused: calls to a text world, plain text to tools."""
    own, plain = default_protocol(env), isinstance(protocol, PlainText)
    if isinstance(own, PlainText) == plain:
        return
    given = f"environment.protocol is {environment.protocol!r}"
    if plain:
        raise ConfigError(
            f"{given}, and {environment.id} reads calls of its tools, never plain text: every turn would be "
            f"refused. Choose auto, {', '.join(name for name in PROTOCOLS if name != 'plain')}."
        )
    # A world that defines `step` around the inherited one has tools and may read any call.
    if isinstance(env, TextEnv) and not env.toolbox.tools:
        raise ConfigError(
            f"{given}, and {environment.id} reads plain text and has no tools: every turn would be refused. "
            "Choose auto or plain; a world whose own step reads calls says so in default_protocol()."
        )


def terms_of(environment: EnvironmentSettings, env: AnyEnv) -> dict[str, Terms]:
    """Return the terms of the environment's tools. Raises `ConfigError` where they name another tool."""
    terms = {name: given.value for name, given in environment.tools.items()}
    if terms:
        check_terms(terms, [tool.name for tool in env.toolbox.tools] if isinstance(env, TextEnv) else [])
    return terms


def cpu_seconds() -> float:
    """CPU-seconds of this process."""
    return time.process_time()

"""Where the time of one training step goes: the main job's world, model and algorithm on one thread.

CPU-seconds of each part and tokens per second of rollout and learner, for the settings of `household/train`
(those of the model, the limits and the reinforcement phase) after a short warm start that is kept in a
temporary folder. Timers nest: a part does not count what another part inside of it counts.

    python -m tests.benchmarks.bench_train [--steps 4] [--model FOLDER]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import torch

from agentrl import recipes
from agentrl.config import load
from agentrl.learn import gradient
from agentrl.learn.forward import Streams
from agentrl.learn.learner import Learner
from agentrl.learn.loss import prepare
from agentrl.learn.supervised import examples_of
from agentrl.policy.base import Sampling
from agentrl.policy.build import ModelShape, train_tokenizer
from agentrl.policy.hf import HfPolicy
from agentrl.policy.load import load_model
from agentrl.policy.render import Markup, Renderer
from agentrl.rollout import Limits, Play, Stock, assign_groups, collect, complete_groups
from agentrl.rollout.stage import Stage
from agentrl.run.scenarios import find
from agentrl.run.settings import TrainSettings
from agentrl.run.shard import protocol_of
from agentrl.run.start import demonstrations_of
from agentrl.run.supervise import optimizer_of
from agentrl.trajectory.pack import pack
from agentrl.trajectory.store import JournalWriter
from agentrl.world.env import TextEnv
from agentrl.world.registry import make
from tests.benchmarks.warm_start import WarmStart

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from transformers import PreTrainedModel

    from agentrl.rollout.stage import AnyEnv
    from agentrl.trajectory import IntArray

P = ParamSpec("P")
R = TypeVar("R")
DEMONSTRATIONS = 300
WARM = WarmStart(steps=120, batch=16)
ROLLOUT = ("decode", "world", "anchor keys", "tokenising", "rollout's rest")
LEARNER = ("forward", "backward", "loss and collate", "optimizer")


@dataclass
class Meter:
    """CPU-seconds by part; what an inner part takes is not counted by the outer one."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _inner: list[float] = field(default_factory=lambda: [0.0])

    @contextmanager
    def part(self, name: str) -> Generator[None]:
        begin = time.process_time()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.process_time() - begin
            self.seconds[name] += spent - self._inner.pop()
            self._inner[-1] += spent

    def timed(self, name: str, function: Callable[P, R]) -> Callable[P, R]:
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.part(name):
                return function(*args, **kwargs)

        return call


@dataclass
class TimedRenderer(Renderer):
    """A renderer whose work is counted as tokenising."""

    renderer: Renderer
    meter: Meter

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        return self.renderer.stop_tokens

    def begin(self, system: str, observation: str) -> IntArray:
        with self.meter.part("tokenising"):
            return self.renderer.begin(system, observation)

    def extend(self, observation: str, *, closed: bool) -> IntArray:
        with self.meter.part("tokenising"):
            return self.renderer.extend(observation, closed=closed)

    def encode(self, text: str) -> IntArray:
        with self.meter.part("tokenising"):
            return self.renderer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        with self.meter.part("tokenising"):
            return self.renderer.decode(tokens)


@dataclass
class Step:
    """What one step did: tokens that the rollout read and sampled, and tokens that the learner read."""

    sampled: int
    observed: int
    trained: int
    trajectories: int
    turns: int
    seconds: dict[str, float]

    def of(self, parts: Sequence[str]) -> float:
        return sum(self.seconds.get(part, 0.0) for part in parts)


def world(settings: TrainSettings, meter: Meter) -> AnyEnv:
    """Make an environment whose methods are timed."""
    env = make(settings.environment.id, **settings.environment.kwargs)
    assert isinstance(env, TextEnv), "this benchmark times a synchronous environment"
    for method in ("reset", "step"):
        setattr(env, method, meter.timed("world", getattr(env, method)))
    return env


@contextmanager
def inner_timers(meter: Meter) -> Generator[None]:
    """Time anchor keys with their hashing inside of the rollout, and the passes of `policy_gradient`."""
    module: Any = gradient
    keys, forward, backward = Stage.keys, module.predict, torch.Tensor.backward
    Stage.keys = meter.timed("anchor keys", keys)  # type: ignore[method-assign]  # for the length of a step
    module.predict = meter.timed("forward", forward)
    torch.Tensor.backward = meter.timed("backward", backward)  # type: ignore[method-assign]  # for the length of a step
    try:
        yield
    finally:
        Stage.keys = keys  # type: ignore[method-assign]  # as it was
        module.predict = forward
        torch.Tensor.backward = backward  # type: ignore[method-assign]  # as it was


class Bench:
    """The main job's step, part by part."""

    def __init__(
        self, settings: TrainSettings, model: PreTrainedModel, renderer: Renderer, folder: Path
    ) -> None:
        self.settings, self.model, self.meter = settings, model, Meter()
        self.algorithm = recipes.get(settings.rl.algorithm)
        own = settings.rl.optimizer
        self.learner = Learner(model, optimizer_of(own) if own else self.algorithm.optimizer)
        shape, limits = settings.model, settings.limits
        timed = TimedRenderer(renderer, self.meter)
        self.policy = HfPolicy(model, timed, slots=shape.slots, context=shape.context)
        self.policy.engine.step = self.meter.timed("decode", self.policy.engine.step)  # type: ignore[method-assign]  # a timer
        self.stock = Stock(lambda: world(settings, self.meter))
        self.play = Play(
            self.policy,
            protocol_of(settings.environment, self.stock.look()),
            Sampling(settings.rl.temperature, settings.rl.top_p, limits.turn_tokens),
            Limits(**limits.model_dump(), trajectory_tokens=shape.context),
        )
        self.journal = folder / "trajectories.jsonl.zst"

    def step(self, number: int) -> Step:
        settings, part = self.settings, self.meter.part
        self.meter.seconds.clear()
        first = settings.rl.first_task + number * settings.rl.tasks
        tasks = range(first, first + settings.rl.tasks)
        with part("weights to engine"):
            self.policy.refresh()
        with part("rollout's rest"):
            assignments = assign_groups(
                settings.environment.split, tasks, members=settings.rl.members, seed=1, step=number
            )
            results = collect(self.stock, self.play, assignments, concurrency=settings.model.slots)
        with part("journal"), JournalWriter(self.journal) as journal:
            journal.append(results)
        with part("pack and credit"):
            batch = pack(complete_groups(results).trajectories)
            algorithm = self.algorithm.at(0.0)
            credit = algorithm.credit(batch)
            inputs = prepare(algorithm, batch, credit)
            streams = gradient.streams_with_loss(algorithm, batch, inputs)
        with part("loss and collate"):
            found = gradient.policy_gradient(
                self.model, algorithm, batch, inputs, streams,
                micro_tokens=settings.micro_tokens, temperature=settings.rl.temperature,
            )  # fmt: skip
        with part("optimizer"):
            self.learner.step(found.gradient, 0.0)
        lengths = Streams.of(batch).token_start
        trained = int((lengths[1:] - lengths[:-1])[streams].sum())
        sampled = len(batch.logprob)
        return Step(
            sampled, batch.num_tokens - sampled, trained, batch.num_trajectories, batch.num_turns,
            dict(self.meter.seconds),
        )  # fmt: skip


def start(settings: TrainSettings, folder: str) -> tuple[PreTrainedModel, Renderer]:
    """Load a model, or train the main job's for a while."""
    if folder:
        return load_model(folder, settings.model.renderer)
    warm = settings.warm_start.model_copy(update={"demonstrations": DEMONSTRATIONS})
    played = demonstrations_of(settings.model_copy(update={"warm_start": warm}))
    texts = [text for item in played for turn in item.turns for text in (turn.observation, turn.action)]
    shape = settings.model
    tokenizer = train_tokenizer(
        texts, vocabulary=shape.vocabulary, names=shape.whole_names, phrase_share=shape.phrase_share
    )
    renderer = Markup(tokenizer)
    examples = [
        one
        for item in played
        for one in examples_of(item, renderer, observation_weight=warm.observation_weight)
    ]
    size = ModelShape(
        shape.hidden, shape.layers, shape.heads, shape.kv_heads, shape.intermediate, shape.context
    )
    return WARM(tokenizer, size, examples), renderer


def show(step: Step) -> None:
    """Print one step: parts, then rates."""
    total = sum(step.seconds.values())
    print(f"{step.trajectories} trajectories, {step.turns} turns, {step.observed} tokens observed, "
          f"{step.sampled} sampled, {step.trained} in streams with loss")  # fmt: skip
    for part, spent in sorted(step.seconds.items(), key=lambda item: -item[1]):
        print(f"{part:18s} {spent:7.3f} CPU-s {spent / total:6.1%}")
    rollout, learner = step.of(ROLLOUT), step.of(LEARNER)
    print(f"{'all':18s} {total:7.3f} CPU-s, {1e3 * total / step.trajectories:.1f} ms per trajectory")
    both, world_s = step.sampled + step.observed, step.seconds["world"]
    print(f"rollout: {step.sampled / rollout:.0f} sampled tokens/CPU-s, {both / rollout:.0f} tokens/CPU-s "
          f"in all, {step.turns / rollout:.0f} turns/CPU-s")  # fmt: skip
    print(f"learner: {step.trained / learner:.0f} tokens/CPU-s")
    print(f"the world: {world_s / rollout:.1%} of the rollout, {world_s / total:.1%} of the step; "
          f"tokenising: {step.seconds['tokenising'] / total:.1%} of the step")  # fmt: skip


def main() -> None:
    """Run some steps and print the cheapest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=4, help="timed steps, after one untimed")
    parser.add_argument("--model", default="", help="a folder in the hub's format to load instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = load(TrainSettings, find(Path("household/train")))
    model, renderer = start(settings, options.model)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(settings, model, renderer, Path(folder))
        with inner_timers(bench.meter):
            steps = [bench.step(number) for number in range(options.steps + 1)][1:]
    best = min(steps, key=lambda step: sum(step.seconds.values()) / step.turns)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{settings.rl.algorithm}, {settings.rl.tasks} tasks x {settings.rl.members} members, "
          f"{parameters / 1e6:.2f} M parameters, vocabulary {model.config.vocab_size}; "
          f"the cheapest of {len(steps)} steps")  # fmt: skip
    show(best)


if __name__ == "__main__":
    main()

"""Shards on processes: the same results on one and two, deaths, errors, and nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from agentrl.errors import AgentrlError, ConfigError, MissingExtraError, PolicyError, RolloutError
from agentrl.learn.gradient import flat_weights, streams_with_loss
from agentrl.learn.loss import prepare
from agentrl.learn.supervised import examples_of
from agentrl.policy.build import ModelShape, build_model, train_tokenizer
from agentrl.policy.load import load_model, save_model
from agentrl.policy.render import Markup
from agentrl.recipes import get
from agentrl.rollout import assign_groups
from agentrl.rollout.demonstrate import demonstrate
from agentrl.run.crew import Crew, Recipe
from agentrl.run.jobs import PolicyShare, collect_on, policy_on, supervised_on
from agentrl.run.settings import EnvironmentSettings, LimitSettings, ModelSettings
from agentrl.run.shard import Task
from agentrl.testing import WordWorld
from agentrl.trajectory import Invalid, Trajectory, same
from agentrl.trajectory.pack import pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentrl.policy.render import Renderer
    from agentrl.run.shard import Shard

WORLD = EnvironmentSettings(id="agentrl.testing.worlds:WordWorld")
SHAPE = ModelSettings(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=48, context=96, slots=4)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    renderer = Markup(train_tokenizer(["Say lamp. It is over. apple drawer"] * 9, vocabulary=300))
    shape = ModelShape(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=48, context=96)
    save_model(build_model(renderer.tokenizer, shape, seed=0), renderer, folder)
    return folder


def crew(
    start: Path | None, processes: int, world: EnvironmentSettings = WORLD, patience: float = 60.0
) -> Crew:
    model, renderer = load_model(str(start)) if start else (None, None)
    limits = LimitSettings(turn_tokens=6)
    return Crew(Recipe(world, limits, SHAPE, start), model, renderer, 2, processes, patience)


@pytest.fixture(scope="module")
def pair() -> Iterator[Crew]:
    with crew(None, 2) as made:
        yield made


@dataclass(frozen=True)
class Pid:
    """The process that a shard lives in."""

    def __call__(self, shard: Shard) -> int:
        return os.getpid()


@dataclass(frozen=True)
class Die:
    """Die by SIGKILL in a helper, `times` times; `folder` counts."""

    folder: str
    parent: int
    times: int

    def __call__(self, shard: Shard) -> str:
        died = len(list(Path(self.folder).iterdir()))
        if os.getpid() != self.parent and died < self.times:
            Path(self.folder, str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return f"done after {died}"


@dataclass(frozen=True)
class Raise:
    """Raise an error in one process: the helper's or the parent's."""

    kind: type[Exception]
    said: tuple[str, ...]
    parent: int
    here: bool = False

    def __call__(self, shard: Shard) -> None:
        if (os.getpid() == self.parent) == self.here:
            raise self.kind(*self.said)


@dataclass(frozen=True)
class Sleep:
    """Sleep in the helper only."""

    parent: int
    seconds: float

    def __call__(self, shard: Shard) -> str:
        if os.getpid() != self.parent:
            time.sleep(self.seconds)
        return "awake"


@dataclass(frozen=True)
class Unpicklable:
    """Give back what cannot cross."""

    def __call__(self, shard: Shard) -> object:
        return lambda: None


def timeless(item: Trajectory | Invalid) -> Trajectory | Invalid:
    assert isinstance(item, Trajectory)
    return replace(
        item,
        turns=tuple(
            replace(turn, generate_seconds=0.0, environment_seconds=0.0, policy_version=0)
            for turn in item.turns
        ),
    )


def work(crew: Crew, renderer: Renderer) -> tuple[list[Trajectory | Invalid], torch.Tensor, torch.Tensor]:
    """A collection, its gradient and a supervised gradient, with weights that helpers have to be told."""
    assert crew.model is not None
    with torch.no_grad():
        for parameter in crew.model.parameters():
            parameter.mul_(1.25)
    weights = flat_weights(crew.model)
    assignments = tuple(assign_groups("train", range(3), members=3, seed=1))
    items = collect_on(crew, Task(assignments, "model", 1.0, 1.0), weights)
    batch = pack([item for item in items if isinstance(item, Trajectory)])
    algorithm = get("GRPO").at(0.0)
    credit = algorithm.credit(batch)
    streams = streams_with_loss(algorithm, batch, prepare(algorithm, batch, credit))
    parts = policy_on(crew, PolicyShare(algorithm, batch, credit, streams, 256, 1.0), weights)
    shown = demonstrate(WordWorld(), "train", range(5), noise=0.0, seed=0)
    examples = [one for item in shown for one in examples_of(item, renderer, observation_weight=0.1)]
    supervised = supervised_on(crew, examples, weights, 256)
    assert len(streams) > 2
    return (
        [timeless(item) for item in items],
        torch.stack([part.gradient for part in parts]).sum(0),
        torch.stack([part.gradient for part in supervised]).sum(0),
    )


def test_one_and_two_processes_give_the_same_bits(start: Path) -> None:
    results = []
    for processes in (1, 2):
        with crew(start, processes) as made:
            assert made.renderer is not None
            results.append(work(made, made.renderer))
    (items, policy, supervised), (others, *gradients) = results
    assert all(same(a, b) for a, b in zip(items, others, strict=True))
    assert torch.equal(policy, gradients[0])
    assert torch.equal(supervised, gradients[1])
    assert policy.abs().max() > 0


def test_work_is_cut_over_processes_and_merged_in_order(pair: Crew) -> None:
    first, second = pair.run([Pid(), Pid()])
    assert first == os.getpid() != second == pair._helpers[0].pid


def test_a_killed_helper_is_restarted_and_its_work_redone(pair: Crew, tmp_path: Path) -> None:
    before = pair.run([Pid(), Pid()])[1]
    die = Die(str(tmp_path), os.getpid(), 1)
    assert pair.run([die, die])[1] == "done after 1"
    assert pair.run([Pid(), Pid()])[1] != before


def test_a_helper_killed_while_idle_is_restarted_with_the_last_weights(start: Path) -> None:
    with crew(start, 2) as made:
        assert made.renderer is not None
        assert made.model is not None
        reference = work(made, made.renderer)
        pid = made._helpers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        task = Task(tuple(assign_groups("train", range(3), members=3, seed=1)), "model", 1.0, 1.0)
        items = collect_on(made, task, None)
    assert all(same(timeless(a), b) for a, b in zip(items, reference[0], strict=True))


def test_dying_twice_on_the_same_work_is_a_sentence(pair: Crew, tmp_path: Path) -> None:
    die = Die(str(tmp_path), os.getpid(), 2)
    with pytest.raises(RolloutError, match=r"twice on the same work.*processes = 1.*resumed"):
        pair.run([die, die])
    assert pair.run([Pid(), Pid()])[0] == os.getpid()


def test_a_silent_helper_counts_as_dead() -> None:
    with crew(None, 2, patience=0.5) as made:
        began = time.monotonic()
        sleep = Sleep(os.getpid(), 60.0)
        with pytest.raises(RolloutError, match=r"silent for 0\.5 s"):
            made.run([sleep, sleep])
        assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("kind", "said"), [(ConfigError, ("a sentence",)), (MissingExtraError, ("Search", "search"))]
)
def test_an_error_in_a_helper_arrives_as_itself(
    pair: Crew, kind: type[AgentrlError], said: tuple[str, ...]
) -> None:
    with pytest.raises(kind) as caught:
        pair.run([Raise(kind, said, os.getpid())] * 2)
    assert str(caught.value) == str(kind(*said))
    assert pair.run([Pid(), Pid()])[0] == os.getpid()


def test_a_defect_in_a_helper_arrives_with_its_traceback(pair: Crew) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)in a helper process.*KeyError: 'typo'"):
        pair.run([Raise(KeyError, ("typo",), os.getpid())] * 2)
    with pytest.raises(RuntimeError, match="pickle"):
        pair.run([Unpicklable(), Unpicklable()])


def test_an_error_here_leaves_no_stale_answer_of_the_helper(pair: Crew) -> None:
    with pytest.raises(ConfigError):
        pair.run([Raise(ConfigError, ("here",), os.getpid(), here=True)] * 2)
    assert pair.run([Pid(), Pid()])[1] == pair._helpers[0].pid


def test_a_broken_start_of_a_helper_is_its_own_error(tmp_path: Path) -> None:
    recipe = Recipe(WORLD, LimitSettings(), SHAPE, tmp_path)
    with (
        Crew(recipe, None, None, 2, 2) as made,
        pytest.raises(PolicyError, match=f"there is no tokenizer in {tmp_path}"),
    ):
        made.run([Pid(), Pid()])


def test_nothing_is_left_behind(start: Path) -> None:
    made = crew(start, 2)
    made.run([Pid(), Pid()])
    pid = made._helpers[0].pid
    assert pid is not None
    made.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_cpu_seconds_outlive_a_helper(pair: Crew, tmp_path: Path) -> None:
    pair.run([Pid(), Pid()])
    before = pair._helpers[0].cpu_seconds
    assert before > 0
    die = Die(str(tmp_path), os.getpid(), 1)
    pair.run([die, die])
    assert pair._helpers[0].cpu_seconds > before

"""A run on the processes of torchrun learns what a run in one process does, and ends with them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from agentrl.errors import AlgorithmError, ConfigError
from agentrl.recipes import get
from agentrl.run.torchrun import check_ranks, join
from agentrl.run.train import train
from agentrl.testing.worlds import WordWorld
from agentrl.trajectory.store import read_journal
from tests.agentrl.training import Fails, rl, rows, tiny

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from agentrl.learn.algorithm import Algorithm
    from agentrl.run.progress import Progress
    from agentrl.run.settings import TrainSettings

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-6
"""Of weights, optimizer state and figures: two processes add float32 gradients in another order than one."""
FOLLOWER = """
from agentrl.run.ranks import follow
while follow().outcome != "that was all":
    pass
"""
MICRO = {"micro_tokens": 48, "rl": rl(tasks=1, steps=3)}
"""Three streams, each a micro-batch of its own: one process has two and the other one."""


@pytest.fixture(scope="module")
def pair() -> Iterator[None]:
    """Make this process the leader of two: the other follows until it is told that that was all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)
    }  # fmt: skip
    command = [sys.executable, "-c", FOLLOWER]
    environment = {**os.environ, **common, "RANK": "1"}
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, cwd=ROOT, env=environment) as follower,
    ):
        for name, value in {**common, "RANK": "0"}.items():
            patch.setenv(name, value)
        try:
            yield
        finally:
            join().dismiss("that was all")
            try:
                ended = follower.wait(timeout=120)
            finally:
                follower.kill()
                torch.distributed.destroy_process_group()
        assert ended == 0


def alone(
    settings: TrainSettings,
    out: Path,
    algorithm: Algorithm | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> None:
    """The run in this process only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TORCHELASTIC_RUN_ID")
        train(settings, algorithm=algorithm, out=out, resume=resume, progress=progress)


def tensors(found: object, head: str = "") -> dict[str, torch.Tensor]:
    """Every tensor and number in nested containers, by its place."""
    if isinstance(found, torch.Tensor | int | float):
        return {head: torch.as_tensor(found, dtype=torch.float64)}
    pairs = dict(enumerate(found)) if isinstance(found, list | tuple) else found
    if not isinstance(pairs, dict):
        return {}
    return {
        name: value for key, item in pairs.items() for name, value in tensors(item, f"{head}/{key}").items()
    }


def checkpoint(folder: Path, name: str = "trained") -> dict[str, torch.Tensor]:
    """Weights and optimizer of a checkpoint."""
    from safetensors.torch import load_file

    path = folder / "checkpoints" / name
    weights = {key: value.double() for key, value in load_file(path / "model" / "model.safetensors").items()}
    return {**weights, **tensors(torch.load(path / "optimizer.pt", weights_only=True))}


def check(found: Path, wanted: Path) -> float:
    """Everything of the two runs is the same; return the largest difference of weights and optimizer."""
    played = [[turn.text for item in read_journal(each / "trajectories").trajectories for turn in item.turns]
              for each in (found, wanted)]  # fmt: skip
    assert played[0] == played[1]
    times = {"seconds", "cpu_seconds", "step_seconds", "tokens_per_second"}
    for phase in ("warm_start", "rl"):
        mine, theirs = rows(found, phase), rows(wanted, phase)
        assert len(mine) == len(theirs) > 0
        for row, other in zip(mine, theirs, strict=True):
            assert row.keys() == other.keys()
            for name in row.keys() - times - {"phase"}:
                assert row[name] == pytest.approx(other[name], rel=1e-5, abs=TOLERANCE), name
    names = ("warm-start", "trained")
    return max(difference(checkpoint(found, name), checkpoint(wanted, name)) for name in names)


def difference(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert mine.keys() == theirs.keys()
    assert all(value.shape == theirs[key].shape for key, value in mine.items())
    return max(float((value - theirs[key]).abs().max()) for key, value in mine.items())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("GIGPO", MICRO),
        ("GRPO_LION", {"rl": rl(optimizer=None)}),
        ("GRPO_KL", {"rl": rl(optimizer={"kind": "muon"}), "shards": 4}),
        ("TURN_PPO", {"rl": rl()}),
    ],
)
def test_two_processes_learn_what_one_does(
    pair: None, tmp_path: Path, name: str, changes: dict[str, object]
) -> None:
    del pair
    settings = tiny(**changes)
    alone(settings, tmp_path / "one", get(name))
    train(settings, algorithm=get(name), out=tmp_path / "two")
    worst = check(tmp_path / "two", tmp_path / "one")
    print(f"largest difference of weights and optimizer state: {worst:.1e}")
    assert worst <= TOLERANCE


def test_a_checkpoint_goes_from_one_process_to_two_and_back(pair: None, tmp_path: Path) -> None:
    del pair
    settings = tiny(rl=rl(steps=6, optimizer={"kind": "muon"}), checkpoint_every=2)
    alone(settings, tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        train(settings, out=tmp_path / "mixed", progress=Fails(phase="rl", step=3))
    with pytest.raises(KeyboardInterrupt):
        alone(settings, tmp_path / "mixed", resume=True, progress=Fails(phase="rl", step=5))
    train(settings, out=tmp_path / "mixed", resume=True)
    assert check(tmp_path / "mixed", tmp_path / "one") <= TOLERANCE


def spoiled(log_ratio: torch.Tensor, advantage: torch.Tensor, logprob: torch.Tensor) -> torch.Tensor:
    """A surrogate that is not a number, in the second process only."""
    objective = log_ratio * advantage
    return objective * float("nan") if os.environ.get("RANK") == "1" else objective


def test_a_gradient_that_is_not_finite_in_one_process_is_skipped_by_all(pair: None, tmp_path: Path) -> None:
    del pair
    algorithm = replace(get("GRPO"), surrogate=spoiled)
    with pytest.raises(AlgorithmError, match="3 gradients in a row were not finite"):
        train(tiny(rl=rl(steps=4, most_skipped=2)), algorithm=algorithm, out=tmp_path / "bad")
    kept, begun = (checkpoint(tmp_path / "bad", name) for name in ("1-rl-000002", "warm-start"))
    assert all(torch.equal(kept[key], value) for key, value in begun.items() if not key.startswith("/"))
    train(tiny(), out=tmp_path / "good")  # the two are still in step


def test_what_cannot_be_spread_is_refused_before_anything_begins(pair: None, tmp_path: Path) -> None:
    del pair
    with pytest.raises(ConfigError, match=r"2 processes and the run is cut into 3 shards.*shards=2"):
        train(tiny(shards=3), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"control\.beside=false"):
        check_ranks(tiny(control={"enabled": True, "steps": 2, "beside": True}), 2)


@contextlib.contextmanager
def torchrun(*arguments: str, **environment: str) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*command, "-m", "agentrl", "train", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # and it ends what it started, within 30 seconds
        try:
            process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            process.kill()


def written(settings: TrainSettings, path: Path) -> str:
    from agentrl.run.card import plain, to_toml

    path.write_text(to_toml(plain(settings)))
    return str(path)


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_torchrun_is_stopped_by_ctrl_c_and_goes_on(tmp_path: Path) -> None:
    settings = tiny(rl=rl(steps=40), out=str(tmp_path), checkpoint_every=1)
    file, out = written(settings, tmp_path / "run.toml"), tmp_path / "run"
    with torchrun(file, "--out", str(out)) as process:
        wait_for(out / "checkpoints" / "1-rl-000002", process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert "Stopping after this step" in said
    assert f"agentrl train --resume {out}" in said
    assert not (out / "summary.json").exists()
    with torchrun("--resume", str(out), "rl.steps=40") as process:
        printed, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert printed.count("Report: ") == 1
    assert [row["step"] for row in rows(out)] == list(range(1, 41))
    alone_out = tmp_path / "alone"
    train(settings, out=alone_out)
    assert check(out, alone_out) <= 1e-5


class Deadly(WordWorld):
    """A world that kills the second process of a run when it is played there."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        if os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset(seed=seed, options=options)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_with_a_sentence(tmp_path: Path) -> None:
    world = {"id": "tests.agentrl.test_ranks:Deadly"}
    file = written(tiny(environment=world), tmp_path / "run.toml")
    began = time.monotonic()
    with torchrun(file, "--out", str(tmp_path / "run"), PYTHONPATH=str(ROOT)) as process:
        _, said = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "another of the 2 processes of torchrun ended" in said
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["step"] > 0
    print(f"ended after {time.monotonic() - began:.0f} s")

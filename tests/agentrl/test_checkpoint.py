"""Checkpoints: whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from agentrl.errors import PolicyError, RunDirectoryError
from agentrl.learn.checkpoint import MANIFEST, clean, is_whole, newest, set_aside, write_checkpoint
from agentrl.policy.build import ModelShape, build_model, train_tokenizer
from agentrl.policy.load import load_weights, save_model
from agentrl.policy.render import Markup

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("1-rl-000002", "1-rl-000001")


def fill(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_bytes(bytes(range(256)) * 40)
    (folder / "state.json").write_text("{}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        write_checkpoint(tmp_path, name, fill)
    return tmp_path


def mark(name: str, folder: Path) -> None:
    (folder / name).write_text(name)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("file", ["model/weights", "state.json", MANIFEST])
def test_damage_anywhere_is_passed_over_and_named(
    folder: Path, file: str, harm: Callable[[Path], None]
) -> None:
    assert newest(folder, NAMES).path == folder / NAMES[0]
    harm(folder / NAMES[0] / file)
    found = newest(folder, NAMES)
    assert (found.path, found.damaged) == (folder / NAMES[1], (NAMES[0],))
    harm(folder / NAMES[1] / file)
    assert newest(folder, NAMES).path is None
    assert newest(folder, NAMES).damaged == NAMES


def test_every_single_bit_of_the_manifest_counts_or_is_space(folder: Path) -> None:
    manifest = folder / NAMES[0] / MANIFEST
    content = manifest.read_bytes()
    for place in range(0, len(content), 7):
        manifest.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert is_whole(folder / NAMES[0]) == (
            content[place : place + 1].isspace() and bool(chr(content[place] ^ 4).isspace())
        )
    manifest.write_text("5")
    assert not is_whole(folder / NAMES[0])


def test_damaged_ones_are_set_aside_and_stay_for_whoever_looks(folder: Path) -> None:
    flip(folder / NAMES[0] / "state.json")
    set_aside(folder, newest(folder, NAMES).damaged)
    assert sorted(path.name for path in folder.iterdir()) == [NAMES[1], f"damaged-{NAMES[0]}"]


def full(folder: Path) -> None:
    (folder / "weights").write_bytes(b"x" * 100)
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(folder: Path) -> None:
    (folder / "weights").write_bytes(b"x" * 100)
    raise KeyboardInterrupt


def test_a_full_disk_leaves_earlier_ones_whole_and_no_rubbish(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    for name in (NAMES[0], "1-rl-000003"):
        with pytest.raises(RunDirectoryError, match=r"No space left.*earlier checkpoints are whole"):
            write_checkpoint(folder, name, full)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(folder, "1-rl-000003", broken)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert all(is_whole(folder / name) for name in NAMES)


def _write_limited(folder: Path, size: int, answers: str) -> None:
    """In a process of its own, for the limit holds for the whole of it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    renderer = Markup(train_tokenizer(["Say lamp."] * 9, vocabulary=300))
    shape = ModelShape(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=48)
    model = build_model(renderer.tokenizer, shape, seed=0)

    def model_first(path: Path) -> None:
        save_model(model, renderer, path / "model")

    def optimizer_first(path: Path) -> None:
        torch.save({"average": torch.zeros(20_000)}, path / "optimizer.pt")

    for fill_limited in (model_first, optimizer_first):
        try:
            write_checkpoint(folder, "1-rl-000003", fill_limited)
        except RunDirectoryError as error:
            os.write(int(answers), f"{error}\n".encode())


def test_a_limit_on_the_size_of_files_is_a_sentence_for_weights_and_optimizer(folder: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    process = multiprocessing.get_context("fork").Process(
        target=_write_limited, args=(folder, 20_000, str(writing))
    )
    process.start()
    process.join(60)
    os.close(writing)
    answers = os.read(reading, 10_000).decode().splitlines()
    os.close(reading)
    assert process.exitcode == 0
    assert len(answers) == 2
    assert all("could not be written" in answer and "resume" in answer for answer in answers)
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    assert all(is_whole(folder / name) for name in NAMES)


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="make the folder writable"):
        write_checkpoint(tmp_path / "file", "best", fill)


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs, not even a cleanup."""


def test_a_kill_between_any_two_steps_loses_no_named_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each system call of the writer is counted; a forked process dies before the k-th, for every k.
    def write(number: int, folder: Path) -> None:
        calls = [0]

        def dying(original: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **kwargs: object) -> object:
                calls[0] += 1
                if calls[0] == number:
                    os._exit(9)
                return original(*args, **kwargs)

            return call

        for owner, name in ((Path, "rename"), (Path, "mkdir"), (Path, "write_text"), (shutil, "rmtree"),
                            (os, "fsync")):  # fmt: skip
            setattr(owner, name, dying(getattr(owner, name)))
        write_checkpoint(folder, "best", partial(mark, "new"))
        os._exit(0)

    codes: list[int | None] = []
    for number in range(1, 40):
        folder = tmp_path / str(number)
        write_checkpoint(folder, "best", partial(mark, "old"))
        process = multiprocessing.get_context("fork").Process(target=write, args=(number, folder))
        process.start()
        process.join(30)
        codes.append(process.exitcode)
        clean(folder)
        assert is_whole(folder / "best"), number
        assert [path.name for path in folder.iterdir()] == ["best"]
        assert (folder / "best" / "new").exists() or codes[-1] != 0
        if codes[-1] == 0:
            break
    assert codes.count(9) >= 8
    assert codes[-1] == 0


@pytest.mark.parametrize("tied", [True, False])
def test_weights_come_back_bit_for_bit(tmp_path: Path, tied: bool) -> None:
    renderer = Markup(train_tokenizer(["Say lamp."] * 9, vocabulary=300))
    shape = ModelShape(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=48, tied=tied)
    first, second = (build_model(renderer.tokenizer, shape, seed=seed) for seed in (0, 1))
    save_model(first, renderer, tmp_path)
    load_weights(second, tmp_path)
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert (len(dict(second.named_parameters())) == len(second.state_dict())) != tied
    wider = build_model(renderer.tokenizer, ModelShape(hidden=48, layers=1, heads=2, kv_heads=1), seed=0)
    with pytest.raises(PolicyError, match="do not fit the model"):
        load_weights(wider, tmp_path)
    with pytest.raises(PolicyError):
        load_weights(second, tmp_path / "nothing")

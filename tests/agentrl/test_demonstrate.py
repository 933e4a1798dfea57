"""A world that fails while its expert demonstrates is named, with its task, and nothing waits for ever."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import MissingExtraError, RolloutError
from agentrl.rollout.demonstrate import demonstrate
from agentrl.run.cli import FOUND_BAD, run
from agentrl.world import StepResult, TextEnv

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Presser:
    """Presses."""

    def act(self) -> str:
        return "press"

    def observe(self, command: str, feedback: str) -> None:
        """There is nothing to see."""


class Button(TextEnv):
    """One press solves it."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        super().reset(seed=seed, options=options)
        return "A button.", {}

    def step(self, action: str) -> StepResult:
        return "Click.", 1.0, True, False, {"success": True}

    def expert(self, observation: str) -> Presser:
        return Presser()


def raises(error: BaseException) -> Callable[..., object]:
    """A method that does."""

    def method(*_: object, **__: object) -> object:
        raise error

    return method


def gives(value: object) -> Callable[..., object]:
    """A method that does."""
    return lambda *_, **__: value


class Mute(Presser):
    """Says no text."""

    act = gives(None)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("method", "does", "said"),
    [
        ("reset", raises(RuntimeError("database is down")), "RuntimeError: database is down."),
        ("reset", gives((5, {})), r"reset\(\) returned \(5, \{\}\); return a text and a dictionary."),
        ("step", raises(KeyError("boom")), "KeyError: 'boom'."),
        ("step", raises(OSError("flaky disk")), "OSError: flaky disk."),
        ("step", raises(SystemExit(3)), "SystemExit: 3."),
        ("step", gives(("x", 0.0, True, {})), r"step\(\) of Bad returned .*; return \(observation, reward"),
        ("expert", Presser, r"expert\(\) raised TypeError"),
        ("expert", gives("press"), r"'press' is no player; return an object with act\(\) and observe\(\)."),
        ("expert", gives(Mute()), r"act\(\) raised TypeError: it returned None; return a text."),
    ],
)
@pytest.mark.parametrize("blocks", [False, True])
def test_the_sentence_names_the_world_the_task_and_the_repair(
    method: str, does: Callable[..., object], said: str, blocks: bool
) -> None:
    world = type("Bad", (Button,), {method: does, "blocks": blocks})
    with pytest.raises(
        RolloutError, match=rf"the expert's episode of Bad on train/0 failed after 0 turns .*{said}.*Repair"
    ):
        demonstrate(world(), "train", [0], noise=0.0, seed=0)


def test_a_fault_by_chance_is_played_once_more() -> None:
    class Flaky(Button):
        calls = 0

        def step(self, action: str) -> StepResult:
            self.calls += 1
            if self.calls == 1:
                raise OSError("flaky disk")
            return super().step(action)

    assert demonstrate(Flaky(), "train", [0], noise=0.0, seed=0) == demonstrate(
        Button(), "train", [0], noise=0.0, seed=0
    )


def test_a_sentence_with_its_own_repair_stays_as_it_is() -> None:
    world = type("Bare", (Button,), {"reset": raises(MissingExtraError("This world", "code"))})
    with pytest.raises(MissingExtraError):
        demonstrate(world(), "train", [0], noise=0.0, seed=0)


def test_a_world_that_blocks_is_not_waited_for_longer_than_a_step_may_take() -> None:
    free = threading.Event()

    class Hangs(Button):
        blocks = True

        def step(self, action: str) -> StepResult:
            free.wait()
            return super().step(action)

    try:
        with pytest.raises(RolloutError, match=r"Hangs on train/0 .*wall_clock.*took longer than 0\.05 s"):
            demonstrate(Hangs(), "train", [0], noise=0.0, seed=0, step_seconds=0.05)
    finally:
        free.set()


def test_a_run_keeps_the_limit_of_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hanging_world.py").write_text(
        "import threading\nimport agentrl\nFREE = threading.Event()\n"
        "class Hangs(agentrl.TextEnv):\n"
        "    blocks = True\n    splits = ('train', 'valid_seen', 'valid_unseen')\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        FREE.wait()\n"
        "        return '', {}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ["train", "household/train", "environment.id=hanging_world:Hangs", "environment.kwargs={}"]
    arguments += ["warm_start.demonstrations=1", "limits.step_seconds=0.1"]
    arguments += ["evaluation.curve_tasks=0", "evaluation.final_tasks=1", "--out", str(tmp_path / "run")]
    try:
        assert run(arguments) == FOUND_BAD
        assert "Hangs on train/0" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
    finally:
        __import__("hanging_world").FREE.set()

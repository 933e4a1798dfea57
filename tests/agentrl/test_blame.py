"""What a world, its constructor or its file does wrong is called its own, and ends no more than it must."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentrl import collect
from agentrl.errors import ConfigError
from agentrl.policy.scripted import ScriptedPolicy
from agentrl.run.cli import BAD_INPUT, DEFECT, run
from agentrl.trajectory import Invalid, InvalidReason
from agentrl.world import StepResult, TextEnv
from agentrl.world.asynchronous import AsyncTextEnv
from agentrl.world.protocol import PlainText
from agentrl_tools.records import records

if TYPE_CHECKING:
    from pathlib import Path

WORLDS = """
import sys
import agentrl

class Made(agentrl.TextEnv):
    def __init__(self):
        raise RuntimeError("the database is down")

class Counted(agentrl.TextEnv):
    def num_tasks(self, split):
        return len(None)

class Left(agentrl.TextEnv):
    def system_text(self):
        sys.exit(7)
"""


@pytest.fixture
def worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "blamed_worlds.py").write_text(WORLDS)
    (tmp_path / "leaves_at_once.py").write_text("raise SystemExit(7)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "blamed_worlds"


@pytest.mark.parametrize(
    ("world", "said"),
    [
        ("blamed_worlds:Made", "blamed_worlds:Made raised RuntimeError: the database is down."),
        ("blamed_worlds:Counted", "blamed_worlds.py, line 11, raised TypeError"),
        ("blamed_worlds:Left", "blamed_worlds.py, line 15, raised SystemExit: 7."),
        ("leaves_at_once:Left", "importing 'leaves_at_once' failed with SystemExit: 7"),
    ],
)
@pytest.mark.usefixtures("worlds")
def test_what_a_world_raises_is_no_defect_of_ours(
    world: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["envs", "show", world]) == BAD_INPUT
    error = capsys.readouterr().err
    assert said in error
    assert "defect of agentrl" not in error


def test_what_we_raise_is_our_defect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrl.world.registry.list_envs", None)
    assert run(["envs", "list"]) == DEFECT
    assert "this is a defect of agentrl: TypeError" in capsys.readouterr().err


class Bell(TextEnv):
    """Rings and is over."""

    def step(self, action: str) -> StepResult:
        del action
        return "It rings.", 1.0, True, False, {"success": True}


class Stuck(Bell):
    """Cannot be closed."""

    def close(self) -> None:
        raise RuntimeError("the bell is stuck")


def test_a_world_that_cannot_be_closed_has_played_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    (trajectory,) = collect(Stuck, ScriptedPolicy(["ring"]))
    assert not isinstance(trajectory, Invalid)
    assert trajectory.reward == 1.0
    assert "close() of Stuck raised RuntimeError: the bell is stuck." in caplog.text


class Quits(TextEnv):
    """Ends the process, if it is let."""

    def step(self, action: str) -> StepResult:
        raise SystemExit(action)


class QuitsInAThread(Quits):
    """Does so where it blocks."""

    blocks = True


class QuitsInATask(AsyncTextEnv):
    """Does so in a task of the event loop."""

    async def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        del seed, options
        return "A door.", {}

    async def step(self, action: str) -> StepResult:
        raise SystemExit(action)


@pytest.mark.parametrize("world", [Quits, QuitsInAThread, QuitsInATask])
def test_a_world_that_exits_ends_its_trajectory_only(world: type[TextEnv | AsyncTextEnv]) -> None:
    (result,) = collect(world, ScriptedPolicy(["3"]), protocol=PlainText())
    assert isinstance(result, Invalid)
    assert result.reason is InvalidReason.ENVIRONMENT_ERROR
    assert "SystemExit" in result.detail


class Interrupted(TextEnv):
    """Somebody presses Ctrl-C in it."""

    def step(self, action: str) -> StepResult:
        raise KeyboardInterrupt


def test_an_interrupt_ends_everything() -> None:
    with pytest.raises(KeyboardInterrupt):
        collect(Interrupted, ScriptedPolicy(["look"]))


@pytest.mark.parametrize("name", ["deep.jsonl", "deep.json"])
def test_a_file_that_is_nested_too_deeply_is_named(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text('{"answer":' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(ConfigError, match=rf"line 1 of .*{name} is no JSON: it is nested too deeply"):
        list(records(file))

"""Progress shows what it should, when it should, and never raises."""

from __future__ import annotations

import io
import logging
import math

import pytest

from agentrl.run import progress
from agentrl.run.progress import (
    LineProgress,
    LiveProgress,
    Pace,
    Progress,
    QuietConsole,
    SilentProgress,
    show_progress,
)


class Clock:
    """A clock that stands until it is told to move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class ClosedTerminal(io.StringIO):
    """A stream whose other end went away."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_pace_counts_only_the_running_phase() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.update("warm_start", 0, {"success": 1.0})
    clock.now += 1000
    pace.update("rl", 5, {"success": 0.0})
    assert pace.seconds_left(5, 10) is None
    clock.now += 6
    pace.update("rl", 7, {"success": 0.5})
    # 2 steps took 6 s, 3 steps are left.
    assert pace.seconds_left(7, 10) == 9.0
    assert pace.success == 0.25
    assert pace.seconds_left(7, None) is None


def test_success_moves_and_skips_what_is_not_a_number() -> None:
    pace = Pace(Clock())
    for step in range(progress.MOVING_UPDATES):
        pace.update("rl", step, {"success": 0.0})
    for step in range(progress.MOVING_UPDATES):
        pace.update("rl", step, {"success": 1.0})
    pace.update("rl", 99, {"success": math.nan})
    pace.update("rl", 99, {"success": "all"})
    assert pace.success == 1.0


def test_lines_come_every_interval_and_at_both_ends_of_a_phase() -> None:
    clock, stream = Clock(), io.StringIO()
    with LineProgress(stream, interval=10, clock=clock) as lines:
        for step in range(1, 9):
            lines.update("rl", step, 8, {"success": 0.5, "turns": 6.25, "tokens_per_second": 1234.0})
            clock.now += 4
        lines.update("control", 1, 3, {})
        lines.update("control", 2, 3, {})
    assert stream.getvalue().splitlines() == [
        "Reinforcement learning  step 1/8  success 50.0%  6.2 turns  1,234 tokens/s",
        "Reinforcement learning  step 4/8  success 50.0%  6.2 turns  1,234 tokens/s  16 s left",
        "Reinforcement learning  step 7/8  success 50.0%  6.2 turns  1,234 tokens/s  4 s left",
        "Reinforcement learning  step 8/8  success 50.0%  6.2 turns  1,234 tokens/s  0 s left",
        "Control  step 1/3",
        "Control  step 2/3  0 s left",
    ]


def test_live_display_shows_every_phase() -> None:
    stream = io.StringIO()
    console = QuietConsole(file=stream, force_terminal=True, width=140)
    with LiveProgress(console) as live:
        live.update("warm_start", 10, 10, {"loss": 1.0})
        live.update("rl", 3, None, {"success": 0.25, "turns": 4.0})
    shown = stream.getvalue()
    for part in ("Warm start", "step 10/10", "Reinforcement learning", "success 25.0%", "4.0 turns"):
        assert part in shown


def test_a_hostile_phase_name_is_not_markup() -> None:
    stream = io.StringIO()
    with LiveProgress(QuietConsole(file=stream, force_terminal=True, width=120)) as live:
        live.update("[/bold][red]x", 1, 2, {})
    assert "[red]x" in stream.getvalue()


def test_a_closed_terminal_is_reported_once_and_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        with LineProgress(ClosedTerminal(), interval=0) as lines:
            for step in range(5):
                lines.update("rl", step, 5, {})
        with LiveProgress(QuietConsole(file=ClosedTerminal(), force_terminal=True)) as live:
            for step in range(5):
                live.update("rl", step, 5, {})
    assert lines.broken
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "Progress cannot be shown any more"
    ] * 2


def test_errors_of_training_pass_through() -> None:
    with pytest.raises(RuntimeError, match="training"), LineProgress(io.StringIO()):
        raise RuntimeError("training failed")


def test_the_stream_decides_the_display() -> None:
    displays: list[Progress] = [show_progress(io.StringIO()), SilentProgress()]
    assert isinstance(displays[0], LineProgress)
    with displays[1] as silent:
        silent.update("rl", 1, 1, {})

"""The report of synthetic runs: it shows what is there, tolerates what is not, and runs nothing hostile."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import RunDirectoryError
from agentrl.run.report import ReportData, read_run, render, write_report
from agentrl.run.report.curves import Scale, _start_level, plain, thin_out, trace
from agentrl.run.report.data import Estimate, number, read_estimate
from agentrl.run.report.figures import Point, nice_axis
from agentrl.run.report.markup import clip, embed_json, escape
from agentrl.run.report.page import NO_CURVE
from tests.agentrl.runs import TYPES, evaluation, metrics, samples, summary, write_run

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "</script><script>window.owned=1</script><img src=x onerror=alert(1)>\"'&\u2028\u202e\x00\ud800"


class Outline(HTMLParser):
    """What a browser would make of a page: tags, attributes, texts, and whether tags close in order."""

    VOID = frozenset({"meta", "input", "link", "img", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open[-1:] == ["script"]:
            self.scripts.append((self.tags[-1][1].get("type"), data))

    def count(self, name: str) -> int:
        """How often a class is used."""
        return sum(name in (attributes.get("class") or "").split() for _, attributes in self.tags)


def test_the_whole_report(tmp_path: Path) -> None:
    path = write_report(write_run(tmp_path / "household"))
    assert path == tmp_path / "household" / "report.html"
    outline = Outline(path.read_text())
    text = " ".join(outline.texts)
    for shown in (
        "31.2 %",
        "70.9 %",
        "39.0 %",
        "+39.7",
        "p < 0.001",
        "64.0 – 77.0 % · 134 tasks",
    ):
        assert shown in text
    for shown in (
        "GiGPO",
        "7 min 42 s by the clock",
        "15 min 24 s of CPU",
        "Success on valid_seen",
        "steps = 240",
    ):
        assert shown in text
    for title in (
        "Entropy",
        "KL divergence",
        "Clipped share",
        "Log-prob gap",
        "Anchored share",
        "Gradient norm",
    ):
        assert title in text
    assert outline.count("bars") == len(TYPES) + 3
    assert outline.count("member") == 6
    assert not (tmp_path / "household" / "report.html.part").exists()


def test_nothing_is_loaded_and_only_our_script_runs(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path)).read_text()
    outline = Outline(page)
    assert not {"link", "img", "iframe", "object", "base"} & {tag for tag, _ in outline.tags}
    assert not re.search(r"(https?:)?//[a-z]|@import|url\(", re.sub(r"// .*", "", page))
    assert all("src" not in attributes and "href" not in attributes for _, attributes in outline.tags)
    assert not any(name.startswith("on") for _, attributes in outline.tags for name in attributes)
    running = [body for kind, body in outline.scripts if kind is None]
    assert len(running) == 1
    digest = base64.b64encode(hashlib.sha256(running[0].encode()).digest()).decode()
    policy = next(row["content"] for tag, row in outline.tags if tag == "meta" and "http-equiv" in row)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def hostile(value: object) -> object:
    """Put the hostile text into every text and every key of a JSON value."""
    if isinstance(value, str):
        return HOSTILE if value not in {"rl", "control", "warm_start", "evaluation", "trained"} else value
    if isinstance(value, dict):
        return {key: hostile(item) for key, item in value.items()} | {HOSTILE: HOSTILE}
    return [hostile(item) for item in value] if isinstance(value, list) else value


def test_hostile_text_is_text_everywhere(tmp_path: Path) -> None:
    rows = {"metrics.jsonl": metrics(), "samples.jsonl": samples()}
    for name, part in rows.items():
        (tmp_path / name).write_text("".join(json.dumps(hostile(row)) + "\n" for row in part))
    poisoned = hostile(summary())
    assert isinstance(poisoned, dict)
    types = {HOSTILE: {"success": 0.5, "ci": [0.4, 0.6], "n": 3}}
    poisoned["by_task_type"] = {"warm_start": types, "final": types}
    poisoned["stop_reasons"] = {"warm_start": {HOSTILE: 3}, "final": {HOSTILE: 4}}
    (tmp_path / "summary.json").write_text(json.dumps(poisoned))
    (tmp_path / "run.toml").write_text(HOSTILE, errors="replace")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    outline = Outline(page)
    assert "window.owned=1" in " ".join(outline.texts)
    assert "img" not in {tag for tag, _ in outline.tags}
    assert [kind for kind, _ in outline.scripts if kind != "application/json"] == [None]
    assert not any("onerror" in attributes for _, attributes in outline.tags)
    assert not set("\x00\u202e") & set(page)


def test_embedded_json_cannot_leave_its_script() -> None:
    written = embed_json({"name": HOSTILE})
    assert not set("<>&\u2028") & set(written)
    assert json.loads(written) == {"name": HOSTILE}
    with pytest.raises(ValueError, match="JSON"):
        embed_json(math.nan)


def test_every_part_may_be_missing(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole")
    for missing in ("run.toml", "metrics.jsonl", "summary.json", "samples.jsonl"):
        folder = write_run(tmp_path / missing)
        (folder / missing).unlink()
        Outline(write_report(folder).read_text())
        alone = tmp_path / f"only-{missing}"
        alone.mkdir()
        (alone / missing).write_bytes((whole / missing).read_bytes())
        Outline(write_report(alone).read_text())


def test_without_a_summary_the_last_evaluations_speak(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (folder / "summary.json").unlink()
    data = read_run(folder)
    start, final = data.estimate("warm_start"), data.estimate("final")
    assert start is not None
    assert final is not None
    assert start.mean == pytest.approx(0.31)
    assert final.count == 134


def test_a_single_step_is_a_dot_and_nothing_at_all_is_said() -> None:
    rows = metrics()
    step = next(row for row in rows if row["phase"] == "rl")
    shown = render(ReportData("one", metrics=(step,)))
    assert 'class="dot rl"' in shown, "a line of one point would be invisible"
    assert NO_CURVE not in shown
    warm = {"phase": "warm_start", "step": 1, "loss": 1.0, "cpu_seconds": 2.0}
    assert NO_CURVE in render(ReportData("warm", metrics=(warm,)))


def test_an_empty_directory_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"holds none of run\.toml"):
        write_report(tmp_path)
    with pytest.raises(RunDirectoryError, match="There is no run directory"):
        write_report(tmp_path / "nowhere")


def test_torn_and_nonsensical_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    good = json.dumps(evaluation("rl", 10, 60.0, 0.5))
    lines = [good, "[1, 2]", '{"phase": "rl", "step": 1e999, "success": NaN}', "[" * 100_000, good[:40]]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    (tmp_path / "summary.json").write_text('{"final": ')
    wrong = {
        "group": 3,
        "turns": [None, 7, {"advantage": "x", "anchor": [1], "observation": 5}],
        "task": None,
    }
    (tmp_path / "samples.jsonl").write_text(json.dumps(wrong) + "\n" + json.dumps({"turns": "none"}) + "\n")
    data = read_run(tmp_path)
    assert data.unreadable == 4
    page = render(data)
    Outline(page)
    assert "4 unreadable lines left out" in page


def test_several_seeds_are_averaged_with_bands(tmp_path: Path) -> None:
    for seed, final in enumerate((0.6, 0.7, 0.8)):
        folder = write_run(tmp_path / f"seed-{seed}", seed)
        (folder / "summary.json").write_text(json.dumps({"final": {"success": final, "ci": [0, 1]}}))
    data = read_run(tmp_path)
    estimate = data.estimate("final")
    assert estimate is not None
    # sd 0.1, se 0.057735, t(2) = 4.3027: half width 0.24841.
    assert estimate.mean == pytest.approx(0.7)
    assert estimate.low == pytest.approx(0.7 - 0.24841, abs=1e-4)
    assert estimate.count == 3
    page = render(data)
    assert "3 seeds" in page
    Outline(page)


def test_a_curve_of_seeds_has_their_mean_at_each_step() -> None:
    scale = Scale("cpu_seconds", "by-cpu", "", 60.0, plain)
    rows: list[dict[str, object]] = [
        {
            "seed": seed,
            "step": step,
            "cpu_seconds": 60.0 * step + 12 * seed,
            "success": 0.2 * seed + 0.1 * step,
        }
        for seed in (0, 1)
        for step in (1, 2)
    ]
    points = trace(rows, scale, read_estimate)
    assert [(round(point.x, 6), round(point.y, 6)) for point in points] == [(1.1, 0.2), (2.1, 0.3)]
    assert points[0].low is not None
    assert points[0].low == pytest.approx(0.1)


def test_a_step_that_was_repeated_after_a_resume_counts_once() -> None:
    scale = Scale("step", "by-step", "", 1.0, plain)
    rows: list[dict[str, object]] = [{"step": 1, "success": 0.1}, {"step": 1, "success": 0.9}]
    assert trace(rows, scale, read_estimate) == (Point(1.0, 0.9),)


def test_the_dashed_level_is_of_the_curves_own_tasks() -> None:
    rows: list[dict[str, object]] = [
        evaluation("warm_start", 100, 5.0, 0.2),
        evaluation("warm_start", 200, 9.0, 0.6),
        evaluation("warm_start", 200, 9.0, 0.9, mode="greedy"),
    ]
    assert _start_level(rows) == Point(0.0, 0.6)
    assert _start_level([*rows, evaluation("rl", 0, 0.0, 0.65)]) == Point(0.0, 0.65)
    assert _start_level([evaluation("rl", 20, 5.0, 0.7)]) is None


def test_turns_of_one_state_share_a_tag_across_members(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples()))
    outline = Outline(write_report(tmp_path).read_text())
    turns = [
        row.get("data-anchor") for tag, row in outline.tags if tag == "li" and row.get("class") == "turn"
    ]
    # The kitchen is met by all, the counter by the two that won, "Nothing happens." by all.
    assert turns[:8] == ["g0-1", "g0-2", "g0-3", None, "g0-1", None, "g0-3", None]
    assert turns[12] == "g1-1"
    assert str(2**62 + 1) not in " ".join(outline.texts)
    buttons = {row.get("data-shows") for tag, row in outline.tags if tag == "button"}
    assert buttons == {anchor for anchor in turns if anchor}


def test_numbers_of_unknown_kind_are_not_numbers() -> None:
    assert [number(value) for value in (True, "1", None, math.inf, 10**400, 2)] == [None] * 5 + [2.0]
    assert read_estimate({"success": {"mean": 0.5, "low": 0.4, "high": 0.6, "tasks": 9}}) == Estimate(
        0.5, 0.4, 0.6, 9
    )
    assert read_estimate({"success": 0.5, "ci": [0.4, 0.6]}) == Estimate(0.5, 0.4, 0.6)
    assert read_estimate({"success": {}}) is None


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 1.0], (0.0, 0.25, 0.5, 0.75, 1.0)),
        ([3.0, 3.0], (1.0, 2.0, 3.0, 4.0, 5.0)),
        ([0.0, 240.0], (0.0, 100.0, 200.0, 300.0)),
    ],
)
def test_axes_have_round_ticks(values: list[float], ticks: tuple[float, ...]) -> None:
    axis = nice_axis(values, plain)
    assert axis.ticks == pytest.approx(ticks)
    assert axis.low <= min(values)
    assert axis.high >= max(values)


def test_tiny_and_huge_numbers_still_make_an_axis() -> None:
    for values in ([1e-9, 3e-9], [-1e12, 1e12], [0.0, 0.0], [5.0], [1e16, 1e16]):
        axis = nice_axis(values, plain)
        assert all(0 <= axis.place(value) <= 100 for value in values)
        assert len(axis.ticks) >= 2


def test_long_curves_are_averaged_down() -> None:
    thinned = thin_out([Point(float(i), 1.0) for i in range(1000)])
    assert 100 < len(thinned) <= 160
    assert thinned[0].x == 3.0  # the mean of 0 ... 6


def test_texts_are_escaped_and_cut() -> None:
    assert escape("<a\x00>") == "&lt;a\u241a0000&gt;"
    assert clip("x" * 20, 10) == "x" * 10 + " … (10 more characters)"


def test_render_needs_no_directory() -> None:
    Outline(render(ReportData(name="empty")))


def test_the_writer_of_runs_is_understood() -> None:
    """CPU by phase with a total, a second lift, final evaluations at step -1, clocks that restart."""
    rows = [evaluation("warm_start", 50, 90.0, 0.3), evaluation("rl", 10, 20.0, 0.4)]
    rows += [evaluation("rl", 20, 40.0, 0.5), {**evaluation("rl", -1, 40.0, 0.77), "split": "valid_unseen"}]
    whole = {
        **summary(),
        "cpu_seconds": {"rl": 40.0, "total": 75.0},
        "lift_over_control": {"difference": 0.319, "ci": [0.2, 0.4], "p_value": 0.01, "test": "mcnemar"},
    }
    page = render(ReportData("run", metrics=tuple(rows), summaries={"": whole}))
    for shown in (
        "1 min 15 s of CPU",
        "Lift over control",
        "+31.9",
        "+20.0 to +40.0",
        "Success on valid_seen",
    ):
        assert shown in page
    assert "Success on valid_unseen" not in page
    assert "Warm start, sampled" not in page
    assert "77.0 %" in page


def test_how_programs_were_held_stands_in_the_facts_and_beside_each_trajectory() -> None:
    evaluated = {"": {**summary(), "sandbox_tiers": ["unconfined"]}}
    texts = Outline(render(ReportData("run", summaries=evaluated, samples=tuple(samples())))).texts
    assert any("programs held by the sandbox as landlock, unconfined" in text for text in texts)
    assert sum("sandbox landlock" in text for text in texts) == 3

    plain = tuple({**row, "sandbox_tier": ""} for row in samples())
    assert "sandbox" not in " ".join(Outline(render(ReportData("run", samples=plain))).texts)


def test_groups_of_different_steps_are_different_groups_and_endings_are_shown(tmp_path: Path) -> None:
    rows = [{**row, "step": step, "final_observation": "You won."} for step in (1, 25) for row in samples()]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outline = Outline(write_report(tmp_path).read_text())
    assert outline.count("group") == 4
    assert outline.texts.count("You won.") == 12

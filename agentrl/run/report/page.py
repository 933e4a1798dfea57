"""The page itself: one file, no network. Its policy lets only its own script run, whatever the data says."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from agentrl.errors import RunDirectoryError
from agentrl.run.report.bars import facts, headline, share, stop_reasons, task_types
from agentrl.run.report.curves import STAGES, health_panels, learning_curves, plain, scales
from agentrl.run.report.data import JsonObject, ReportData, mapping, number, read_estimate, read_run, text
from agentrl.run.report.markup import Markup, definitions, details, element, escape, join, void
from agentrl.run.report.transcripts import transcripts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def write_report(run_directory: Path) -> Path:
    """Write `report.html` into a run directory and return its path.

    Raises:
        RunDirectoryError: there is nothing to report, or the file cannot be written.
    """
    page = render(read_run(run_directory))
    path = run_directory / "report.html"
    unfinished = path.with_suffix(".html.part")
    try:
        unfinished.write_text(page, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise RunDirectoryError(f"The report cannot be written to {path}: {error}.") from error
    return path


def render(data: ReportData) -> str:
    """Return the page as HTML."""
    head = join(
        [
            Markup('<meta charset="utf-8">'),
            void("meta", http_equiv="Content-Security-Policy", content=_policy()),
            void("meta", name="viewport", content="width=device-width, initial-scale=1"),
            void("meta", name="color-scheme", content="light dark"),
            element("title", f"{data.name} · agentrl report"),
            Markup(f"<style>{_asset('page.css')}</style>"),
        ]
    )
    script = Markup(f"<script>{_asset('page.js')}</script>")
    body = element("body", _header(data), element("main", join(_sections(data))), script)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>{body}</html>\n'


@cache
def _asset(name: str) -> str:
    return resources.files("agentrl.run.report").joinpath(name).read_text(encoding="utf-8")


NO_CURVE = "No data: there was no evaluation along the way, and no step of reinforcement."


def _policy() -> str:
    digest = hashlib.sha256(_asset("page.js").encode()).digest()
    script = base64.b64encode(digest).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _header(data: ReportData) -> Markup:
    environment = data.summary.get("environment")
    name = text(mapping(environment).get("id")) or text(environment)
    algorithm = text(mapping(data.summary.get("algorithm")).get("name"))
    parts = [part for part in (name, algorithm) if part]
    return element(
        "header",
        element("h1", data.name),
        element("p", " · ".join(parts), class_="subtitle") if parts else None,
        facts(data),
        class_="top",
    )


def _sections(data: ReportData) -> Iterable[Markup]:
    yield _section("Result", headline(data), "Success with 95 % intervals.")
    curves, health = learning_curves(data), health_panels(data)
    if curves or health or data.metrics:
        learning = _section("Learning", curves or element("p", NO_CURVE, class_="note"))
        yield _axis_scope(data, learning, _section("Health", health))
    bars = join([task_types(data), stop_reasons(data)])
    yield _section("Before and after", element("div", bars, class_="pair") if bars else bars)
    note = "Turns of one colour started from the same state. A click shows where else that state was met."
    yield _section("Trajectories", transcripts(data.samples), note)
    yield _section("Details", _folded(data))


def _section(title: str, content: Markup, note: str = "") -> Markup:
    if not content:
        return Markup()
    return element(
        "section", element("h2", title), element("p", note, class_="note") if note else None, content
    )


def _axis_scope(data: ReportData, *sections: Markup) -> Markup:
    """Radio buttons before the figures: the choice of the horizontal axis needs no script."""
    choices = []
    names = {"by-cpu": "CPU time", "by-step": "Steps"}
    found = scales(data)
    for index, scale in enumerate(found if len(found) > 1 else ()):
        identity = f"axis-{scale.look}"
        choices.append(void("input", type="radio", name="axis", id=identity, checked=index == 0))
        choices.append(element("label", names[scale.look], for_=identity))
    return element(
        "div", join(choices), *sections, class_=f"axis-scope {found[0].look}-first" if found else ""
    )


def _folded(data: ReportData) -> Markup:
    parts = [
        details("Evaluations", _evaluations(data)) if _evaluations(data) else None,
        _object_part("Algorithm", mapping(data.summary.get("algorithm"))),
        _object_part("Environment", mapping(data.summary.get("environment"))),
        details("Settings (run.toml)", element("pre", data.settings, class_="scroll"))
        if data.settings
        else None,
        _object_part("Versions", mapping(data.summary.get("versions"))),
    ]
    return join(part for part in parts if part)


def _object_part(title: str, content: JsonObject) -> Markup:
    if not content:
        return Markup()
    return details(
        title, definitions((name, element("code", text(value))) for name, value in content.items())
    )


def _evaluations(data: ReportData) -> Markup:
    rows = [_evaluation(row) for row in data.metrics if row.get("phase") == "evaluation"]
    if not any(rows):
        return Markup()
    titles = ("Split", "Stage", "Policy", "Mode", "Step", "CPU seconds", "Success", "95 % interval", "Tasks")
    head = element("thead", element("tr", join(element("th", title, scope="col") for title in titles)))
    return element("div", element("table", head, element("tbody", join(rows))), class_="scroll")


def _evaluation(row: JsonObject) -> Markup:
    estimate = read_estimate(row)
    if estimate is None:
        return Markup()
    stage, cpu = text(row.get("stage")), number(row.get("cpu_seconds"))
    bounded = estimate.low is not None and estimate.high is not None
    cells = [
        text(row.get("split")),
        STAGES.get(stage, stage),
        text(row.get("policy")),
        text(row.get("mode")),
        _step(row),
        "" if cpu is None else plain(cpu),
        share(estimate.mean),
        f"{share(estimate.low or 0.0)} – {share(estimate.high or 0.0)}" if bounded else "n/a",
        "" if estimate.count is None else str(estimate.count),
    ]
    return element("tr", join(element("td", escape(cell)) for cell in cells))


def _step(row: JsonObject) -> str:
    step = number(row.get("step"))
    if step is None:
        return ""
    return "final" if step < 0 else plain(step)

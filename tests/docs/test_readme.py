"""The documentation runs: each page's Python blocks, in order, as one script in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentrl import recipes
from agentrl.config import load
from agentrl.run.scenarios import find
from agentrl.run.settings import TrainSettings

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PROSE = (*PAGES, *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LOG.md")))
FENCE = re.compile(r"```(\w*)\s*$")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def blocks(page: Path, language: str) -> str:
    """The page's blocks of a language; every other line is empty, so line numbers are the page's own."""
    kept: list[str] = []
    inside: str | None = None
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = FENCE.match(line)
        if fence:
            inside = None if inside is not None else fence[1]
        kept.append("" if fence or inside != language else line)
    return "\n".join(kept) + "\n"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python").strip()], ids=name)
def test_the_python_blocks_of_a_page_run_as_one_script(page: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{page.stem.lower()}_blocks.py"
    script.write_text(blocks(page, "python"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:agentrl", script.name],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, f"{page.name}, line numbers are the page's:\n{done.stderr}"


def commands() -> list[tuple[str, str]]:
    """Every command line that the documentation shows, with its page."""
    return [
        (name(page), line.partition("#")[0].strip())
        for page in PROSE
        for line in blocks(page, "console").splitlines()
        if line.strip()
    ]


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_that_is_shown_is_understood(page: str, command: str) -> None:
    words = command.split()
    if words[0] == "torchrun":  # --nproc-per-node N -m agentrl VERB ...
        words = words[words.index("-m") + 1 :]
    program, verb, *rest = words
    if program == "make":
        assert re.search(rf"^{verb}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{page}: {command}"
        return
    assert program == "agentrl", f"{page}: {command}"
    from agentrl.run.cli import app

    given = app.parse_args([verb, *rest], print_error=False, exit_on_error=False)[1].arguments
    if given.get("scenario"):
        load(TrainSettings, find(str(given["scenario"])), tuple(map(str, given.get("overrides", ()))))


@pytest.mark.parametrize("page", PROSE, ids=name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert not missing


def test_the_readme_names_every_recipe() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [recipe for recipe in recipes.names() if not re.search(rf"\b{recipe}\b", text)] == []

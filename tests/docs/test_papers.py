"""The page of papers is what its table and the recipes say."""

from __future__ import annotations

from pathlib import Path

from agentrl import recipes
from agentrl.recipes.papers import page, papers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "papers.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run: python -m agentrl.recipes.papers > docs/papers.md"


def test_every_paper_has_a_recipe_or_a_reason() -> None:
    found = papers()
    assert [paper.number for paper in found] == list(range(1, 204))
    for paper in found:
        assert paper.recipes or paper.outside, paper
        assert set(paper.recipes) <= set(recipes.names()), paper


def test_every_recipe_stands_on_the_page() -> None:
    text = page()
    for name in recipes.names():
        assert f"| `{name}` |" in text

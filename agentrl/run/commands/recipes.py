"""`agentrl recipes list` and `show`."""

from __future__ import annotations

import json
from dataclasses import fields

from cyclopts import App

from agentrl.run.commands.training import Json  # noqa: TC001  # cyclopts reads annotations

app = App(name="recipes", help="List and show the algorithms that rl.algorithm names.", version_flags=[])


@app.command(name="list")
def list_all(*, as_json: Json = False) -> None:
    """List all recipes: name, what it is, and the paper it comes from.

    Args:
        as_json: print JSON.
    """
    from agentrl.recipes import ABOUT

    if as_json:
        rows = [{"name": name, "title": about.title, "paper": about.paper} for name, about in ABOUT.items()]
        print(json.dumps(rows))
        return
    width = max(map(len, ABOUT))
    for name, about in ABOUT.items():
        print(f"{name:<{width}}  {about.title} ({about.paper})")


@app.command
def show(recipe: str, /, *, as_json: Json = False) -> None:
    """Show a recipe: where it comes from, where it departs from that, and what fills its slots.

    Args:
        recipe: a name from the list, or "module:NAME" for an algorithm of yours.
        as_json: print the slots as a run card holds them.
    """
    from agentrl.learn.algorithm import describe
    from agentrl.recipes import ABOUT, get

    algorithm = get(recipe)
    if as_json:
        print(json.dumps(describe(algorithm)))
        return
    about = ABOUT.get(recipe.upper().replace("-", "_"))
    rows = [(item.name, getattr(about, item.name)) for item in fields(about)] if about else []
    slots = [(item.name, _shown(getattr(algorithm, item.name))) for item in fields(algorithm)]
    for name, value in (*rows, *slots):
        print(f"{name:<12}  {value}")


def _shown(part: object) -> str:
    return getattr(part, "__name__", None) or repr(part)

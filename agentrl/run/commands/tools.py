"""`agentrl tools list` and `show`."""

from __future__ import annotations

import json

from cyclopts import App

from agentrl.run.commands.environments import arguments_of
from agentrl.run.commands.training import Json  # noqa: TC001  # cyclopts reads annotations

app = App(name="tools", help="List and show the tools that packages offer.", version_flags=[])


@app.command(name="list")
def list_all(*, as_json: Json = False) -> None:
    """List all tools, without importing the packages that offer them.

    Args:
        as_json: print JSON.
    """
    from agentrl.world.entrypoints import discovered
    from agentrl.world.registry import TOOLS

    found = discovered(TOOLS)
    if as_json:
        rows = [
            {"name": item.name, "source": item.value, "distribution": item.distribution} for item in found
        ]
        print(json.dumps(rows))
        return
    width = max((len(item.name) for item in found), default=0)
    for item in found:
        print(f"{item.name:<{width}}  {item.value}  ({item.distribution})")


@app.command
def show(tool: str, /, *arguments: str, as_json: Json = False) -> None:
    """Show a tool: what it does, its arguments, and how each protocol tells a model about it.

    Args:
        tool: a name from the list, or "module:attribute".
        arguments: constructor arguments, as name=value.
        as_json: print the JSON schemas.
    """
    from agentrl.world.protocol import Fenced, JsonCalls, Tags
    from agentrl.world.registry import load_tool

    found = load_tool(tool, **arguments_of(arguments))
    if as_json:
        print(json.dumps([item.schema for item in found]))
        return
    for protocol in (Tags(), Fenced(), JsonCalls()):
        fitted = protocol.for_tools(found)
        print(f"{type(protocol).__name__}\n{fitted.describe(found)}\n")

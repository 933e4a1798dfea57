"""`agentrl check-template`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.errors import PolicyError
from agentrl.run.commands.training import Json  # noqa: TC001  # cyclopts reads annotations
from agentrl.run.settings import RendererName  # noqa: TC001  # the same

if TYPE_CHECKING:
    from agentrl.policy.inspection import Inspection


def check_template(path: str, /, *, renderer: RendererName = "auto", as_json: Json = False) -> None:
    """Say how a model's chat template writes turns, tools and thoughts, and which turns it rewrites.

    Nothing is downloaded.

    Args:
        path: a folder that holds a tokenizer, or a hub name.
        renderer: as the setting model.renderer: auto, template, append or markup.
        as_json: print JSON.
    """
    from agentrl.policy.inspection import inspect_renderer
    from agentrl.policy.load import load_renderer

    _check_path(path)
    found = inspect_renderer(load_renderer(path, renderer, offline=True))
    if as_json:
        print(json.dumps({"path": path, **dataclasses.asdict(found)}, ensure_ascii=False))
    else:
        print("\n".join(_lines(path, found)))


def _check_path(path: str) -> None:
    from agentrl.run.directory import RunDirectory
    from agentrl.run.players import looks_local

    if not path.strip():
        raise PolicyError("no model was named. Give a folder that holds a tokenizer, or a hub name.")
    folder = Path(path).expanduser()
    if looks_local(path) and not folder.is_dir():
        raise PolicyError(f"there is no folder {path}. Give a folder that holds a tokenizer, or a hub name.")
    if folder.is_dir() and RunDirectory(folder).started:
        models = [folder / "start", *sorted(folder.glob("checkpoints/*/model"))]
        held = ", ".join(str(model) for model in models if model.is_dir()) or "none yet"
        raise PolicyError(f"{path} is a run directory. Name the model in it that is meant: {held}.")


def _lines(path: str, found: Inspection) -> list[str]:
    lines = [f"{path}: family {found.family}, calls in the form {found.protocol or 'of nobody known'}"]
    if found.tokens:
        lines.append(f"a turn begins after {found.prompt!r} and ends with {' or '.join(found.tokens)}")
    lines.append(f"tools are {found.tools}, their results shown {found.results}")
    if found.call:
        lines.append(f"a call: {found.call!r}")
    if found.tried:
        every = "every turn is appended" if found.exact else "not every turn is appended"
        lines.append(f"history: {every}")
        lines += [f"  {one.outcome:9} {one.turn}{_told(one.detail)}" for one in found.tried]
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"do: {advice}" for advice in found.advice]
    return lines


def _told(detail: str) -> str:
    return f": {detail}" if detail else ""

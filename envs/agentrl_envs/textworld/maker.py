"""The process that makes games: recipes on stdin, compiled games in the cache, failures on stdout.

It runs by its path in a process of its own, with a fixed hash seed, and imports nothing of ours: TextWorld's
generator draws from global random number generators, changes warning filters and prints.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    Job = Mapping[str, object]

ATTEMPTS = 10
_STRIDE = 10_000_000
_OPTIONS = {
    "rooms": "nb_rooms",
    "objects": "nb_objects",
    "quest_length": "quest_length",
    "quest_breadth": "quest_breadth",
    "parallel_quests": "nb_parallel_quests",
}


class UnwinnableError(Exception):
    """A game's own walkthrough does not win it."""


def main() -> None:
    """Make every game asked for; print a JSON line for each one that could not be made."""
    for job in json.load(sys.stdin):
        error = make(job)
        if error is not None:
            sys.stdout.write(json.dumps({"stem": job["stem"], "error": error}) + "\n")


def make(job: Job) -> str | None:
    """Make one game under its name in the cache, or say why not.

    TextWorld finds no quest for some seeds; then the seed's successors are tried, always the same ones.
    """
    stem = Path(str(job["stem"]))
    problem = ""
    for attempt in range(1 if "source" in job else ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix=".making-", dir=stem.parent) as folder:
            draft = Path(folder) / stem.name
            try:
                if "source" in job:
                    compile_file(str(job["source"]), draft)
                else:
                    build(job, int(str(job["seed"])) + attempt * _STRIDE, draft)
                    check(draft)
            except Exception as error:  # noqa: BLE001  # upstream raises bare errors for an unlucky seed
                problem = f"{type(error).__name__}: {error}"
                continue
            # The .json comes last: where it stands, the game is complete.
            for suffix in (".z8", ".json"):
                os.replace(draft.with_suffix(suffix), stem.with_suffix(suffix))  # noqa: PTH105  # atomic
            return None
    return problem


def build(job: Job, seed: int, draft: Path) -> None:
    """Generate and compile one game to `draft`.z8 and .json."""
    import textworld
    from textworld.generator import compile_game, make_game

    settings, grammar = job["settings"], job["grammar"]
    assert isinstance(settings, dict)  # noqa: S101  # narrows JSON that our own process wrote
    assert isinstance(grammar, dict)  # noqa: S101  # narrows JSON that our own process wrote
    options = textworld.GameOptions()
    options.seeds = seed
    options.path = str(draft.with_suffix(".z8"))
    for name, value in grammar.items():
        setattr(options.grammar, name, value)
    if job["family"] == "custom":
        for name, value in settings.items():
            setattr(options, _OPTIONS[name], value)
        game = make_game(options)
    else:
        from textworld.challenges import CHALLENGES

        given = {**settings, "split": job["foods"] or None, "recipe_seed": 0}
        game = CHALLENGES[f"tw-{job['family']}"][1](given, options)
    compile_game(game, options)


def compile_file(source: str, draft: Path) -> None:
    """Compile a game that somebody wrote, from its `.json`, to `draft`.z8 and .json."""
    import textworld
    from textworld.generator import compile_game

    options = textworld.GameOptions()
    options.path = str(draft.with_suffix(".z8"))
    compile_game(textworld.Game.load(source), options)


def check(draft: Path) -> None:
    """Play the walkthrough. Raises `UnwinnableError` where it does not win."""
    import jericho

    commands = json.loads(draft.with_suffix(".json").read_text())["metadata"].get("walkthrough") or []
    frotz = jericho.FrotzEnv(str(draft.with_suffix(".z8")), 1)
    frotz.reset()
    text = ""
    for command in commands:
        text = frotz.step(command)[0]
    frotz.close()
    if "*** The End ***" not in text:
        raise UnwinnableError(f"the walkthrough {commands} ends with {text[-200:]!r}")


if __name__ == "__main__":
    main()

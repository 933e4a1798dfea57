"""Games on disk: made once, under a name that is a hash of all that decides them, shared by all processes."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentrl.errors import EnvironmentFault, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl.world.json_text import Json
    from agentrl_envs.textworld.settings import Recipe

_MAKER: Final = Path(__file__).with_name("maker.py")
_SECONDS_PER_GAME: Final = 300.0


def require_textworld() -> None:
    """Raise `MissingExtraError` where the textworld package is not installed."""
    if importlib.util.find_spec("textworld") is None or importlib.util.find_spec("jericho") is None:
        raise MissingExtraError("TextWorld", "textworld")


def default_folder() -> Path:
    """Return the user's cache folder for games; `XDG_CACHE_HOME` moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentrl" / "textworld"


@functools.cache
def _version() -> str:
    return importlib.metadata.version("textworld")


@dataclass(frozen=True, slots=True)
class Library:
    """A folder of compiled games, about 410 kB each.

    Two processes may ask for the same game: both make it in folders of their own and rename it into place,
    the `.json` last. Equal recipes give equal bytes, so whoever comes last changes nothing, and a game whose
    `.json` stands is complete.
    """

    folder: Path = field(default_factory=default_folder)

    def path(self, recipe: Recipe) -> Path:
        """Return where the game's `.z8` stands, or will stand; its `.json` stands beside it."""
        return self.folder / f"{recipe.key(_version())}.z8"

    def get(self, recipe: Recipe) -> Path:
        """Return the game's `.z8`, made now (1 to 10 seconds) if it is new. Raises `EnvironmentFault`."""
        self.make([recipe])
        return self.path(recipe)

    def make(self, recipes: Sequence[Recipe], *, workers: int = 1) -> int:
        """Make the games that are missing in `workers` processes and return how many were made.

        Raises:
            EnvironmentFault: TextWorld cannot make one of them.
        """
        return self._order([_Order(self.path(recipe), recipe.to_json()) for recipe in recipes], workers)

    def compiled(self, description: Path) -> Path:
        """Return where the `.z8` that is compiled from a game's `.json` stands, or will stand."""
        content = hashlib.blake2b(_version().encode() + b"\0" + description.read_bytes(), digest_size=12)
        return self.folder / f"file-{content.hexdigest()}.z8"

    def compile(self, descriptions: Sequence[Path], *, workers: int = 1) -> int:
        """Compile games from their `.json` (a second each) and return how many were new.

        Raises:
            EnvironmentFault: TextWorld cannot compile one of them.
        """
        sources = [str(file.absolute()) for file in descriptions]
        orders = [
            _Order(self.compiled(file), {"source": source})
            for file, source in zip(descriptions, sources, strict=True)
        ]
        return self._order(orders, workers)

    def _order(self, orders: Sequence[_Order], workers: int) -> int:
        missing = list({order.path: order for order in orders if not order.is_done()}.values())
        if missing:
            self.folder.mkdir(parents=True, exist_ok=True)
            shares = [share for start in range(workers) if (share := missing[start::workers])]
            with ThreadPoolExecutor(len(shares)) as pool:
                list(pool.map(_run_maker, shares))
        return len(missing)


@dataclass(frozen=True, slots=True)
class _Order:
    """A game to make: where it will stand, and what `maker.py` is told."""

    path: Path
    job: Mapping[str, Json]

    def is_done(self) -> bool:
        return self.path.with_suffix(".json").is_file() and self.path.is_file()


def _run_maker(orders: Sequence[_Order]) -> None:
    jobs = [{**order.job, "stem": str(order.path.absolute().with_suffix(""))} for order in orders]
    try:
        ended = subprocess.run(  # noqa: S603  # our own file, no shell, nothing of the agent's
            [sys.executable, "-P", "-W", "ignore", str(_MAKER)],
            input=json.dumps(jobs),
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS_PER_GAME * len(jobs),
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFault(f"{len(jobs)} TextWorld games took over {error.timeout} s.") from error
    for order in orders:
        if not order.is_done():
            reason = ended.stdout.strip() or ended.stderr.strip() or f"exit status {ended.returncode}"
            raise EnvironmentFault(f"TextWorld could not make {dict(order.job)}: {reason[-600:]}")

"""Whether a world begins and goes on alike in another process, where Python orders sets in another way.

Members of a group may be played by different processes. Texts hash differently in each, so a world that goes
through a set of texts to build a room or a list shows every process another one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from agentrl.errors import CheckError
from agentrl.world.closing import RAISED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentrl.testing.probe import Moment, Probe, Where

_SEEDS: Final = ("1", "2")
_SECONDS: Final = 300.0
_CHILD: Final = (
    "import pickle, sys\n"
    "sys.path[:] = pickle.load(sys.stdin.buffer)\n"
    "from agentrl.testing.elsewhere import child\n"
    "child()\n"
)


def played_elsewhere(probe: Probe, tasks: Sequence[Where]) -> list[list[list[Moment]]]:
    """Play each task in processes whose hashes of texts are fixed and differ; by process and task.

    Args:
        probe: its `make` must pickle.

    Raises:
        CheckError: the world cannot be sent to another process, or cannot be played there.
    """
    try:
        work = pickle.dumps(sys.path) + pickle.dumps((probe, tuple(tasks)))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise CheckError(f"what makes the world cannot be sent to another process: {error}") from error
    with ThreadPoolExecutor(len(_SEEDS)) as pool:
        return list(pool.map(functools.partial(_played, work), _SEEDS))


def _played(work: bytes, seed: str) -> list[list[Moment]]:
    try:
        ended = subprocess.run(  # noqa: S603  # our own code, no shell
            [sys.executable, "-c", _CHILD],
            input=work,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
    except subprocess.TimeoutExpired as error:
        raise CheckError(f"another process did not play it within {_SECONDS:g} s.") from error
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip().splitlines()
        raise CheckError(f"another process could not play it: {said[-1] if said else ended.returncode}")
    return cast("list[list[Moment]]", pickle.loads(ended.stdout))  # noqa: S301  # our own child wrote it


def child() -> None:
    """Play what stands on the standard input; the end of a process that `played_elsewhere` began."""
    probe, tasks = cast("tuple[Probe, tuple[Where, ...]]", pickle.load(sys.stdin.buffer))  # noqa: S301  # our parent's
    with contextlib.redirect_stdout(sys.stderr):
        try:
            played = [_shown(probe, where) for where in tasks]
        except SystemExit as error:
            raise RuntimeError(f"SystemExit: {error}") from error
    sys.stdout.buffer.write(pickle.dumps(played))


def _shown(probe: Probe, where: Where) -> list[Moment]:
    """What the agent sees; `info` may hold anything."""
    env = probe.make()
    try:
        return [replace(moment, info={}) for moment in probe.play(env, where)]
    finally:
        with contextlib.suppress(*RAISED):  # the check "close" tells it
            env.close()

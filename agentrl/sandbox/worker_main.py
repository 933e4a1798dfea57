"""The process of a `Worker`: prepares itself once, then answers one JSON line with another."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, TextIO, TypeAlias

from agentrl.sandbox import landlock, seccomp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Handler: TypeAlias = Callable[[dict[str, object]], dict[str, object]]


def main() -> None:
    """Serve `module:function` of the command line until the host hangs up.

    The function gets the settings and returns what answers a request; it may take as long as the host waits.
    A request may use its CPU seconds, after which the kernel ends this process: also inside one long call of
        C,
    and also when the host is gone.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module, _, name = sys.argv[1].partition(":")
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        handler: Handler = getattr(importlib.import_module(module), name)(json.loads(sys.argv[2]))
    except Exception as error:
        _say(answers, {"failure": f"{type(error).__name__}: {error}"})
        return
    _say(answers, {"ready": True})
    for line in sys.stdin:
        _say(answers, _answered(handler, json.loads(line)))


def harden(readable: Sequence[str] = (), *, memory: int = 2 << 30) -> None:
    """Keep this process from writing files, from the network, and from more memory than this.

    Landlock and the filter of system calls are added where the kernel has them.

    Args:
        readable: paths, besides the folders of the system and of Python.
        memory: bytes of address space.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    python = {sys.prefix, sys.base_prefix, *filter(None, sys.path)}
    with contextlib.suppress(OSError):
        if landlock.abi():
            landlock.restrict((*readable, *sorted(python), "/usr", "/lib", "/lib64"), ())
    with contextlib.suppress(OSError):
        seccomp.install()


def _answered(handler: Handler, asked: dict[str, object]) -> dict[str, object]:
    cpu, wall = float(str(asked["cpu"])), float(str(asked["wall"]))
    signal.setitimer(signal.ITIMER_PROF, cpu)
    signal.setitimer(signal.ITIMER_REAL, wall)
    try:
        data = asked["data"]
        return {"answer": handler(data if isinstance(data, dict) else {})}
    except MemoryError:
        return {"failure": "MemoryError"}
    except Exception as error:
        return {"failure": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _say(answers: TextIO, content: dict[str, object]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()

"""The program's own process: gives up everything that it could reach, then runs what was asked."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, TypedDict

from agentrl.sandbox import cells, landlock, script, seccomp
from agentrl.sandbox.kernel import PR_SET_DUMPABLE, drop_capabilities, prctl, tell

if TYPE_CHECKING:
    import socket

READABLE = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/dev/urandom", "/dev/random")
ETC = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/etc/ssl/certs")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full")
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "MALLOC_ARENA_MAX": "1",  # every thread would reserve an arena of the limit on memory
}
INSTEAD_OF_NAMESPACE = 256
_PROCESSORS = os.cpu_count() or 1
_PRIORITY = os.getpriority(os.PRIO_PROCESS, 0)
"""Of programs: that of the host, from which the fork server has it."""


class Request(TypedDict):
    """What the host sends for one execution, or for one session."""

    code: str
    setup: str
    argv: list[str]
    files: dict[str, str]
    seed: int
    session: bool
    wall_seconds: float
    memory: int
    disk: int
    processes: int


def run(request: Request, channel: socket.socket | None) -> NoReturn:
    """Run the program, or the cells that come through a session's channel; never returns."""
    if channel is not None:
        cells.serve(channel, request["setup"], request["seed"])
    if request["argv"]:
        _replace(request["argv"])
    script.run_script(request["code"], request["setup"], request["seed"])


def outrank() -> None:
    """Go before all programs where the system lets us: what never sleeps would starve its supervisor."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)


def become(work: str) -> None:
    """Leave everything of the host that a process inherits; `work` is where the program will start."""
    prctl(PR_SET_DUMPABLE, 1)
    os.setsid()
    os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    os.chdir(work)
    os.environ.clear()
    os.environ.update(ENVIRONMENT, HOME=work, TMPDIR=work)
    # The kernel's memory killer takes what the model wrote before anything of the host.
    tell("/proc/self/oom_score_adj", "1000")


def shut(work: str, readable: tuple[str, ...]) -> None:
    """Give up all rights; what stays is the work folder, some devices and the libraries.

    Args:
        work: the folder in which the program may write; "/work" where namespaces hold it.
        readable: folders of the interpreter.
    """
    strict = work == "/work"
    writable = (work, *DEVICES, *(("/tmp", "/dev/shm") if strict else ()))
    # In namespaces these folders are our own, with a few files in them.
    more = ("/proc", "/etc") if strict else ETC
    if landlock.abi() or not strict:
        # Where parts of the interpreter's folder are hidden, it still must see what there is to import.
        names = (sys.prefix, sys.base_prefix)
        landlock.restrict((*READABLE, *readable, *more), writable, listable=names)
    drop_capabilities()
    seccomp.install(sockets=strict)


def limit(request: Request, spare: int, mapped: int) -> None:
    """Set the limits of a program on this process and all that it will start.

    Args:
        request: its limits count.
        spare: threads of the same user outside, which the limit counts where there is no namespace.
        mapped: pages of this process by now, which are not the program's.
    """
    seconds = int(request["wall_seconds"]) + 2
    for what, value in (
        (resource.RLIMIT_AS, mapped * resource.getpagesize() + request["memory"]),
        (resource.RLIMIT_FSIZE, request["disk"]),
        (resource.RLIMIT_NPROC, request["processes"] + spare),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_CPU, seconds * _PROCESSORS),
    ):
        resource.setrlimit(what, (value, value))


def _replace(argv: list[str]) -> NoReturn:
    try:
        os.execvpe(argv[0], argv, dict(os.environ))
    except (OSError, ValueError) as error:  # no such program, or a word that none can be given
        why = error.strerror if isinstance(error, OSError) else str(error)
        os.write(2, f"{argv[0]}: {why}\n".encode("utf-8", "replace"))
        os._exit(127)

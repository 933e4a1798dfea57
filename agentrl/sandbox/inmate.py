"""The program's own process: gives up everything that it could reach, then runs what was asked."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import resource
import signal
import sys
import threading
import traceback
import types
from typing import NoReturn, TypedDict

from agentrl.sandbox import landlock, seccomp
from agentrl.sandbox.kernel import PR_SET_DUMPABLE, drop_capabilities, prctl

READABLE = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc", "/dev/urandom", "/dev/random")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full")
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Request(TypedDict):
    """What the host sends for one execution."""

    code: str
    argv: list[str]
    files: dict[str, str]
    seed: int
    wall_seconds: float
    memory: int
    disk: int
    processes: int


def become(request: Request, work: str, readable: tuple[str, ...], processes: int) -> None:
    """Give up all rights; what stays is the work folder, some devices and the libraries."""
    prctl(PR_SET_DUMPABLE, 1)
    os.setsid()
    for number in (signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    os.chdir(work)
    os.environ.clear()
    os.environ.update(ENVIRONMENT, HOME=work, TMPDIR=work)
    _limit(request, processes)
    strict = work == "/work"
    writable = (work, *DEVICES, *(("/tmp", "/dev/shm") if strict else ()))
    proc = ("/proc",) if strict else ()
    if landlock.abi() or not strict:
        landlock.restrict((*READABLE, *readable, *proc), writable)
    drop_capabilities()
    seccomp.install()


def _limit(request: Request, processes: int) -> None:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # one read, in a fork
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    seconds = int(request["wall_seconds"]) + 2
    for limit, value in (
        (resource.RLIMIT_AS, mapped + request["memory"]),
        (resource.RLIMIT_FSIZE, request["disk"]),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_CPU, seconds * max(1, os.cpu_count() or 1)),
    ):
        resource.setrlimit(limit, (value, value))


def run(request: Request) -> NoReturn:
    """Run the program and end this process; never returns into the fork server's code."""
    if request["argv"]:
        try:
            os.execvpe(request["argv"][0], request["argv"], dict(os.environ))
        except OSError as error:
            os.write(2, f"{request['argv'][0]}: {error.strerror}\n".encode())
            os._exit(127)
    random.seed(request["seed"])
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(request["seed"] % (1 << 32))
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # lives as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    code = _executed(request["code"])
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _executed(source: str) -> int:
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    sys.argv = ["main.py"]
    sys.path.insert(0, "")
    code = 0
    try:
        exec(compile(source, "main.py", "exec"), main.__dict__)
    except SystemExit as stop:
        code = _exit_code(stop)
    except BaseException as error:
        trace = error.__traceback__
        traceback.print_exception(error.with_traceback(trace.tb_next if trace else None))
        code = 1
    for finish in (_join_threads, atexit._run_exitfuncs):
        with contextlib.suppress(BaseException):
            finish()
    return code


def _join_threads() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 255
    with contextlib.suppress(BaseException):
        sys.stderr.write(f"{stop.code}\n")
    return 1

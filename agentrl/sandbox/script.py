"""Runs source text as the interpreter would, in this process. Others wrote it, so nothing here is trusted."""

from __future__ import annotations

import ast
import atexit
import contextlib
import linecache
import os
import random
import sys
import threading
import traceback
import types
from typing import NoReturn


def new_main() -> types.ModuleType:
    """Make an empty `__main__` and put it in place."""
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    sys.argv = ["main.py"]
    if "" not in sys.path:
        sys.path.insert(0, "")
    return main


def open_streams() -> None:
    """Make text streams of the descriptors 0, 1 and 2."""
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # lives as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115


def reseed(seed: int) -> None:
    """Seed the generators that a fork would otherwise share."""
    random.seed(seed)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(seed % (1 << 32))


def run_script(source: str, setup: str, seed: int) -> NoReturn:
    """Run a whole program and end this process; `setup` runs before it, with the same names."""
    open_streams()
    main = new_main()
    if setup:
        run_source(setup, "setup", main, echo=False)
    reseed(seed)
    code = run_source(source, "main.py", main, echo=False)
    for finish in (_join_threads, atexit._run_exitfuncs, flush):
        with contextlib.suppress(BaseException):
            finish()
    os._exit(code)


def run_source(source: str, name: str, main: types.ModuleType, *, echo: bool) -> int:
    """Run source text in a module and return its exit code; errors are printed as the interpreter does.

    Args:
        source: Python.
        name: what tracebacks call it.
        main: the module whose names it sees and makes.
        echo: show the value of a last expression, as a notebook does.
    """
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    try:
        for code in _compiled(source, name, echo=echo):
            exec(code, main.__dict__)
    except SystemExit as stop:
        return _exit_code(stop)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            traceback.print_exception(error.with_traceback(_within(name, error.__traceback__)))
        return 1
    return 0


def _within(name: str, trace: types.TracebackType | None) -> types.TracebackType | None:
    """Cut our own frames from a traceback; a source that could not be compiled has no others."""
    while trace is not None and trace.tb_frame.f_code.co_filename != name:
        trace = trace.tb_next
    return trace


def flush() -> None:
    """Write out what the text streams hold."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


def _compiled(source: str, name: str, *, echo: bool) -> list[types.CodeType]:
    if not echo:
        return [compile(source, name, "exec", dont_inherit=True)]
    body = ast.parse(source, name)
    last = body.body[-1:] if body.body and isinstance(body.body[-1], ast.Expr) else []
    body.body = body.body[: len(body.body) - len(last)]
    codes = [compile(body, name, "exec", dont_inherit=True)]
    if last:
        codes.append(compile(ast.Interactive(list(last)), name, "single", dont_inherit=True))
    return codes


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

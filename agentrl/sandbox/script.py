"""Runs source text as the interpreter would, in this process. Others wrote it, so nothing here is trusted."""

from __future__ import annotations

import ast
import atexit
import builtins
import contextlib
import linecache
import opcode
import os
import random
import sys
import threading
import traceback
import types
from typing import NamedTuple, NoReturn, TextIO

from agentrl.sandbox.verdict import OUT_OF_MEMORY

_BUILTINS = builtins.__dict__
_OWN_BUILTINS = dict(_BUILTINS)
_MODULES, _OWN_MODULES = sys.modules, dict[str, types.ModuleType]()
_STREAMS: list[TextIO] = []
_opened, _written = open, os.write
_MOST_CODE = 1 << 63  # what the interpreter cannot read as a number of C counts as -1
_RAISE = opcode.opmap["RAISE_VARARGS"]


class Ended(NamedTuple):
    """How source text ended: its exit code, and whether for want of memory that it did not expect."""

    code: int
    lacking: bool = False


def new_main() -> types.ModuleType:
    """Make an empty `__main__` and put it in place."""
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    _MODULES["__main__"] = main
    _OWN_MODULES.update(_MODULES)
    sys.argv = ["main.py"]
    if "" not in sys.path:
        sys.path.insert(0, "")
    return main


def mend() -> None:
    """Bring back Python's builtins and the modules that a program has put away.

    Our own code stands on them after a program had its way, so this stands on nothing of the kind.
    """
    _BUILTINS.update(_OWN_BUILTINS)
    for name, module in _OWN_MODULES.items():
        _MODULES.setdefault(name, module)
    _OWN_MODULES["__main__"].__dict__["__builtins__"] = _BUILTINS


def open_streams() -> None:
    """Make text streams of the descriptors 0, 1 and 2."""
    _STREAMS[:] = [
        _opened(0, encoding="utf-8", closefd=False),
        _opened(1, "w", encoding="utf-8", buffering=1, closefd=False),
        _opened(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False),
    ]
    sys.stdin, sys.stdout, sys.stderr = _STREAMS


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
    code = run_source(source, "main.py", main, echo=False).code
    for finish in (_join_threads, atexit._run_exitfuncs, flush):
        with contextlib.suppress(BaseException):
            finish()
    os._exit(code)


def run_source(source: str, name: str, main: types.ModuleType, *, echo: bool) -> Ended:
    """Run source text in a module; errors are printed as the interpreter does.

    Args:
        source: Python.
        name: what tracebacks call it.
        main: the module whose names it sees and makes.
        echo: show the value of a last expression, as a notebook does.
    """
    try:
        try:
            with contextlib.suppress(Exception):  # tracebacks go without their lines then
                linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
            for code in _compiled(source, name, echo=echo):
                exec(code, main.__dict__)
        finally:
            mend()
    except SystemExit as stop:
        return Ended(_exit_code(stop))
    except BaseException as error:
        _complain(_told(error, name))
        return Ended(1, lacking=_ran_out(error))
    return Ended(0)


def _told(error: BaseException, name: str) -> str:
    """Write an error as the interpreter does, as far as the program has left it able to."""
    with contextlib.suppress(BaseException):
        own = error.with_traceback(_within(name, error.__traceback__))
        lines = traceback.format_exception(own)
        if _ran_out(own):
            lines = [*(line for line in lines if line != "MemoryError\n"), f"{OUT_OF_MEMORY}\n"]
        return "".join(lines)
    return f"{type(error).__name__}\n"


def _ran_out(error: BaseException) -> bool:
    """Say whether an error is for want of memory, and none that the program raised as it pleased."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if not isinstance(error, MemoryError) or trace is None:  # a source that is too deep for the parser
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] != _RAISE


def _complain(text: str) -> None:
    """Write to standard error, or where a program has put that away, to its descriptor."""
    with contextlib.suppress(BaseException):
        sys.stderr.write(text)
        return
    with contextlib.suppress(BaseException):
        _written(2, text.encode("utf-8", "replace"))


def _within(name: str, trace: types.TracebackType | None) -> types.TracebackType | None:
    """Cut our own frames from a traceback; a source that could not be compiled has no others."""
    while trace is not None and trace.tb_frame.f_code.co_filename != name:
        trace = trace.tb_next
    return trace


def flush() -> None:
    """Write out what the text streams hold."""
    for stream in (*_STREAMS[1:], sys.stdout, sys.stderr):
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
        return stop.code & 255 if -_MOST_CODE <= stop.code < _MOST_CODE else 255
    with contextlib.suppress(BaseException):
        _complain(f"{stop.code}\n")
    return 1

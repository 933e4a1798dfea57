"""Our own back end: programs run in jails that a fork server makes, one for each."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from agentrl.errors import ConfigError, SandboxError, SandboxUnavailable
from agentrl.sandbox.base import parallel_default
from agentrl.sandbox.connection import START, ForkServer, Supervisor, result_of
from agentrl.sandbox.inmate import ENVIRONMENT
from agentrl.sandbox.probe import JAILS, missing, probe
from agentrl.sandbox.result import (
    ExecutionResult,
    Limits,
    Program,
    Status,
    Tier,
    check_is,
    check_text,
    check_whole,
)
from agentrl.sandbox.session import JailSession
from agentrl.sandbox.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

CHOICES = (Tier.STRICT, Tier.BWRAP, Tier.LANDLOCK, Tier.UNCONFINED)
OTHERS = (
    "Where bubblewrap is installed and may make namespaces, 'bwrap' holds programs too. The last resort is "
    "'unconfined', which limits time, memory and processes but holds neither files nor the network: for code "
    "that you trust, or a machine that has nothing to lose."
)
BANNER = (
    "================================ NOT ISOLATED ================================\n"
    "The sandbox was opened as 'unconfined': programs run as plain processes. They\n"
    "can read and change files, use the network and signal this process; only time,\n"
    "memory and processes are limited. Every result and trajectory says so.\n"
    "==============================================================================\n"
)


class Sandbox:
    """Runs programs that nobody trusts, each in a jail of its own. Threads may share one.

    Args:
        tier: "strict", "landlock", or "auto" for the better of these that this machine has; "bwrap", where
            bubblewrap makes the namespaces; "unconfined", which holds neither files nor the network.
        limits: of every execution that names none.
        preload: modules imported once, before the jail is shut, such as ("numpy", "numpy.random"). They cost
            an execution nothing.
        python: an interpreter; the running one by default.
        parallel: programs that run at once; others wait their turn, and their clocks do not run meanwhile.

    Raises:
        SandboxUnavailable: the machine lacks layers; the message names each one and its repair.
        ConfigError: `python` is no interpreter.
        TypeError: a setting is of another kind; and `ValueError`, where `parallel` is below 1.
    """

    def __init__(
        self,
        tier: str = "auto",
        *,
        limits: Limits | None = None,
        preload: tuple[str, ...] = (),
        python: str = sys.executable,
        parallel: int | None = None,
    ) -> None:
        _check_python(python)
        _check_preload(preload)
        self.limits = _limits(limits, Limits())
        parallel = parallel_default() if parallel is None else parallel
        check_whole("parallel of the sandbox", parallel, 1)
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(parallel)
        self._threads: ThreadPoolExecutor | None = None
        self._server: ForkServer | None = None
        self._closed = False
        self._preload, self._python = preload, python
        self.tier = self._opened(tier)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the fork server and with it everything that still runs."""
        with self._lock:
            self._closed = True
            if self._server is not None:
                self._server.close()
                self._server = None
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)
                self._threads = None

    def run(self, program: Program | str, limits: Limits | None = None) -> ExecutionResult:
        """Run one program to its end.

        Raises:
            SandboxError: the sandbox was closed.
            TypeError: it is no program, or its limits are none.
        """
        asked = Program(program) if isinstance(program, str) else program
        check_is("what a sandbox runs", asked, Program, "A text is taken for Python source.")
        within = _limits(limits, self.limits)
        refusal = _refusal(asked, within)
        if refusal:
            return ExecutionResult(Status.INFRA_ERROR, tier=self.tier, message=refusal)
        with self._slots, Streams(within) as streams:
            began = time.monotonic()
            try:
                supervisor = self._begin(_request(asked, within), streams.theirs)
            except (OSError, SandboxUnavailable) as error:
                return ExecutionResult(Status.INFRA_ERROR, tier=self.tier, message=str(error))
            with supervisor:
                streams.release()
                said = supervisor.verdict(streams, asked.stdin, within.wall_seconds)
            return result_of(said, streams, time.monotonic() - began, self.tier)

    async def execute(self, program: Program | str, limits: Limits | None = None) -> ExecutionResult:
        """Run one program in a thread; see `run`."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(64, thread_name_prefix="sandbox")
            threads = self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, self.run, program, limits)

    def open_session(
        self,
        limits: Limits | None = None,
        *,
        files: Mapping[str, str] | None = None,
        seed: int = 0,
        setup: str = "",
    ) -> JailSession:
        """Open a persistent Python session in a jail of its own.

        Raises:
            SandboxError: the sandbox was closed, the session did not start, or its files are too large.
        """
        within = _limits(limits, self.limits)
        program = Program(files={} if files is None else files, seed=seed, setup=setup)
        refusal = _refusal(program, within)
        if refusal:
            raise SandboxError(refusal)
        request = {**_request(program, within), "session": True}
        return JailSession(lambda: self._begin(request, []), within, self.tier, self._slots)

    def _opened(self, tier: str) -> Tier:
        if tier != "auto":
            chosen = _jail(tier)
            self._server = ForkServer(chosen, self._preload, self._python)
            if chosen is Tier.UNCONFINED:
                sys.stderr.write(BANNER)
            return chosen
        found = probe(self._python)
        reasons: list[str] = []
        for candidate in JAILS:
            lacking = missing(found, candidate)
            if lacking:
                reasons += [item for item in lacking if item not in reasons]
                continue
            try:
                self._server = ForkServer(candidate, self._preload, self._python)
            except SandboxUnavailable as error:
                reasons.append(str(error))
            else:
                return candidate
        raise SandboxUnavailable(
            f"No tier holds untrusted code on this machine. {' '.join(reasons)} {OTHERS}"
        )

    def _begin(self, request: dict[str, object], streams: list[int]) -> Supervisor:
        """Ask for a jail; a fork server that died is started again, once."""
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox was closed. Make another one.")
            if self._server is not None:
                with contextlib.suppress(OSError):
                    return self._server.begin(request, streams)
                self._server.close()
                self._server = None
            self._server = ForkServer(self.tier, self._preload, self._python)
            return self._server.begin(request, streams)


def _limits(given: Limits | None, otherwise: Limits) -> Limits:
    if given is None:
        return otherwise
    check_is("limits", given, Limits, "Write Limits(wall_seconds=5), for one.")
    return given


def _check_preload(preload: tuple[str, ...]) -> None:
    given: object = preload
    if not isinstance(given, tuple | list):
        raise TypeError(f"preload is a tuple of modules, such as ('numpy',); got {given!r:.60}.")
    for name in preload:
        check_text("a module of preload", name)


def _check_python(python: str) -> None:
    check_text("python of the sandbox", python)
    if python == sys.executable:
        return
    words = [python, "-I", "-S", "-c", "print('python')"]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=START, check=False, env=ENVIRONMENT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(
            f"python of the sandbox must be an interpreter; {python!r} does not run: {error}."
        ) from error
    if done.stdout != b"python\n":
        raise ConfigError(
            f"python of the sandbox must be an interpreter; {python!r} is a program that is no Python."
        )


def _jail(tier: str) -> Tier:
    if tier not in CHOICES:
        names = ", ".join(repr(str(each)) for each in CHOICES)
        raise SandboxUnavailable(f"{tier!r} is no tier of the jail; there are 'auto', {names}.")
    return Tier(tier)


def _refusal(program: Program, limits: Limits) -> str:
    """Say why a program is not begun: the caller's files that its limit does not hold are not its fault."""
    size = program.size()
    if size <= limits.disk:
        return ""
    return (
        f"the files of the program take {size:,} bytes, and its limit is {limits.disk:,} (disk); "
        "raise the limit or give fewer files"
    )


def _request(program: Program, limits: Limits) -> dict[str, object]:
    return {
        "code": program.code,
        "setup": program.setup,
        "argv": list(program.argv),
        "files": dict(program.files),
        "seed": program.seed,
        "session": False,
        "wall_seconds": limits.wall_seconds,
        "memory": limits.memory,
        "disk": limits.disk,
        "processes": limits.processes,
    }

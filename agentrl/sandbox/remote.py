"""A back end elsewhere: servers that speak SandboxFusion's `/run_code` and `/run_jupyter`."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Self, cast

from agentrl.errors import ConfigError, SandboxError
from agentrl.sandbox.reasons import Used, reason
from agentrl.sandbox.result import ExecutionResult, Limits, Program, Status, Tier, check_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

MARGIN = 30.0
MOST_BYTES = 64 << 20
_FINISHED, _TOO_LONG = "Finished", "TimeLimitExceeded"


class RemoteSandbox:
    """Runs programs on a SandboxFusion server. What holds them there is not known here (`Tier.REMOTE`).

    `SandboxError`, a status that is not 200, and anything that nobody can read are infrastructure; `Failed`
    is the program's own. Memory is limited by whole megabytes; processes and disk are the server's to limit.

    Args:
        url: of the server, for example "http://127.0.0.1:8080".
        limits: of every execution that names none.
        margin: seconds that a call may take beyond the wall clock of its program.

    Raises:
        ConfigError: the url is none.
    """

    tier = Tier.REMOTE

    def __init__(self, url: str, *, limits: Limits | None = None, margin: float = MARGIN) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{url!r} is no address of a sandbox server; write one such as http://127.0.0.1:8080."
            )
        import httpx

        self.limits = limits or Limits()
        self.margin = margin
        self._client: httpx.Client | None = httpx.Client(base_url=url, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def run(self, program: Program | str, limits: Limits | None = None) -> ExecutionResult:
        """Run one program to its end.

        Raises:
            SandboxError: the sandbox was closed, or the program is a command, for which there is no call.
        """
        asked = Program(program) if isinstance(program, str) else program
        if asked.argv:
            raise SandboxError("a SandboxFusion server runs source text; this program is a command.")
        within = limits or self.limits
        content = {
            "language": "python",
            "code": f"{_before(asked.seed, asked.setup)}\n{asked.code}",
            "stdin": asked.stdin,
            "files": _files(asked.files),
            "run_timeout": within.wall_seconds,
            "memory_limit_MB": max(1, within.memory >> 20),
        }
        began = time.monotonic()
        try:
            said = self.post("/run_code", content, within.wall_seconds)
            return _ran(said, within, time.monotonic() - began)
        except _Unreadable as error:
            return _infrastructure(str(error), began)

    async def execute(self, program: Program | str, limits: Limits | None = None) -> ExecutionResult:
        """Run one program in a thread; see `run`."""
        return await asyncio.to_thread(self.run, program, limits)

    def open_session(
        self,
        limits: Limits | None = None,
        *,
        files: Mapping[str, str] | None = None,
        seed: int = 0,
        setup: str = "",
    ) -> RemoteSession:
        """Open a session; the server has none, so each cell is sent with the ones before it."""
        return RemoteSession(self, limits or self.limits, _files(files or {}), (_before(seed, setup),))

    def post(self, path: str, content: object, seconds: float) -> dict[str, object]:
        """Send JSON and return the object that comes back, within a deadline and a cap.

        Raises:
            SandboxError: the sandbox was closed.
            _Unreadable: nothing usable came back.
        """
        import httpx

        if self._client is None:
            raise SandboxError("the sandbox was closed. Make another one.")
        deadline = time.monotonic() + seconds + self.margin
        body = bytearray()
        try:
            timeout = httpx.Timeout(seconds + self.margin)
            with self._client.stream("POST", path, json=content, timeout=timeout) as answer:
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > MOST_BYTES or time.monotonic() > deadline:
                        raise _Unreadable("the sandbox server sent too much, or too slowly")
        except httpx.HTTPError as error:
            raise _Unreadable(f"the sandbox server failed: {type(error).__name__}: {error}") from error
        if answer.status_code != 200:
            raise _Unreadable(f"the sandbox server answers with status {answer.status_code}: {body[:200]!r}")
        try:
            said = json.loads(bytes(body))
        except ValueError as error:
            raise _Unreadable(f"the sandbox server sent no JSON: {bytes(body[:200])!r}") from error
        if not isinstance(said, dict):
            raise _Unreadable(f"the sandbox server sent no JSON object: {bytes(body[:200])!r}")
        if said.get("status") not in {"Success", "Failed"}:
            raise _Unreadable(f"the sandbox server says {said.get('status')!r}: {said.get('message')}")
        return cast("dict[str, object]", said)


class RemoteSession:
    """A session that repeats: each cell is run after all earlier ones that ended, in a fresh notebook."""

    def __init__(
        self, sandbox: RemoteSandbox, limits: Limits, files: dict[str, str], cells: tuple[str, ...]
    ) -> None:
        self._sandbox, self.limits = sandbox, limits
        self._given, self._cells = files, cells
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, code: str, limits: Limits | None = None, *, stdin: str = "") -> ExecutionResult:
        """Run one cell.

        Raises:
            SandboxError: the session was closed, or there is input, which the server cannot give to a cell.
        """
        check_text("the code of a cell", code)
        if self._closed:
            raise SandboxError("the session was closed. Open another one.")
        if stdin:
            raise SandboxError("a SandboxFusion server gives no input to a cell.")
        within = limits or self.limits
        total = within.wall_seconds * (len(self._cells) + 1)
        content = {
            "cells": [*self._cells, code],
            "files": self._given,
            "cell_timeout": within.wall_seconds,
            "total_timeout": total,
            "memory_limit_MB": max(1, within.memory >> 20),
        }
        began = time.monotonic()
        try:
            said = self._sandbox.post("/run_jupyter", content, total)
            result = _celled(said, len(self._cells), within, time.monotonic() - began)
        except _Unreadable as error:
            return _infrastructure(str(error), began)
        if result.status in {Status.OK, Status.ERROR}:
            self._cells = (*self._cells, code)
        return result

    def branch(self) -> RemoteSession:
        """Return a second session with the same cells behind it."""
        return RemoteSession(self._sandbox, self.limits, self._given, self._cells)

    def close(self) -> None:
        """Forget the cells."""
        self._closed, self._cells = True, ()


class _Unreadable(Exception):  # control flow; it becomes an INFRA_ERROR
    pass


def _before(seed: int, setup: str) -> str:
    """Seed and set up in one line, so that the program's own lines are moved by one only."""
    return f"import random as _random; _random.seed({seed}); exec({setup!r})"


def _files(files: Mapping[str, str]) -> dict[str, str]:
    return {name: base64.b64encode(content.encode()).decode() for name, content in files.items()}


def _infrastructure(message: str, began: float) -> ExecutionResult:
    wall = time.monotonic() - began
    return ExecutionResult(Status.INFRA_ERROR, wall_seconds=wall, tier=Tier.REMOTE, message=message)


def _ran(said: Mapping[str, object], limits: Limits, wall: float) -> ExecutionResult:
    ran = said.get("run_result")
    if not isinstance(ran, dict):
        raise _Unreadable("the sandbox server sent no run_result")
    code = ran.get("return_code")
    if ran.get("status") == _TOO_LONG:
        status = Status.TIMEOUT
    elif ran.get("status") != _FINISHED or not isinstance(code, int):
        raise _Unreadable(f"the sandbox server says {ran.get('status')!r} with the code {code!r}")
    else:
        status = Status.OK if code == 0 else Status.KILLED if code < 0 else Status.ERROR
    out, err = str(ran.get("stdout") or ""), str(ran.get("stderr") or "")
    return _result(status, out, err, limits, wall, code if isinstance(code, int) else None)


def _celled(said: Mapping[str, object], before: int, limits: Limits, wall: float) -> ExecutionResult:
    cells = said.get("cells")
    driver = said.get("driver")
    if said["status"] == "Failed":
        late = isinstance(driver, dict) and driver.get("status") == _TOO_LONG
        return _result(Status.TIMEOUT if late else Status.KILLED, "", "", limits, wall)
    if not isinstance(cells, list) or len(cells) <= before or not isinstance(cells[before], dict):
        raise _Unreadable("the sandbox server sent fewer cells than it was asked to run")
    cell = cast("dict[str, object]", cells[before])
    out, err = str(cell.get("stdout") or ""), str(cell.get("stderr") or "")
    failed = _listed(cell.get("error"))
    for shown in _listed(cell.get("display")):
        out += f"{shown.get('text/plain', '')}\n"
    for error in failed:
        err += f"{error.get('ename', 'Error')}: {error.get('evalue', '')}\n"
    return _result(Status.ERROR if failed else Status.OK, out, err, limits, wall, 1 if failed else 0)


def _listed(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _result(
    status: Status, out: str, err: str, limits: Limits, wall: float, code: int | None = None
) -> ExecutionResult:
    kept = limits.kept_output
    full = out.encode(), err.encode()
    last = err.rstrip().rsplit("\n", 1)[-1]
    if status is Status.ERROR and last.startswith("MemoryError"):
        status = Status.MEMORY
    number = -code if code is not None and code < 0 else 0
    return ExecutionResult(
        status=status,
        returncode=code if code is not None and code >= 0 else None,
        stdout=full[0][:kept].decode("utf-8", "replace"),
        stderr=full[1][:kept].decode("utf-8", "replace"),
        signal=number,
        truncated=(max(0, len(full[0]) - kept), max(0, len(full[1]) - kept)),
        wall_seconds=wall,
        tier=Tier.REMOTE,
        message=reason(status, limits, Used(wall, 0, sum(map(len, full))), number),
    )

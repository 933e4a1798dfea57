"""A real vLLM server for a test: started in its own process group, awaited, and always ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

PROGRAM = Path(__file__).resolve().parents[2] / os.environ.get("VLLM_VENV", ".venv-vllm") / "bin" / "vllm"
START_SECONDS = float(os.environ.get("VLLM_START_SECONDS", "300"))
QUIET = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


@contextlib.contextmanager
def serve(model: Path, log: Path, *arguments: str, name: str = "small") -> Generator[str]:
    """Serve a model and give the base address of its API.

    Args:
        log: file for what the server writes.
        arguments: further ones of `vllm serve`.
    """
    if not PROGRAM.exists():
        pytest.skip("there is no vLLM here; `make vllm` installs it")
    port = free_port()
    command = [
        str(PROGRAM), "serve", str(model), "--served-model-name", name, "--host", "127.0.0.1",
        "--port", str(port), "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "32", *arguments,
    ]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=os.environ | QUIET, start_new_session=True,
        )  # fmt: skip
        try:
            _wait(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _end(process)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2.0).status_code == 200:
                return
        time.sleep(0.5)
    pytest.fail(f"vLLM did not start: {_tail(log.read_text(errors='replace').splitlines())}")


def _tail(lines: Sequence[str]) -> str:
    return "\n".join(lines[-30:])


def _end(process: subprocess.Popen[bytes]) -> None:
    for sign, seconds in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    with contextlib.suppress(ProcessLookupError):  # its workers, if any outlived it
        os.killpg(process.pid, signal.SIGKILL)

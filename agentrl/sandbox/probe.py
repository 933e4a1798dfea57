"""What this kernel offers to hold programs, found by doing it in a process that ends at once."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.sandbox import kernel, landlock, seccomp
from agentrl.sandbox.result import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAMESPACES = {
    "user": kernel.NEW_USER,
    "pid": kernel.NEW_PID,
    "mount": kernel.NEW_NS,
    "network": kernel.NEW_NET,
    "ipc": kernel.NEW_IPC,
}
JAILS = (Tier.STRICT, Tier.LANDLOCK)
"""What `auto` chooses from, the best one first."""
_COMMON = ("seccomp", "rlimits")
_NEEDED = {
    Tier.STRICT: (*_COMMON, *(f"{kind} namespace" for kind in _NAMESPACES)),
    Tier.BWRAP: _COMMON,
    Tier.LANDLOCK: (*_COMMON, "landlock"),
    Tier.UNCONFINED: ("rlimits",),
}
_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from agentrl.sandbox import probe; probe.main()"
_REPAIRS = {
    "namespace": (
        "Allow them with 'sysctl -w user.max_user_namespaces=15000', on Ubuntu 'sysctl -w "
        "kernel.apparmor_restrict_unprivileged_userns=0', on Debian 'sysctl -w "
        "kernel.unprivileged_userns_clone=1', in a container with '--security-opt seccomp=unconfined'"
    ),
    "landlock": (
        "It needs Linux 6.12 with CONFIG_SECURITY_LANDLOCK and 'landlock' in the lsm= list of the kernel's "
        "command line; in a container the runtime's filter must let landlock_* pass"
    ),
    "seccomp": "It needs CONFIG_SECCOMP_FILTER on x86-64 or aarch64",
    "rlimits": "Raise the hard limits of the session that starts agentrl",
}


@dataclass(frozen=True)
class Layer:
    """One thing that holds programs.

    Attributes:
        works: whether it did when it was tried.
        errno: what the kernel answered, 0 if it worked.
        detail: the version, or the kernel's words.
    """

    name: str
    works: bool
    errno: int = 0
    detail: str = ""

    def sentence(self) -> str:
        """Say what is missing and how to repair it."""
        repair = _REPAIRS[self.name if self.name in _REPAIRS else "namespace"]
        return f"{self.name} is missing (errno {self.errno}, {self.detail}). {repair}."


def probe(python: str = sys.executable) -> Mapping[str, Layer]:
    """Try every layer in processes of their own; return them by name."""
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [python, "-I", "-c", _BOOT, root], env={}, capture_output=True, timeout=60, check=True
    )
    return {item["name"]: Layer(**item) for item in json.loads(done.stdout)}


def missing(found: Mapping[str, Layer], tier: Tier) -> list[str]:
    """Return a sentence for each layer that a tier needs and the machine does not have.

    Whether bubblewrap may make namespaces is seen when it is tried, which opening the tier does.
    """
    return [found[name].sentence() for name in _NEEDED[tier] if not found[name].works]


def main() -> None:
    """Print what was found, as JSON."""
    if os.getuid() == 0:
        os.setresuid(65534, 65534, 65534)
    trials: dict[str, Callable[[], str]] = {
        f"{kind} namespace": lambda flag=flag: _namespace(flag)  # type: ignore[misc]  # a loop's value
        for kind, flag in _NAMESPACES.items()
    }
    trials |= {"landlock": _landlock, "seccomp": _seccomp, "rlimits": _rlimits}
    print(json.dumps([_tried(name, trial) for name, trial in trials.items()]))


def _tried(name: str, trial: Callable[[], str]) -> dict[str, object]:
    """Run a trial in a child, which no layer outlives."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer: list[object] = [True, 0, trial()]
        except OSError as error:
            answer = [False, error.errno or 0, str(error.strerror or error)]
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 4096)
    os.close(reading)
    os.waitpid(child, 0)
    works, errno, detail = json.loads(said) if said else (False, 0, "the process that tried it was killed")
    return {"name": name, "works": works, "errno": errno, "detail": detail}


def _namespace(flag: int) -> str:
    kernel.unshare(kernel.NEW_USER | flag)
    return ""


def _landlock() -> str:
    version = landlock.abi()
    if version:
        landlock.restrict(("/usr",), ())
    if version < landlock.NEEDED_ABI:
        raise OSError(38, f"version {version}; {landlock.NEEDED_ABI} closes signals and abstract sockets")
    try:
        os.listdir("/etc")  # noqa: PTH208  # the door that must be shut
    except PermissionError:
        return f"version {version}"
    raise OSError(0, "a file stayed readable that was not allowed")


def _seccomp() -> str:
    seccomp.install()
    try:
        kernel.unshare(kernel.NEW_UTS)
    except PermissionError:
        return kernel.machine()
    raise OSError(0, "a call went through that the filter denies")


def _rlimits() -> str:
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    try:
        bytearray(2 << 30)
    except MemoryError:
        return ""
    raise OSError(0, "an address space limit was not kept")

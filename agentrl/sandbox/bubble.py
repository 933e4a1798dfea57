"""The tier `bwrap`: bubblewrap makes the namespaces, and our warden is the first process in them.

It is for machines that let bubblewrap make namespaces and nobody else. A jail costs the start of a Python
interpreter, for nothing is left of the fork server behind bubblewrap: modules are imported anew in each.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

from agentrl.sandbox.inmate import DEVICES, ENVIRONMENT, ETC
from agentrl.sandbox.keeper import heard
from agentrl.sandbox.verdict import INSIDE
from agentrl.sandbox.walls import POLLED, landlock_layer

if TYPE_CHECKING:
    import socket

SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
NOBODY = b"nobody:x:65534:65534::/work:/bin/sh\n"
PATIENCE = 20.0
_HERE = Path(__file__).resolve().parent
_BOOT = "import sys; sys.path.insert(0, '/agentrl'); from agentrl.sandbox import inside; inside.main()"


@dataclass(frozen=True)
class Bubblewrap:
    """Walls that bubblewrap builds, once for each jail.

    Attributes:
        program: where bubblewrap lies.
        prefixes: folders of the interpreter; `hidden` are folders in them that no program may read.
        preload: modules to import in every jail.
    """

    program: str
    prefixes: tuple[str, ...]
    hidden: tuple[str, ...]
    preload: tuple[str, ...]
    ahead: ClassVar[bool] = False  # bubblewrap must know how large the work folder is

    def layers(self) -> list[str]:
        """See `Walls`."""
        kinds = ("user", "pid", "mount", "network", "ipc", "uts", "cgroup")
        names = [f"{kind} namespace" for kind in kinds]
        return ["bwrap", *names, "tmpfs", *landlock_layer(), "seccomp", "rlimits", POLLED]

    def prepare(self) -> str:
        """See `Walls`."""
        return "/work"

    def enter(self, orders: socket.socket, work: str, disk: int, errors: int) -> NoReturn:
        """See `Walls`."""
        about = {"orders": orders.fileno(), "readable": self.prefixes, "preload": self.preload}
        command = [*self._command(disk), json.dumps(about)]
        orders.set_inheritable(True)
        # What bubblewrap or the interpreter says before the program begins is the program's to show.
        os.dup2(errors, 2)
        os.execve(command[0], command, self._environment())

    def root(self, started: int, orders: socket.socket) -> int:
        """See `Walls`."""
        poll = select.poll()
        poll.register(orders, select.POLLIN)
        ready = poll.poll(PATIENCE * 1000)
        said = heard(orders) if ready else None
        if said is None:
            why = "it ended; standard error says why" if ready else f"no answer within {PATIENCE:.0f} s"
            raise OSError(0, f"bubblewrap started no jail: {why}")
        return said.pid

    def clear(self, work: str) -> None:
        """See `Walls`; it ended with its namespace."""

    def rehearse(self) -> None:
        """Start an empty jail.

        Raises:
            OSError: it did not start, in bubblewrap's own words.
        """
        done = subprocess.run(
            [*self._command(1 << 20), ""],
            env=self._environment(),
            close_fds=False,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            words = " ".join(done.stderr.split())[-400:]
            raise OSError(0, f"bubblewrap cannot make a jail on this machine: {words}")

    def _environment(self) -> dict[str, str]:
        return {**ENVIRONMENT, "HOME": "/work"}

    def _command(self, disk: int) -> list[str]:
        """Return the command line up to what the warden is told; it holds descriptors for one start."""
        size = ("--size", str(disk), "--perms", "0700", "--tmpfs")
        words = ["--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--as-pid-1"]
        words += ["--uid", str(INSIDE), "--gid", str(INSIDE)]
        for path in ("/work", "/tmp", "/dev/shm"):  # first, for an interpreter may lie below one of them
            words += [*size, path]
        for path in (*SYSTEM, *self.prefixes, *ETC):
            words += _bound(path)
        for name in ("passwd", "group"):
            words += ["--ro-bind-data", str(_content(NOBODY)), f"/etc/{name}"]
        for path in self.hidden:
            words += ["--size", "4096", "--tmpfs", path, "--remount-ro", path]
        for device in (*DEVICES, "/dev/random", "/dev/urandom"):
            words += ["--dev-bind-try", device, device]
        # Of agentrl a jail holds what runs in it; worlds and their answers stay outside.
        for part in ("__init__.py", "errors.py", "sandbox"):
            words += ["--ro-bind", str(_HERE.parent / part), f"/agentrl/agentrl/{part}"]
        words += ["--proc", "/proc", "--remount-ro", "/", "--chdir", "/work"]
        interpreter = Path(sys.executable)
        python = str(interpreter.parent.resolve() / interpreter.name)
        return [self.program, *words, "--", python, "-s", "-P", "-c", _BOOT]


def bubblewrap(prefixes: tuple[str, ...], hidden: list[str], preload: tuple[str, ...]) -> Bubblewrap:
    """Find bubblewrap and try it.

    Raises:
        OSError: it is missing, or makes no jail.
    """
    program = shutil.which("bwrap", path=ENVIRONMENT["PATH"])
    if program is None:
        raise OSError(2, "bubblewrap is missing. Install it, for example with 'apt-get install bubblewrap'")
    within = [path for path in hidden if path.startswith(tuple(f"{top}/" for top in (*SYSTEM, *prefixes)))]
    walls = Bubblewrap(program, prefixes, tuple(within), preload)
    walls.rehearse()
    return walls


def _bound(path: str) -> list[str]:
    if os.path.islink(path) and path in SYSTEM:  # noqa: PTH114  # no pathlib where every millisecond counts
        return ["--symlink", os.readlink(path), path]  # noqa: PTH115
    return ["--ro-bind-try", path, path]


def _content(data: bytes) -> int:
    """Put bytes into a file without a name, to be read once by whatever this process becomes."""
    descriptor = os.memfd_create("content", 0)
    with open(descriptor, "wb", closefd=False) as file:  # a descriptor
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.set_inheritable(descriptor, True)
    return descriptor

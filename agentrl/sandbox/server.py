"""The fork server: imports once, forks one supervisor for each execution, holds no request itself."""

from __future__ import annotations

import codecs
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from agentrl.sandbox import kernel, landlock, seccomp, tree, warden
from agentrl.sandbox.bubble import NOBODY, SYSTEM, bubblewrap
from agentrl.sandbox.inmate import ETC, outrank
from agentrl.sandbox.removal import remove_soon
from agentrl.sandbox.result import Tier
from agentrl.sandbox.supervisor import PATIENCE, House, supervise
from agentrl.sandbox.verdict import INSIDE
from agentrl.sandbox.walls import POLLED, Folder, Namespaces, landlock_layer
from agentrl.sandbox.warden import close_all_but

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentrl.sandbox.walls import Walls

_DEVICES = ("null", "zero", "full", "random", "urandom")


def serve(fd: int, tier: Tier, base: str, preload: tuple[str, ...]) -> NoReturn:
    """Serve until the host hangs up. The first message says whether the house stands."""
    host = socket.socket(fileno=fd)
    try:
        house = _opened(tier, base, preload)
    except BaseException as error:
        host.sendall(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    host.sendall(json.dumps({"layers": house.walls.layers()}).encode())
    door = _waiting(house)
    while True:
        _, fds, _, _ = socket.recv_fds(host, 1, 5)
        if len(fds) not in {2, 5}:
            _close_down(base)
        if not _handed_over(door, fds):
            _handed_over(_waiting(house), fds)
        for each in fds:
            os.close(each)
        door = _waiting(house)


def _close_down(base: str) -> NoReturn:
    """The host hung up, or was killed: end what still runs, and remove the folders that nobody else will."""
    if base:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)  # what falls out of a jail falls to us
        deadline = time.monotonic() + PATIENCE
        while (below := tree.below(os.getpid())[0]) and time.monotonic() < deadline:
            for pid in below:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        remove_soon(base)
    os._exit(0)


def _waiting(house: House) -> socket.socket | None:
    """Start the supervisor of the next jail, so that the jail stands when somebody asks.

    Returns:
        Its door; None where there is no room for another process now. Jails that run go on.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        child = os.fork()
    except OSError:
        ours.close()
        child = -1
    if child == 0:
        # Nothing of the host, and nothing of an execution that is being handed over.
        close_all_but(theirs.fileno())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        supervise(theirs, house)
    theirs.close()
    return ours if child > 0 else None


def _handed_over(door: socket.socket | None, fds: list[int]) -> bool:
    """Give a request to the supervisor that waits; a jail that broke while it waited takes none."""
    if door is None:
        return False
    with door, contextlib.suppress(OSError):
        socket.send_fds(door, [b"x"], fds)
        return True
    return False


def _opened(tier: Tier, base: str, preload: tuple[str, ...]) -> House:
    for name in preload:
        importlib.import_module(name)
    codecs.lookup("ascii")  # every execution writes its maps with it, and would import it anew
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prefixes = _prefixes()
    root = os.getuid() == 0
    if tier is not Tier.BWRAP:  # whose programs come from a process that knows of no rank
        outrank()
    if tier is Tier.STRICT:
        _move_in(prefixes, root=root)
    if root:
        os.setgroups([])
        os.setresgid(INSIDE, INSIDE, INSIDE)
        os.setresuid(INSIDE, INSIDE, INSIDE)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    for prefix in prefixes:
        if not os.access(prefix, os.R_OK | os.X_OK):
            raise PermissionError(
                f"a jailed program cannot read its interpreter at {prefix}, where only its owner may look. "
                "Name one that everybody can read, as in Sandbox(..., python='/usr/bin/python3'), or run as "
                "an ordinary user"
            )
    walls = _WALLS[tier](base, prefixes, preload)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # after the walls, which may start programs
    seccomp.prepare()
    # What is frozen is never visited by the collector, so that forks share its pages.
    gc.collect()
    gc.freeze()
    return House(walls)


def _strict(_base: str, prefixes: tuple[str, ...], _preload: tuple[str, ...]) -> Walls:
    return Namespaces(prefixes, own_network=landlock.abi() < landlock.NEEDED_ABI)


def _bwrap(_base: str, prefixes: tuple[str, ...], preload: tuple[str, ...]) -> Walls:
    return bubblewrap(prefixes, _own_packages(), preload)


def _landlock(base: str, prefixes: tuple[str, ...], _preload: tuple[str, ...]) -> Walls:
    if landlock.abi() < landlock.NEEDED_ABI:
        raise OSError(
            38, f"Landlock {landlock.abi()}, but {landlock.NEEDED_ABI} is needed without namespaces"
        )
    hidden = _own_packages()
    readable = tuple(part for prefix in prefixes for part in without(prefix, hidden))
    return Folder(base, readable, warden.DOMAIN, (*landlock_layer(), "seccomp", "rlimits", POLLED))


def _unconfined(base: str, _prefixes: tuple[str, ...], _preload: tuple[str, ...]) -> Walls:
    return Folder(base, (), warden.OPEN, ("rlimits", POLLED))


_WALLS: dict[Tier, Callable[[str, tuple[str, ...], tuple[str, ...]], Walls]] = {
    Tier.STRICT: _strict,
    Tier.BWRAP: _bwrap,
    Tier.LANDLOCK: _landlock,
    Tier.UNCONFINED: _unconfined,
}


def _own_packages() -> list[str]:
    """Where agentrl lies: worlds there can draw their tasks, answers included, so no program may read it."""
    places = {Path(place).resolve() for place in sys.path if place}
    return sorted(str(found) for place in places for found in place.glob("agentrl*") if found.is_dir())


def without(folder: str, hidden: list[str]) -> list[str]:
    """Return what lies in a folder but for what is hidden: the folder, or the parts of it that remain.

    >>> without("/usr", ["/opt/agentrl"])
    ['/usr']
    """
    if folder in hidden:
        return []
    if not any(place.startswith(f"{folder}/") for place in hidden):
        return [folder]
    return [part for child in sorted(Path(folder).iterdir()) for part in without(str(child), hidden)]


def _prefixes() -> tuple[str, ...]:
    found = {str(Path(path).resolve()) for path in (sys.prefix, sys.base_prefix)}
    # Virtual environments name their interpreter by links that must resolve inside.
    return tuple(sorted(found - {"/usr", "/"}))


def _move_in(prefixes: tuple[str, ...], *, root: bool) -> None:
    """Build a small tree in memory, and make it the root of this process."""
    user, group = os.getuid(), os.getgid()
    if root:
        kernel.unshare(kernel.NEW_NS | kernel.NEW_NET)
    else:
        kernel.unshare(kernel.NEW_USER | kernel.NEW_NS | kernel.NEW_NET)
        kernel.map_identity(INSIDE, user, group)
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    base = _some_folder()
    kernel.mount("tmpfs", base, "tmpfs", kernel.MS_NOSUID, "size=1m,mode=0755")
    # The old root stays reachable below the new one until everything is bound.
    kernel.pivot_root(base, _folder(base, "old"))
    os.chdir("/")
    for path in (*SYSTEM, *prefixes):
        _bind(path)
    for path in ETC:
        _bind(path)
    for name in ("passwd", "group"):
        Path(f"/etc/{name}").write_bytes(NOBODY)
    for name in ("work", "tmp", "dev/shm", "proc"):
        _folder("", name)
    for name in _DEVICES:
        _bind(f"/dev/{name}", device=True)
    for path in _own_packages():
        if Path(path).is_dir():
            kernel.mount("tmpfs", path, "tmpfs", kernel.MS_NOSUID | kernel.MS_RDONLY, "size=4096")
    kernel.mount("/old/proc", "/proc", "", kernel.MS_BIND | kernel.MS_REC)
    kernel.detach("/old")
    Path("/old").rmdir()


def _some_folder() -> str:
    """Return a folder to cover; where nothing can be written, one that is always there."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return "/usr"


def _folder(base: str, name: str) -> str:
    path = Path(f"{base}/{name}")
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


def _bind(path: str, *, device: bool = False) -> None:
    old, new = Path(f"/old{path}"), Path(path)
    if old.is_symlink() and not device:
        new.parent.mkdir(parents=True, exist_ok=True)
        new.symlink_to(old.readlink())
        return
    if not old.exists():
        return
    new.parent.mkdir(parents=True, exist_ok=True)
    if old.is_dir():
        new.mkdir(exist_ok=True)
    else:
        new.touch()
    kernel.mount(str(old), str(new), "", kernel.MS_BIND | kernel.MS_REC)
    flags = kernel.MS_NOSUID | (0 if device else kernel.MS_NODEV)
    kernel.mount("", str(new), "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | flags)


def main() -> NoReturn:
    """Serve as the command line says: a descriptor, a tier, a folder, modules to import."""
    fd, tier, base, *preload = sys.argv[1:]
    serve(int(fd), Tier(tier), base, tuple(preload))

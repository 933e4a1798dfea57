"""System calls that Python has no names for, by ctypes. Every one raises `OSError` with its errno."""

from __future__ import annotations

import ctypes
import os

NEW_NS, NEW_UTS, NEW_IPC = 0x00020000, 0x04000000, 0x08000000
NEW_USER, NEW_PID, NEW_NET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 36, 38, 24

_NUMBERS = {"x86_64": {"pivot_root": 155, "capset": 126}, "aarch64": {"pivot_root": 41, "capset": 91}}
_libc = ctypes.CDLL(None, use_errno=True)


def machine() -> str:
    """Return the architecture, as the kernel names it."""
    return os.uname().machine


def number(name: str) -> int:
    """Return the number of a system call on this architecture.

    Raises:
        OSError: the architecture is not one that we have numbers for.
    """
    if machine() not in _NUMBERS:
        raise OSError(38, f"no system call numbers for {machine()}; x86_64 and aarch64 are known")
    return _NUMBERS[machine()][name]


def _checked(value: int, what: str) -> int:
    if value == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return value


def syscall(what: str, call: int, *arguments: object) -> int:
    """Call by number; `what` names the call in an error."""
    return _checked(int(_libc.syscall(ctypes.c_long(call), *arguments)), what)


def unshare(flags: int) -> None:
    """Leave the namespaces named by the flags."""
    _checked(int(_libc.unshare(ctypes.c_int(flags))), "unshare")


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """Mount a file system, or bind one."""
    text = [item.encode() or None for item in (source, target, kind)]
    value = int(_libc.mount(*text, ctypes.c_ulong(flags), data.encode() or None))
    _checked(value, f"mount {kind or source} at {target}")


def detach(target: str) -> None:
    """Take a mount away from the tree."""
    _checked(int(_libc.umount2(target.encode(), MNT_DETACH)), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root and put the old root at `old`."""
    syscall("pivot_root", number("pivot_root"), new.encode(), old.encode())


def prctl(option: int, value: object, further: object = 0) -> None:
    """Set an attribute of this process."""
    first = value if not isinstance(value, int) else ctypes.c_ulong(value)
    second = further if not isinstance(further, int) else ctypes.c_ulong(further)
    _checked(int(_libc.prctl(option, first, second, ctypes.c_ulong(0), ctypes.c_ulong(0))), f"prctl {option}")


def drop_capabilities() -> None:
    """Give up every capability, for good."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    syscall("capset", number("capset"), ctypes.byref(header), ctypes.byref(data))


def map_identity(inside: int, outside_user: int, outside_group: int) -> None:
    """Write the id maps of the user namespace that this process has just made."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside} {outside_user} 1"),
        ("gid_map", f"{inside} {outside_group} 1"),
    ):
        tell(f"/proc/self/{name}", text)


def tell(path: str, text: str) -> None:
    """Write a word into a file of the kernel's; the layers of `open` would cost more than the call."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)

"""The system calls that a jailed program does not get, as a classic BPF filter for x86-64 and aarch64."""

from __future__ import annotations

import ctypes
import functools
import struct

from agentrl.sandbox.kernel import PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, machine, prctl

# name: (x86-64, aarch64); None where the architecture has no such call.
DENIED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "quotactl_fd": (443, 443),
    "set_mempolicy_home_node": (450, 450),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "vhangup": (153, 58),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
}
# Calls that only reach the caller itself with a first argument of 0.
SELF_ONLY: dict[str, tuple[int, int]] = {"prlimit64": (302, 261), "sched_setaffinity": (203, 122)}
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SOCKETS = {"socket": (41, 198), "socketpair": (53, 199)}
_UNIX = 1
_DATAGRAM = 2  # the bit of SOCK_DGRAM and SOCK_RAW, which neither SOCK_STREAM nor SOCK_SEQPACKET has
_CLONE, _CLONE3, _IOCTL = (56, 220), (435, 435), (16, 29)
_NAMESPACES = 0x7E020080
_TERMINAL = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX type into somebody's terminal

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = _ERRNO | 1, _ERRNO | 38
_NUMBER, _ARCH, _FIRST, _SECOND = 0, 4, 16, 24

Instruction = tuple[int, int, int, int]


def instructions(name: str, *, sockets: bool = True) -> list[Instruction]:
    """Return the filter for an architecture as (code, jump if true, jump if false, operand).

    Args:
        name: "x86_64" or "aarch64".
        sockets: whether the program may make Unix sockets. Without, it gets connected pairs of streams alone:
            a pair of datagrams could be connected to a socket of the host, where no namespace hides its path.

    >>> instructions("x86_64")[0]
    (32, 0, 0, 4)
    """
    column = 0 if name == "x86_64" else 1
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _AUDIT[name]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if column == 0:  # calls of the x32 ABI have bit 30 set and would go past every number below
        program += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]
    for numbers in DENIED.values():
        call = numbers[column]
        if call is not None:
            program += [(_EQUAL, 0, 1, call), (_RETURN, 0, 0, _EPERM)]
    program += [(_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ENOSYS)]
    program += _when(_CLONE[column], [(_LOAD, 0, 0, _FIRST), (_ANY_BIT, 0, 1, _NAMESPACES)])
    for call in (numbers[column] for numbers in _SOCKETS.values()):
        program += _when(call, [(_LOAD, 0, 0, _FIRST), (_EQUAL, 1, 0, _UNIX)])
    if not sockets:
        program += [(_EQUAL, 0, 1, _SOCKETS["socket"][column]), (_RETURN, 0, 0, _EPERM)]
        program += _when(
            _SOCKETS["socketpair"][column], [(_LOAD, 0, 0, _SECOND), (_ANY_BIT, 0, 1, _DATAGRAM)]
        )
    for call in (numbers[column] for numbers in SELF_ONLY.values()):
        program += _when(call, [(_LOAD, 0, 0, _FIRST), (_EQUAL, 1, 0, 0)])
    for request in _TERMINAL:
        program += _when(_IOCTL[column], [(_LOAD, 0, 0, _SECOND), (_EQUAL, 0, 1, request)])
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _when(call: int, test: list[Instruction]) -> list[Instruction]:
    """Refuse the call when the last instruction of the test falls through."""
    body = [*test, (_RETURN, 0, 0, _EPERM), (_LOAD, 0, 0, _NUMBER)]
    return [(_EQUAL, 0, len(body), call), *body]


@functools.cache
def _packed(name: str, *, sockets: bool) -> bytes:
    return b"".join(struct.pack("HBBI", *item) for item in instructions(name, sockets=sockets))


def prepare() -> None:
    """Build the filter of this machine once, before forks that will install it."""
    if machine() in _AUDIT:
        for sockets in (True, False):
            _packed(machine(), sockets=sockets)


def install(*, sockets: bool = True) -> None:
    """Put the filter on this process and on all that it will start; see `instructions`.

    Raises:
        OSError: the kernel or the architecture has no such filter.
    """
    if machine() not in _AUDIT:
        raise OSError(38, f"no filter for {machine()}; x86_64 and aarch64 are known")
    program = _packed(machine(), sockets=sockets)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer)), 16
    )
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, 2, ctypes.byref(header))

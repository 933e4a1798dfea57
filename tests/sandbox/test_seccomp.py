"""The filters of both architectures, decided by an interpreter of their instructions."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from agentrl.sandbox.seccomp import DENIED, SELF_ONLY, instructions

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
COLUMN = {"x86_64": 0, "aarch64": 1}
# Of the two tables, from the kernel's headers.
HARMLESS = {"x86_64": [0, 1, 9, 59, 61, 257], "aarch64": [63, 64, 222, 221, 260, 56]}
CLONE, CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
SOCKET, IOCTL = {"x86_64": 41, "aarch64": 198}, {"x86_64": 16, "aarch64": 29}


def decide(
    machine: str,
    call: int,
    first: int = 0,
    second: int = 0,
    *,
    audit: int | None = None,
    sockets: bool = True,
) -> int:
    """Interpret the classic BPF program as the kernel does: 32-bit loads from the call's description."""
    description = struct.pack(
        "<IIQQQQQQQ", call, AUDIT[machine] if audit is None else audit, 0, first, second, 0, 0, 0, 0
    )
    program = instructions(machine, sockets=sockets)
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", description, operand)[0]
        elif code == 0x06:
            return operand
        else:
            true = {
                0x15: accumulator == operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }[code]
            at += if_true if true else if_false


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_listed_call_is_refused_and_ordinary_ones_are_not(machine: str) -> None:
    for name, numbers in DENIED.items():
        number = numbers[COLUMN[machine]]
        if number is not None:
            assert decide(machine, number) == EPERM, name
    for number in HARMLESS[machine]:
        assert decide(machine, number, 5, 5) == ALLOW, number


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_depends_on_arguments(machine: str) -> None:
    for namespace in (
        0x10000000,
        0x20000000,
        0x40000000,
        0x00020000,
        0x02000000,
        0x04000000,
        0x08000000,
        0x80,
    ):
        assert decide(machine, CLONE[machine], namespace | 17) == EPERM
    assert decide(machine, CLONE[machine], 0x003D0F00) == ALLOW  # a thread of the C library
    assert decide(machine, CLONE3) == ENOSYS
    assert decide(machine, SOCKET[machine], 1) == ALLOW
    for family in (0, 2, 10, 16, 17, 38, 40):
        assert decide(machine, SOCKET[machine], family) == EPERM
    for numbers in SELF_ONLY.values():
        assert decide(machine, numbers[COLUMN[machine]], 0) == ALLOW
        assert decide(machine, numbers[COLUMN[machine]], 1234) == EPERM
    for request in (0x5412, 0x541C):
        assert decide(machine, IOCTL[machine], 0, request) == EPERM
    assert decide(machine, IOCTL[machine], 0, 0x5401) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_without_sockets_there_are_pairs_of_streams(machine: str) -> None:
    pair = {"x86_64": 53, "aarch64": 199}[machine]
    stream, datagram, raw, packets, close_on_exec = 1, 2, 3, 5, 0x80000
    assert decide(machine, SOCKET[machine], 1, stream, sockets=False) == EPERM
    for kind in (stream, packets, stream | close_on_exec):
        assert decide(machine, pair, 1, kind, sockets=False) == ALLOW
        assert decide(machine, pair, 2, kind, sockets=False) == EPERM
    for kind in (datagram, raw, datagram | close_on_exec):
        assert decide(machine, pair, 1, kind, sockets=False) == EPERM
        assert decide(machine, pair, 1, kind) == ALLOW
    for number in HARMLESS[machine]:
        assert decide(machine, number, 5, 5, sockets=False) == ALLOW


def test_another_architecture_is_killed() -> None:
    assert decide("x86_64", 0, audit=0x40000003) == KILL  # 32-bit calls have other numbers
    assert decide("x86_64", 0, audit=AUDIT["aarch64"]) == KILL
    assert decide("x86_64", 0x40000000 | 59) == KILL  # x32
    assert decide("aarch64", 0, audit=0x40000028) == KILL


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("sockets", [True, False])
def test_every_jump_stays_inside(machine: str, *, sockets: bool) -> None:
    program = instructions(machine, sockets=sockets)

    assert len(program) <= 4096
    assert program[-1] == (0x06, 0, 0, ALLOW)
    for at, (code, if_true, if_false, _) in enumerate(program):
        if code in {0x15, 0x35, 0x45}:
            assert max(if_true, if_false) <= 255
            assert at + 1 + max(if_true, if_false) < len(program)


@pytest.mark.parametrize(
    ("machine", "headers"),
    [
        ("x86_64", ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h"]),
        ("aarch64", ["/usr/include/asm-generic/unistd.h"]),
    ],
)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str, headers: list[str]) -> None:
    path = Path(headers[0])
    if not path.exists():
        pytest.skip(f"no {path}: the package linux-libc-dev is not installed")
    pairs = re.findall(r"#define __NR3?(?:_64|264)?_(\w+)\s+(\d+)", path.read_text())
    known = {name: int(number) for name, number in pairs}
    assert len(known) > 200

    for name, numbers in (DENIED | SELF_ONLY).items():
        if name in known:
            assert numbers[COLUMN[machine]] == known[name], name

"""The pipes of one program on the host's side: fed, drained, and counted where they are cut."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import socket

    from agentrl.sandbox.result import Limits


class Streams:
    """Standard input, output and error of one program.

    Attributes:
        limits: of the program.
        theirs: the ends that the program gets.
        flooded: whether it wrote more than it may.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        stdin, self._feed = os.pipe()
        self._out, stdout = os.pipe()
        self._err, stderr = os.pipe()
        self.theirs = [stdin, stdout, stderr]
        self._kept = {self._out: bytearray(), self._err: bytearray()}
        self._seen = {self._out: 0, self._err: 0}
        self._open = {self._feed, self._out, self._err}
        self.flooded = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        for descriptor in self._open:
            os.close(descriptor)
        self._open = set()

    def release(self) -> None:
        """Close the ends that the program has now."""
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = []

    def drain(self, control: socket.socket, stdin: bytes, deadline: float) -> bytes:
        """Feed and drain until the control socket has the verdict; return it, nothing if it never comes.

        Where the program floods its output, `control` is told once.
        """
        for descriptor in self._open:
            os.set_blocking(descriptor, False)
        with selectors.DefaultSelector() as selector:
            selector.register(control, selectors.EVENT_READ)
            for descriptor in (self._out, self._err):
                selector.register(descriptor, selectors.EVENT_READ)
            selector.register(self._feed, selectors.EVENT_WRITE)
            left = memoryview(stdin)
            while time.monotonic() < deadline:
                for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    if key.fileobj is control:
                        return self._rest(control)
                    if key.fd == self._feed:
                        left = self._fed(selector, left)
                    elif not self._drained(key.fd, control):
                        selector.unregister(key.fd)
        return b""

    def _fed(self, selector: selectors.BaseSelector, stdin: memoryview) -> memoryview:
        try:
            written = os.write(self._feed, stdin[: 1 << 16]) if stdin else 0
        except BrokenPipeError:
            written = len(stdin)
        left = stdin[written:]
        if not left:
            selector.unregister(self._feed)
            self._open.discard(self._feed)
            os.close(self._feed)
        return left

    def _drained(self, descriptor: int, control: socket.socket | None) -> bool:
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return True
        kept = self._kept[descriptor]
        kept += data[: max(0, self.limits.kept_output - len(kept))]
        self._seen[descriptor] += len(data)
        if self.written() > self.limits.output and not self.flooded:
            self.flooded = True
            if control is not None:
                control.send(b"k")
        return bool(data)

    def _rest(self, control: socket.socket) -> bytes:
        verdict = _last_words(control)
        for descriptor in (self._out, self._err):
            for _ in range(64):
                before = self._seen[descriptor]
                if not self._drained(descriptor, None) or self._seen[descriptor] == before:
                    break
        return verdict

    def texts(self) -> tuple[str, str]:
        """Return what was kept of standard output and of standard error."""
        out, err = (self._kept[end].decode("utf-8", "replace") for end in (self._out, self._err))
        return out, err

    def written(self) -> int:
        """Return how many bytes came from both together."""
        return sum(self._seen.values())

    def cut(self) -> tuple[int, int]:
        """Return how many bytes of each were left out."""
        first, second = (self._seen[end] - len(self._kept[end]) for end in (self._out, self._err))
        return first, second


def _last_words(control: socket.socket) -> bytes:
    """Read the verdict; where the other side left our word to stop unread, it comes after an error."""
    for _ in range(2):
        with contextlib.suppress(ConnectionResetError):
            return control.recv(1 << 16)
    return b""

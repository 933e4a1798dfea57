"""The `textworld` package as a guest: one thread at a time, and nobody's random numbers touched."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Generator

ONE_AT_A_TIME: Final = threading.RLock()
"""Held wherever textworld's own Python code runs: its parsers are shared by the whole process and keep state,
and worlds that block run in threads. It is Python, so threads gain nothing by running it side by side."""


@contextlib.contextmanager
def undisturbed() -> Generator[None, None, None]:
    """Hold the lock, and keep the global generators as they are: importing textworld draws from NumPy's."""
    with ONE_AT_A_TIME:
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global one, to put it back
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002  # as above

"""Packages as guests: one thread at a time, nobody's random numbers touched, nothing downloaded."""

from __future__ import annotations

import contextlib
import copy
import logging
import random
import sys
import warnings
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import numpy as np

from agentrl.errors import AgentrlError, ConfigError, EnvironmentFault
from agentrl_envs.textworld.engine import ONE_AT_A_TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")
PATIENCE: Final = 120.0
"""Seconds to wait for another guest of this process to finish its turn."""


class Chance:
    """The global generators of `random` and `numpy` as one guest sees them.

    Such packages seed and draw from the global ones. Each instance has a state of its own that is put in
    place for a call and taken away afterwards, so episodes neither disturb each other nor anybody else.
    """

    def __init__(self, seed: int = 0) -> None:
        self._state: tuple[object, object] = (0, 0)
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Begin anew from a seed."""
        drawn = np.random.RandomState(seed % 2**32)
        self._state = random.Random(seed).getstate(), drawn.get_state()

    @contextlib.contextmanager
    def at_work(self) -> Generator[None]:
        """Let the guest draw; what it drew is remembered."""
        with alone(), contextlib.redirect_stdout(sys.stderr):
            before = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global one, to put it back
            _put(self._state)
            try:
                yield
            finally:
                self._state = random.getstate(), np.random.get_state()  # noqa: NPY002  # as above
                _put(before)

    @contextlib.contextmanager
    def on_trial(self) -> Generator[None]:
        """Let the guest draw, and forget what it drew."""
        kept = self._state
        try:
            with self.at_work():
                yield
        finally:
            self._state = kept


class Pristine(Generic[T]):
    """A world as it was made, from which each episode takes a copy; snapshots share it.

    Some guests keep in themselves what an episode did: a deck that was shuffled, a count of episodes.
    """

    def __init__(self, made: T) -> None:
        self._made = made

    def copy(self) -> T:
        """Return a copy that nobody has played."""
        return copy.deepcopy(self._made)

    def __deepcopy__(self, memo: dict[int, object]) -> Pristine[T]:
        return self


def _put(state: tuple[object, object]) -> None:
    random.setstate(state[0])  # type: ignore[arg-type]  # what getstate gave
    np.random.set_state(state[1])  # type: ignore[arg-type]  # noqa: NPY002  # what get_state gave; the global one


@contextlib.contextmanager
def alone() -> Generator[None]:
    """Hold the lock of all guests. Raises `EnvironmentFault` if another one keeps it too long."""
    if not ONE_AT_A_TIME.acquire(timeout=PATIENCE):
        raise EnvironmentFault(f"another world of this process has not finished its turn in {PATIENCE:g} s.")
    try:
        yield
    finally:
        ONE_AT_A_TIME.release()


def made(what: str, make: Callable[[], T], chance: Chance) -> T:
    """Import or make something of a guest, and return it.

    Raises:
        ConfigError: it cannot be made here; the message says why.
    """
    try:
        with chance.at_work(), _quiet():
            return make()
    except AgentrlError:
        raise
    except LookupError as error:
        if "nltk" not in str(error).lower():
            raise ConfigError(f"{what} cannot be made: {_why(error)}.") from error
        raise ConfigError(
            f"{what} needs NLTK's word list, which is not on this machine, and nothing is downloaded by "
            "itself: python -m nltk.downloader words"
        ) from error
    except Exception as error:
        raise ConfigError(f"{what} cannot be made: {_why(error)}.") from error


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """No downloads, no warnings of other people's syntax, and the root logger as it was."""
    root, level, handlers = logging.root, logging.root.level, list(logging.root.handlers)
    try:
        with warnings.catch_warnings(), _nothing_downloaded():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


@contextlib.contextmanager
def _nothing_downloaded() -> Generator[None]:
    """Make `nltk.download`, which games call each time they are made, do nothing."""
    try:
        import nltk  # pyright: ignore[reportMissingImports]  # an extra that may be absent
    except ImportError:
        yield
        return
    download = nltk.download
    nltk.download = _no_download
    try:
        yield
    finally:
        nltk.download = download


def _no_download(*_given: object, **_named: object) -> bool:
    return False


def _why(error: Exception) -> str:
    words = " ".join(str(error).split())[:200].rstrip(".")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__

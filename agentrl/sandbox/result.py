"""What is asked of a sandbox and what it answers."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MIB = 1 << 20
MOST_SECONDS = 1_000_000
MOST_BYTES = 1 << 60
MOST_SEED = 1 << 64
MOST_NAME = 255
MOST_PATH = 2048


class Status(StrEnum):
    """How an execution ended. Only `INFRA_ERROR` is ours; everything else is the program's own."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output_limit"
    KILLED = "killed"
    INFRA_ERROR = "infra_error"


class Tier(StrEnum):
    """How strongly a program is held; the first three are our own jail, and hold what nobody trusts.

    `UNCONFINED` holds neither files nor the network. `REMOTE` is whatever a server elsewhere does.
    """

    STRICT = "strict"
    BWRAP = "bwrap"
    LANDLOCK = "landlock"
    UNCONFINED = "unconfined"
    REMOTE = "remote"


@dataclass(frozen=True)
class Limits:
    """What one execution may use.

    Attributes:
        wall_seconds: the whole execution, whatever its processes do; a cell's from when it has begun.
        memory: bytes of all processes together; watched every 20 ms. Of a session, beyond what its jail
            held before the first cell.
        disk: bytes of the work folder, and the largest file.
        processes: processes and threads together.
        kept_output: bytes kept of standard output and of standard error each; the rest is counted.
        output: bytes of both together at which the program is stopped.
    """

    wall_seconds: float = 10.0
    memory: int = 1024 * MIB
    disk: int = 32 * MIB
    processes: int = 32
    kept_output: int = 64 << 10
    output: int = 8 * MIB

    def __post_init__(self) -> None:
        check_number("wall_seconds of the limits", self.wall_seconds, MOST_SECONDS)
        for name in ("memory", "disk", "processes", "kept_output", "output"):
            check_whole(f"{name} of the limits", getattr(self, name), 1, MOST_BYTES)


@dataclass(frozen=True)
class ExecutionResult:
    """What became of one execution.

    Attributes:
        returncode: of the program; None if it was stopped.
        signal: that ended the program, or 0.
        truncated: bytes of standard output and of standard error that were left out.
        wall_seconds: from the request to the result; cpu_seconds counts all processes that were waited for.
        peak_memory: bytes, all processes together, as polled.
        layers: what held the program, in words such as "pid namespace".
        message: why, where the sandbox itself failed or had to stop the program.
        state_lost: of a cell: whether the variables of its session are gone, by the program's own doing.
    """

    status: Status
    returncode: int | None = None
    stdout: str = ""
    stderr: str = ""
    signal: int = 0
    truncated: tuple[int, int] = (0, 0)
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    tier: Tier | None = None
    layers: tuple[str, ...] = ()
    message: str = ""
    state_lost: bool = False

    @property
    def ok(self) -> bool:
        """Whether the program ended by itself with 0."""
        return self.status is Status.OK


@dataclass(frozen=True)
class Program:
    """What is to be run: Python source, or the words of a command.

    Attributes:
        code: Python source; empty if there is a command.
        argv: a command that the jail can see, such as ("/bin/sh", "-c", "ls").
        files: relative path to content, laid into the work folder.
        stdin: what the program reads; as in files, half a character becomes a question mark.
        seed: reseeds the generators of `random` and, where it was pre-imported, of numpy.
        setup: Python that runs before the code and makes names for it.
    """

    code: str = ""
    argv: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    seed: int = 0
    setup: str = ""

    def __post_init__(self) -> None:
        for name in ("code", "stdin", "setup"):
            check_text(f"{name} of a program", getattr(self, name))
        check_whole("the seed of a program", self.seed, -MOST_SEED, MOST_SEED)
        files: object = self.files
        if not isinstance(files, Mapping):
            raise TypeError(f"files of a program map paths to texts; got {files!r:.60}.")
        for path, content in self.files.items():
            _check_path(path)
            check_text(f"the content of the file {path!r:.60}", content)
        _check_apart(self.files)
        argv: object = self.argv
        if not isinstance(argv, tuple | list):
            raise TypeError(f"argv of a program is a tuple of words; got {argv!r:.60}. Split it into words.")
        for word in self.argv:
            check_text("a word of a command", word)

    def size(self) -> int:
        """Return the bytes of its files."""
        return sum(len(content.encode("utf-8", "replace")) for content in self.files.values())


class Verdict(StrEnum):
    """What a grader found. Only `CORRECT` and `WRONG` are rewards; the others are counted apart."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"
    GRADER_ERROR = "grader_error"


@dataclass(frozen=True)
class Grade:
    """What a grader says about one answer.

    Attributes:
        score: between 0 and 1; 0 unless the verdict is correct or wrong. A wrong answer may have a score,
            such as its F1.
        message: why; for people, for it may show the reference.

    >>> Grade(Verdict.CORRECT, 1.0).reward
    1.0
    >>> Grade(Verdict.TIMEOUT, message="9**9**9 did not end").reward is None
    True
    """

    verdict: Verdict
    score: float = 0.0
    message: str = ""

    def __post_init__(self) -> None:
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"the score of a grade must be between 0 and 1; got {self.score!r}.")

    @property
    def reward(self) -> float | None:
        """The score, or None where the grader cannot tell: mask or count it, never take it for 0."""
        return self.score if self.verdict in {Verdict.CORRECT, Verdict.WRONG} else None


def check_text(what: str, value: object) -> None:
    """Raise `TypeError` where a value is no text."""
    if not isinstance(value, str):
        hint = " Decode it first." if isinstance(value, bytes | bytearray) else ""
        raise TypeError(f"{what} must be a text; got {value!r:.60}.{hint}")


def _check_path(path: str) -> None:
    """Raise `TypeError` or `ValueError` where a value is no path of a file within the work folder."""
    check_text("the path of a file", path)
    place = posixpath.normpath(path)
    if "\0" in path or posixpath.isabs(path) or place.split("/")[0] in {".", ".."} or path.endswith("/"):
        raise ValueError(f"the path of a file must lead to a file in the work folder; got {path!r:.60}.")
    if not _fits(place):
        raise ValueError(
            f"the path of a file must be UTF-8, with names of at most {MOST_NAME} bytes and {MOST_PATH:,} in "
            f"all; got {path!r:.60}."
        )


def _fits(path: str) -> bool:
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return False
    return len(encoded) <= MOST_PATH and max(map(len, encoded.split(b"/"))) <= MOST_NAME


def _check_apart(paths: Iterable[str]) -> None:
    """Raise `ValueError` where one path is a file and another lies below it, or is the same."""
    places: dict[str, str] = {}
    for path in paths:
        place = posixpath.normpath(path)
        if place in places:
            raise ValueError(f"{places[place]!r:.60} and {path!r:.60} are the same file; give it once.")
        places[place] = path
    for place, path in places.items():
        folder = posixpath.dirname(place)
        while folder:
            if folder in places:
                raise ValueError(
                    f"{places[folder]!r:.60} is a file, so {path!r:.60} cannot lie in it; rename one of them."
                )
            folder = posixpath.dirname(folder)


def check_number(what: str, value: object, most: float) -> None:
    """Raise `TypeError` or `ValueError` where a value is no number above 0 and up to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} must be a number; got {value!r:.60}.")
    if not 0 < value <= most:
        raise ValueError(f"{what} must be > 0 and at most {most:,}; got {value!r:.60}.")


def check_whole(what: str, value: object, least: float = -math.inf, most: float = math.inf) -> None:
    """Raise `TypeError` or `ValueError` where a value is no whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be a whole number; got {value!r:.60}.")
    if not least <= value <= most:
        raise ValueError(f"{what} must be from {least:,} to {most:,}; got {value!r:.60}.")


def check_is(what: str, value: object, kind: type, hint: str = "") -> None:
    """Raise `TypeError` where a value is of another kind than it must be."""
    if not isinstance(value, kind):
        raise TypeError(f"{what} must be a {kind.__name__}; got {value!r:.60}.{hint and f' {hint}'}")


def is_text(value: object) -> bool:
    """Say whether a value is a text: what a model gives may be anything."""
    return isinstance(value, str)


def no_texts(answer: object, gold: object) -> Grade | None:
    """Grade an answer or a gold one that is no text; None where both are texts."""
    if not is_text(gold):
        return Grade(Verdict.GRADER_ERROR, message=f"a gold answer is a text; got {type(gold).__name__}")
    if not is_text(answer):
        return Grade(Verdict.UNPARSABLE, message=f"an answer is a text; got {type(answer).__name__}")
    return None

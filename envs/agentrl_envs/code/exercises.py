"""Functions to write, drawn from a seed: a sentence with its own figures, and hidden tests."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from agentrl.sandbox.graders.programs import CallTest
from agentrl_envs.code.work import Exercise

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

_TESTS: Final = 8
_LETTERS: Final = "abcdefghij"


def _of_list(
    rng: random.Random, name: str, task: str, solution: Callable[[list[int]], object], spread: int = 50
) -> Exercise:
    """Make an exercise whose numbers are first changed in a way that is drawn, too."""
    times, more = rng.randint(2, 9), rng.randint(1, 30)
    lengths = (0, 1, *(rng.randint(2, 25) for _ in range(_TESTS - 2)))
    inputs = [[rng.randint(-spread, spread) for _ in range(length)] for length in lengths]
    first = f"It takes a list of integers and first replaces each number x by {times} * x + {more}."
    changed = [[times * value + more for value in values] for values in inputs]
    tests = zip(inputs, map(solution, changed), strict=True)
    return _exercise(name, f"{first} {task}", tests)


def _of_text(rng: random.Random, name: str, task: str, solution: Callable[[str], object]) -> Exercise:
    """Make an exercise whose text first loses two letters that are drawn, too."""
    lost = "".join(sorted(rng.sample(_LETTERS, 2)))
    inputs = _words(rng)
    first = f"It takes a text of small letters and first removes the letters {lost[0]} and {lost[1]} from it."
    changed = ["".join(letter for letter in text if letter not in lost) for text in inputs]
    tests = zip(inputs, map(solution, changed), strict=True)
    return _exercise(name, f"{first} {task}", tests)


def _exercise(name: str, task: str, tests: Iterable[tuple[object, object]]) -> Exercise:
    hidden = tuple(CallTest(name, (value,), expected) for value, expected in tests)
    return Exercise(f"Write a Python function `{name}` with one argument. {task}", hidden, name)


def _words(rng: random.Random) -> list[str]:
    lengths = (0, 1, *(rng.randint(2, 30) for _ in range(_TESTS - 2)))
    return ["".join(rng.choice(_LETTERS[: rng.choice((2, 10))]) for _ in range(length)) for length in lengths]


def rotate(rng: random.Random) -> Exercise:
    """Draw a rotation of a list."""
    steps = rng.randint(1, 12)

    def solution(values: list[int]) -> list[int]:
        return [values[(place - steps) % len(values)] for place in range(len(values))]

    return _of_list(rng, "rotate", f"It returns them rotated {steps} places to the right.", solution)


def shift(rng: random.Random) -> Exercise:
    """Draw a shift of letters."""
    steps = rng.randint(1, 25)

    def solution(text: str) -> str:
        return "".join(chr((ord(letter) - 97 + steps) % 26 + 97) for letter in text)

    task = f"It returns the rest with each letter moved {steps} places on in the alphabet, from z back to a."
    return _of_text(rng, "shift", task, solution)


def count_runs(rng: random.Random) -> Exercise:
    """Draw a count of long runs."""
    least = rng.randint(2, 4)

    def solution(text: str) -> int:
        count, length = 0, 0
        for place, letter in enumerate(text):
            length = length + 1 if place and text[place - 1] == letter else 1
            count += length == least
        return count

    task = (
        f"It returns how many runs of one and the same letter in the rest have a length of at least {least}."
    )
    return _of_text(rng, "count_runs", task, solution)


def window_sums(rng: random.Random) -> Exercise:
    """Draw sums over windows."""
    width = rng.randint(2, 6)

    def solution(values: list[int]) -> list[int]:
        sums, total = [], 0
        for place, value in enumerate(values):
            total += value - (values[place - width] if place >= width else 0)
            if place >= width - 1:
                sums.append(total)
        return sums

    task = f"It returns the list of the sums of each {width} neighbours, in order."
    return _of_list(rng, "window_sums", task, solution)


def frequent(rng: random.Random) -> Exercise:
    """Draw values by how often they occur."""
    times = rng.randint(2, 3)

    def solution(values: list[int]) -> list[int]:
        return sorted(value for value, count in Counter(values).items() if count >= times)

    task = f"It returns those that occur at least {times} times, each once, in ascending order."
    return _of_list(rng, "frequent", task, solution, spread=4)


def count_pairs(rng: random.Random) -> Exercise:
    """Draw a count of pairs with a sum."""
    total = 2 * rng.randint(-10, 20)

    def solution(values: list[int]) -> int:
        seen: Counter[int] = Counter()
        count = 0
        for value in values:
            count += seen[total - value]
            seen[value] += 1
        return count

    task = f"It returns how many pairs of different places hold numbers that add up to {total}."
    return _of_list(rng, "count_pairs", task, solution, spread=10)


FAMILIES: Final[tuple[Callable[[random.Random], Exercise], ...]] = (
    rotate, shift, count_runs, window_sums, frequent, count_pairs,
)  # fmt: skip

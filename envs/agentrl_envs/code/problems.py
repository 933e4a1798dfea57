"""Word problems drawn from a seed. Each answer is computed here in closed form or by direct counting.

The scripted solver computes them in another way, from the text alone; tests compare the two.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

from agentrl_envs.code.work import Problem

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

_NAMES: Final = ("Ada", "Ben", "Chen", "Dina", "Emil", "Fatou", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena")
_GOODS: Final = (("pens", "books"), ("cups", "plates"), ("apples", "melons"), ("nails", "boards"))


def change(rng: random.Random) -> Problem:
    """Draw what is left of a note after two kinds of goods."""
    name, (cheap, dear) = rng.choice(_NAMES), rng.choice(_GOODS)
    prices, counts = (rng.randint(2, 19), rng.randint(20, 75)), (rng.randint(2, 30), rng.randint(2, 9))
    due = prices[0] * counts[0] + prices[1] * counts[1]
    note = due + rng.randint(1, 99)
    return Problem(
        f"{name} buys {counts[0]} {cheap} at {prices[0]} dollars each and {counts[1]} {dear} at {prices[1]} "
        f"dollars each, and pays with {note} dollars. How many dollars does {name} get back?",
        str(note - due),
        "change",
    )


def savings(rng: random.Random) -> Problem:
    """Draw an account whose yearly interest is cut to whole dollars."""
    start, percent, years = rng.randint(500, 9000), rng.randint(2, 12), rng.randint(5, 40)
    held = start
    for _ in range(years):
        held += held * percent // 100
    return Problem(
        f"An account holds {start} dollars. At the end of each year it earns {percent} percent interest, cut "
        f"to whole dollars, which stays in the account. How many dollars does it hold after {years} years?",
        str(held),
        "savings",
    )


def multiples(rng: random.Random) -> Problem:
    """Draw a count of multiples, by inclusion and exclusion."""
    top = rng.randint(500, 20_000)
    first, second = rng.sample((2, 3, 5, 7, 11, 13), 2)
    both = top // (first * second)
    return Problem(
        f"How many whole numbers from 1 to {top} are divisible by {first} or by {second}, but not by both?",
        str(top // first + top // second - 2 * both),
        "multiples",
    )


def digits(rng: random.Random) -> Problem:
    """Draw the sum of the digits of a large power."""
    base, exponent = rng.randint(2, 19), rng.randint(30, 400)
    value, total = base**exponent, 0
    while value:
        value, digit = divmod(value, 10)
        total += digit
    return Problem(
        f"What is the sum of the decimal digits of {base} to the power of {exponent}?", str(total), "digits"
    )


def meeting(rng: random.Random) -> Problem:
    """Draw when a faster walker catches up; the answer may be a fraction."""
    slow = rng.randint(40, 90)
    fast, ahead = slow + rng.randint(5, 60), rng.randint(3, 50)
    first, second = rng.sample(_NAMES, 2)
    return Problem(
        f"{first} walks {slow} metres each minute and has a start of {ahead} minutes. {second} follows on "
        f"the same path with {fast} metres each minute. After how many minutes of walking does {second} "
        f"catch up with {first}? Give the exact value.",
        str(Fraction(slow * ahead, fast - slow)),
        "meeting",
    )


def recurrence(rng: random.Random) -> Problem:
    """Draw a term of a linear recurrence with a modulus."""
    first, second = rng.randint(1, 9), rng.randint(1, 9)
    times, modulus, term = rng.randint(2, 6), rng.choice((97, 101, 997, 1009)), rng.randint(15, 90)
    values = [first, second]
    while len(values) < term:
        values.append((times * values[-1] + values[-2]) % modulus)
    return Problem(
        f"A sequence begins with {first} and {second}. Each further term is {times} times the term before it "
        f"plus the term before that, modulo {modulus}. What is term number {term}?",
        str(values[term - 1]),
        "recurrence",
    )


def primes(rng: random.Random) -> Problem:
    """Draw the sum of the primes of a range, by a sieve."""
    low = rng.randint(10, 900)
    high = low + rng.randint(60, 900)
    sieve = bytearray([1]) * (high + 1)
    sieve[:2] = b"\0\0"
    for number in range(2, int(high**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, high + 1, number)))
    total = sum(number for number in range(low, high + 1) if sieve[number])
    return Problem(f"What is the sum of all prime numbers from {low} to {high}?", str(total), "primes")


FAMILIES: Final[tuple[Callable[[random.Random], Problem], ...]] = (
    change, savings, multiples, digits, meeting, recurrence, primes,
)  # fmt: skip

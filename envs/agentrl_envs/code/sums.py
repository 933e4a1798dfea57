"""Questions of one or two operations on small whole numbers, which a small model learns from few examples.

As in `problems`, each answer is computed here, and the scripted solver computes it in another way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from agentrl_envs.code.work import Problem

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

SMALLEST: Final = 9
_NAMES: Final = ("Ada", "Ben", "Dina", "Emil", "Hana", "Ivo", "Kofi", "Lena")
_GOODS: Final = ("pens", "cups", "apples", "nails")


@dataclass(frozen=True)
class Sum:
    """One kind of question.

    Attributes:
        kind: the task type, for reports.
        text: the sentence; holes are a, b, c (numbers), name, other, third (people) and goods.
        answer: from a, b and c.
        largest: number that a question may name, and largest answer.
    """

    kind: str
    text: str
    answer: Callable[[int, int, int], int]
    largest: int = 99

    def __call__(self, rng: random.Random) -> Problem:
        """Draw a question whose answer is between 1 and the largest number."""
        while True:
            a, b, c = (rng.randint(2, self.largest) for _ in range(3))
            answer = self.answer(a, b, c)
            if 0 < answer <= self.largest:
                break
        name, other, third = rng.sample(_NAMES, 3)
        goods = rng.choice(_GOODS)
        text = self.text.format(a=a, b=b, c=c, name=name, other=other, third=third, goods=goods)
        return Problem(text, str(answer), self.kind)


def _price(a: int, b: int, c: int) -> int:
    del c
    return a * b


def _both(a: int, b: int, c: int) -> int:
    del c
    return 2 * a + b


def _left(a: int, b: int, c: int) -> int:
    return a - b - c


def _stock(a: int, b: int, c: int) -> int:
    return a * b + c


def _full(a: int, b: int, c: int) -> int:
    del c
    return a // b


def _over(a: int, b: int, c: int) -> int:
    del c
    return a % b


def _fence(a: int, b: int, c: int) -> int:
    del c
    return 2 * (a + b)


def _further(a: int, b: int, c: int) -> int:
    return a * b - c


_BOXES: Final = "{name} packs {a} {goods} into boxes of {b}."
_SUMS: Final = (
    Sum("price", "{name} buys {a} {goods} at {b} dollars each. How many dollars does {name} pay?", _price),
    Sum(
        "both",
        "{name} has {a} {goods}. {other} has {b} more than {name}. How many {goods} do both have together?",
        _both,
    ),
    Sum(
        "left",
        "{name} has {a} {goods} and gives {b} to {other} and {c} to {third}. How many {goods} are left?",
        _left,
    ),
    Sum(
        "stock",
        "{a} boxes hold {b} {goods} each, and {c} {goods} lie beside them. How many {goods} are there?",
        _stock,
    ),
    Sum("full", _BOXES + " How many boxes are full?", _full),
    Sum("over", _BOXES + " How many {goods} are left over?", _over),
    Sum("fence", "A garden is {a} metres long and {b} metres wide. How long is the fence round it?", _fence),
    Sum(
        "further",
        "{name} walks {a} metres each minute for {b} minutes, {other} {c} metres. "
        "How many metres further does {name} walk?",
        _further,
    ),
)


def families(largest: int) -> tuple[Callable[[random.Random], Problem], ...]:
    """Return what draws questions whose numbers and answers are at most `largest`."""
    return tuple(replace(one, largest=largest) for one in _SUMS)

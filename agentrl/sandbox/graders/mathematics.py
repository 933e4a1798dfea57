"""Answers of mathematics: numbers exactly and at once, the rest by math-verify in a killable process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec

from agentrl.errors import MissingExtraError, SandboxError
from agentrl.sandbox.result import Grade, Verdict, no_texts
from agentrl.sandbox.worker import WorkerDied, WorkerFailure, WorkerTimeout, shared

MAX_CHARACTERS = 1000
_TARGET = "agentrl.sandbox.graders.mathematics_worker:prepare"
_NOISE = re.compile(r"\\[!,;: ]|\\(?:left|right|displaystyle)(?![a-zA-Z])|\\\$|\$|~")
_THOUSANDS = re.compile(r"(?<!\d)\d{1,3}(?:(?:,|\{,\})\d{3})+(?![\d,])")
_WORDS = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")
_COLUMN = re.compile(r"\\begin\{([bp]matrix)\}([^&]*?)(?:\\\\\s*)?\\end\{\1\}")
_NUMBER = re.compile(r"([-+]?)(\d{1,60}(?:\.\d{0,60})?|\.\d{1,60})(?:[eE]([-+]?\d{1,3}))?")
_FRACTION = re.compile(r"([-+]?)\s*\\[dt]?frac\s*\{\s*(-?\d{1,60})\s*\}\s*\{\s*(-?\d{1,60})\s*\}")
_RATIO = re.compile(r"([-+]?)\s*(\d{1,60})\s*[/:]\s*(\d{1,60})")
_MIXED = re.compile(r"([-+]?)\s*(\d{1,60}) (\d{1,60})\s*/\s*(\d{1,60})")
_POWER = re.compile(r"([-+]?)10\s*\^\s*(?:\{\s*(-?\d{1,3})\s*\}|(\d))")
_INFINITY = re.compile(r"\+?(-?)\s*(?:inf|infinity|\\infty|∞)", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\{")
_UNIT = re.compile(
    r"(?<=[\d})])\s*(?:\^\{?\\circ\}?|°|(?:square |cubic )?[a-zA-Zµ]{1,20}(?:\s*\^\s*\{?[23]\}?)?)$"
)
_UNITS = """
m g s h l d A V W J N K C F L cm mm km nm kg mg lb lbs oz ft in yd mi ml mL cl dl min hr hrs sec ms rad deg
mph kmh Hz kHz USD EUR usd eur
"""
_SHORT_UNITS = frozenset(_UNITS.split())
_PROSE = re.compile(r"^[a-zA-Z' -]*[a-zA-Z]{3}[a-zA-Z' -]*$|^(?:no|No|NO)$")
_OR = re.compile(r"(?<![a-zA-Z\\])or(?![a-zA-Z])")


@dataclass(frozen=True)
class MathGrader:
    r"""Grades a final answer, alone or in the `\boxed{}` of a longer text.

    Numbers, fractions and equal texts are decided here, exactly; the rest goes to math-verify, gold first,
    in a process that is killed when the time is up. Where we depart from math-verify: 10% is 0.1 and not 10
    (a gold 10% accepts a bare 10, for the question may name the unit); two different units are wrong; a list
    of alternatives, two different boxes and a chain such as 12 = 14 are wrong; a ratio 3:4 is 3/4; a column
    is a tuple; an interval equals its inequality both ways; i is the imaginary unit where that makes two
    expressions equal; what divides by zero is unparsable; letters right behind a number are a unit only if
    there is one of that name, so that 3x is not 3.

    Attributes:
        seconds: of CPU, for one comparison.
        boxed: only a text with a box is an answer.
        workers: processes that all graders of this process share.

    >>> MathGrader()(r"so it is \boxed{1{,}250.0}", "1250").verdict
    <Verdict.CORRECT: 'correct'>
    >>> MathGrader()("0.5", r"\frac{1}{2}").reward, MathGrader()("-5", "5").reward
    (1.0, 0.0)
    """

    seconds: float = 5.0
    boxed: bool = False
    workers: int = 1

    def __call__(self, answer: str, gold: str) -> Grade:
        """Grade one answer.

        Raises:
            MissingExtraError: math-verify is needed and not installed.
        """
        if (odd := no_texts(answer, gold)) is not None:
            return odd
        found = boxes(answer)
        if found is None:
            return Grade(Verdict.UNPARSABLE, message="a \\boxed{ is not closed")
        if self.boxed and not found:
            return Grade(Verdict.UNPARSABLE, message="there is no \\boxed{}")
        said = {simplified(item) for item in found or [answer]}
        if len(said) > 1:
            return Grade(Verdict.WRONG, message="several different boxed answers")
        ours, theirs = said.pop(), simplified(_unboxed(gold))
        if not theirs:
            return Grade(Verdict.GRADER_ERROR, message="the task has no gold answer")
        return self._compared(ours, theirs)

    def _compared(self, answer: str, gold: str) -> Grade:
        if answer == gold:
            return Grade(Verdict.CORRECT, 1.0)
        if not 0 < len(answer) <= MAX_CHARACTERS:
            return Grade(Verdict.UNPARSABLE, message=f"an answer has 1 to {MAX_CHARACTERS} characters")
        if _OR.search(answer) and not _OR.search(gold):
            return Grade(Verdict.WRONG, message="the answer lists alternatives")
        decided = _in_words(answer, gold) if _PROSE.search(gold) else _by_value(answer, gold)
        if decided is None:
            return self._verified(answer, gold)
        return Grade(Verdict.CORRECT, 1.0) if decided else Grade(Verdict.WRONG)

    def _verified(self, answer: str, gold: str) -> Grade:
        if find_spec("math_verify") is None:
            raise MissingExtraError("Comparing expressions", "math")
        pool = shared(_TARGET, size=self.workers)
        try:
            said = pool.call({"answer": _bare(answer), "gold": _bare(gold)}, self.seconds)
        except WorkerTimeout:
            return Grade(
                Verdict.TIMEOUT, message=f"the comparison did not end within {self.seconds:g} CPU-seconds"
            )
        except WorkerFailure as error:
            return Grade(Verdict.UNPARSABLE, message=f"math-verify could not compare: {error}")
        except (WorkerDied, SandboxError) as error:
            return Grade(Verdict.GRADER_ERROR, message=str(error))
        verdict = Verdict(str(said["verdict"]))
        return Grade(verdict, float(verdict is Verdict.CORRECT), str(said.get("message", "")))


def boxes(text: str) -> list[str] | None:
    r"""Return what stands in each `\boxed{}` or `\fbox{}`, in order; None where one is not closed.

    >>> boxes(r"\boxed{1} and \boxed{\frac{1}{2}}"), boxes(r"\boxed{1")
    (['1', '\\frac{1}{2}'], None)
    """
    found: list[str] = []
    start = 0
    while match := _BOX.search(text, start):
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if depth:
            return None
        found.append(text[match.end() : end - 1])
        start = end
    return found


def _unboxed(gold: str) -> str:
    found = boxes(gold)
    return found[-1] if found else gold


def simplified(text: str) -> str:
    r"""Remove what has no meaning: dollars, spacing, thousands separators, text marks, a last point.

    >>> simplified(r"$\$1,250.$"), simplified(r"\text{ A }"), simplified("(1,2)"), simplified("1,2")
    ('1250', 'A', '(1,2)', '1,2')
    """
    cut = text if len(text) <= 4 * MAX_CHARACTERS else text[: 4 * MAX_CHARACTERS]
    plain = _WORDS.sub(r" \1", _NOISE.sub(" ", cut.replace("−", "-"))).strip().rstrip(".").strip()
    plain = _COLUMN.sub(_tuple, _THOUSANDS.sub(lambda match: re.sub(r"[,{}]", "", match.group()), plain))
    plain = " ".join(plain.split())
    infinite = _INFINITY.fullmatch(plain)
    return f"{infinite.group(1)}\\infty" if infinite else plain


def _tuple(match: re.Match[str]) -> str:
    return f"({','.join(part.strip() for part in match.group(2).split(chr(92) * 2))})"


def _in_words(answer: str, gold: str) -> bool:
    return answer.casefold() == gold.casefold()


def _by_value(answer: str, gold: str) -> bool | None:
    """Compare two numbers with their units; None where one of them is no plain number."""
    (ours, our_unit), (theirs, their_unit) = _measured(answer), _measured(gold)
    if our_unit and their_unit and our_unit != their_unit and "%" not in {our_unit, their_unit}:
        return False
    first, second = _number(ours), _number(theirs)
    if first is None or second is None:
        return None
    if their_unit == "%" and not our_unit:
        return _close(first, second) or _close(first, second / 100)
    return _close(first / _divisor(our_unit), second / _divisor(their_unit))


def _divisor(unit: str) -> int:
    return 100 if unit == "%" else 1


def _measured(text: str) -> tuple[str, str]:
    """Split a trailing unit from what it measures."""
    if text.endswith("%"):
        return text.removesuffix("%").rstrip().removesuffix("\\").rstrip(), "%"
    match = _UNIT.search(text)
    if match is None or _number(text[: match.start()].strip()) is None:
        return text, ""
    letters = "".join(filter(str.isalpha, match.group()))
    apart = match.group()[:1].isspace() and len(letters) > 1
    if letters and not apart and len(letters) < 4 and letters not in _SHORT_UNITS:
        return text, ""
    return text[: match.start()].strip(), re.sub(r"[\s{}]", "", match.group()).lower()


def _number(text: str) -> Fraction | None:
    if match := _NUMBER.fullmatch(text):
        sign, digits, power = match.groups()
        return Fraction(f"{sign}{digits}e{power or 0}")
    for form in (_FRACTION, _RATIO):
        if (match := form.fullmatch(text)) and int(match.group(3)):
            value = Fraction(int(match.group(2)), int(match.group(3)))
            return -value if match.group(1) == "-" else value
    return _written_out(text)


def _written_out(text: str) -> Fraction | None:
    """Read 1 1/2 and 10^{400}."""
    if (match := _MIXED.fullmatch(text)) and int(match.group(4)):
        value = int(match.group(2)) + Fraction(int(match.group(3)), int(match.group(4)))
    elif match := _POWER.fullmatch(text):
        value = Fraction(10) ** int(match.group(2) or match.group(3))
    else:
        return None
    return -value if match.group(1) == "-" else value


def _close(first: Fraction, second: Fraction) -> bool:
    """Integers and fractions exactly, decimals to six places, like math-verify."""
    if first == second:
        return True
    whole = first.denominator == second.denominator == 1
    return not whole and abs(first - second) <= Fraction(1, 2_000_000)


def _bare(text: str) -> str:
    """Write a per cent sign as math-verify reads it, and leave one unit out."""
    value, unit = _measured(text)
    return f"{value}\\%" if unit == "%" else value

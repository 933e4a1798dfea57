from __future__ import annotations

import time
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.sandbox.graders.answers import AnswerGrader, contains, exact_match, f1, tokens, weak_golds
from agentrl.sandbox.result import Grade, Verdict

EXACT, CONTAINED = AnswerGrader(), AnswerGrader(contained=True)
SHOTGUNS = [
    "Paris & Rome & Bonn",
    "Paris - Rome - Bonn",
    "1. Paris 2. Rome 3. Bonn",
    "Paris? Rome? Bonn?",
    "Paris vs. Rome vs. Bonn",
    "Paris. Rome. Bonn. Oslo.",
    "[Paris] [Rome]",
    "Paris (Rome) (Bonn)",
    "Paris and Rome",
    "Paris plus Rome",
    "paris rome bonn oslo",
    "Paris\tRome\tBonn",
    "Paris → Rome",
    "Paris • Rome",
    "Paris is Rome is Bonn",
    "It is Paris. It is Rome.",
    "It is Rome Paris Bonn",
    "It is not Paris",
    "not Paris",
    "I don't think it's Paris",
]
DENIALS = [
    "Paris is wrong",
    "Paris is incorrect.",
    "Paris is silly",
    "Paris is the wrong answer",
    "Paris is the answer of fools",
    "Paris is ruled out",
    "it is false that it is Paris",
    "It is absurd that it is Paris",
    "They swear it is Paris",
    "Only fools say it is Paris",
    "I would bet against it being Paris, it is Paris they say",
    "Nobody was born in Paris",
    "the wrong answer is Paris",
    "I doubt that the capital is Paris",
    "people claim the capital is Paris",
    "The claim that it is Paris",
    "It is Paris that is wrong",
    "anything but Paris",
    "Paris? Hardly.",
]
LONG = " ".join(f"word{number}" for number in range(200))


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        # S1: golds that the usual normaliser turns into nothing (both are in HotpotQA's dev set).
        ("", "The The", False),
        ("The The", "The The", True),
        ("the", "The The", False),
        ("", "!!!", False),
        ("!!!", "!!!", True),
        ("A", "A", True),
        # S5
        ("-5", "5", False),
        ("1.5", "15", False),
        (".5", "5", False),
        ("0.50", ".5", True),
        ("5%", "5", False),
        ("C++", "C#", False),
        ("C", "C++", False),
        ("1,000,000", "1000000", True),
        ("U.S.", "us", True),
        ("2010-2014", "2010–2014", True),
        # S7
        ("“\uff30aris”", "Paris", True),
        ("rock’n’roll", "rock'n'roll", True),
        ("Par\u200bis", "Paris", True),
        ("Jean-Luc", "Jean Luc", True),
        ("Straße", "STRASSE", True),
    ],
)
def test_exact_match(answer: str, gold: str, right: bool) -> None:
    assert exact_match(answer, gold) is right
    assert (EXACT(answer, gold).verdict is Verdict.CORRECT) is right


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("The capital is Paris.", "Paris", True),
        # S2
        ("2010", "1", False),
        ("It was in November", "no", False),
        ("anything at all", "!", False),
        ("anything", "The", False),
        ("Vitamin K helps", "K", False),
        ("It is K", "K", False),
        ("It is 5", "5", True),
        ("It is -5", "5", False),
        ("5 or 6", "5", False),
        ("There are 15", "5", False),
        # S3
        ("Paris or Rome or Berlin", "Paris", False),
        ("Paris, Rome, Berlin", "Paris", False),
        ("Paris / Rome", "Paris", False),
        ("Paris, France", "Paris, France", True),
        # S4
        ("Who was born first, Ann Lee or Bob Ray?", "Ann Lee", False),
        (f"{LONG} Paris", "Paris", False),
        # One place of a sentence is its answer, and nothing else may stand there.
        *((text, "Paris", False) for text in [*SHOTGUNS, *DENIALS]),
        # What the rules of form do not see, as the documentation says.
        ("Paris is a trap", "Paris", True),
        ("The last guess is Paris", "Paris", True),
        ("Paris is correct", "Paris", True),
        ("Paris is my final answer", "Paris", True),
        ("I think that the answer is Paris", "Paris", True),
        ("Her birthplace was Paris", "Paris", True),
        ("What they called it was Paris", "Paris", True),
        ("It is 42 or so", "42", True),
        ("The capital of France is Paris.", "Paris", True),
        ("the capital of France is paris", "Paris", True),
        ("Paris is the capital of France.", "Paris", True),
        ("Paris is the capital of France.", "France", False),
        ("Ann Lee was an opera singer from Kent", "Ann Lee", True),
        ("Ann Lee was born in Kent", "Ann Lee", False),
        ("Ann Lee was born in Kent", "Kent", True),
        ("Paris is bigger than Rome", "Paris", False),
        ("Paris is Rome", "Paris", False),
        ("Paris is the capital of France. Rome is the capital of Italy.", "Paris", False),
        ("Paris Rome is the capital of France", "Paris", False),
        ("Paris and Rome are the capitals of France", "Paris", False),
        ("I think it was the Eiffel Tower", "Eiffel Tower", True),
        ("Ann Lee was born first.", "Ann Lee", True),
        ("She was born in Paris", "Paris", True),
        ("It is Life Is Beautiful", "Life Is Beautiful", True),
        ("The final answer: **Paris**", "Paris", True),
        ("It is ~~Paris~~", "Paris", False),
        ("It is ~~Paris~~ Rome", "Rome", True),
        ("It is ~~Paris", "Paris", True),  # nothing is struck out
        ("paris is rome", "paris", False),
        ("Paris is rome", "rome", False),
        ("I don't believe it is Not Without My Daughter", "Not Without My Daughter", False),
        # S6
        ("no, the second one was", "no", False),
        ("no", "no", True),
    ],
)
def test_contained(answer: str, gold: str, right: bool) -> None:
    assert contains(answer, gold) is right
    assert (CONTAINED(answer, gold).verdict is Verdict.CORRECT) is right


def test_f1_by_hand() -> None:
    # answer: {barack, obama, sr}, gold: {barack, obama}; 2 common, precision 2/3, recall 1, F1 = 4/5.
    assert f1("the Barack Obama Sr.", "Barack Obama") == pytest.approx(0.8)
    assert f1("no, Ann", "no") == 0.0  # S6
    assert f1("no way", "yes") == 0.0
    assert f1("", "") == 0.0


def test_the_best_gold_counts() -> None:
    assert EXACT("NYC", ["New York", "nyc"]).reward == 1.0
    assert AnswerGrader(partial=True)("New York City", ["Rome", "New York"]).score == pytest.approx(0.8)


@pytest.mark.parametrize("golds", [[], "", [" "]])
def test_no_gold_is_an_error_of_the_data(golds: list[str] | str) -> None:
    assert EXACT("x", golds).verdict is Verdict.GRADER_ERROR
    assert EXACT("", golds).reward is None


def test_s8_a_huge_answer_is_wrong_at_once() -> None:
    began = time.process_time()
    assert AnswerGrader(partial=True, contained=True)("Paris " * 200_000, "Paris") == Grade(
        Verdict.WRONG, 0.0, "the answer is longer than 10,000 characters"
    )
    for huge in ("a.b" * 3333, "-" * 9_999, "1," * 5_000, "'" * 9_999, "a'" * 4_999):
        tokens(huge)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("odd", [None, 5, b"x", ["x"]])
def test_what_is_no_text_is_no_answer_and_no_gold(odd: object) -> None:
    assert EXACT(cast("str", odd), ["x"]).verdict is Verdict.UNPARSABLE
    assert EXACT("x", [cast("str", odd)]).verdict is Verdict.GRADER_ERROR
    assert EXACT("x", cast("str", None)).verdict is Verdict.GRADER_ERROR
    assert EXACT("x", ("x",)).reward == EXACT("x", "x").reward == 1.0


def test_weak_golds_are_named() -> None:
    assert len(weak_golds(["The The", "!!!", "", "Paris", "5"])) == 3


@given(st.text(max_size=60), st.text(max_size=60))
def test_scores_are_bounded_symmetric_and_one_for_equals(first: str, second: str) -> None:
    assert 0.0 <= f1(first, second) <= 1.0
    assert f1(first, second) == pytest.approx(f1(second, first))
    assert exact_match(first, second) == exact_match(second, first)
    assert exact_match(first, first) is bool(first.strip())
    assert not exact_match(first, second) or contains(first, second)

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import pytest

from agentrl.sandbox.graders.mathematics import MathGrader
from agentrl.sandbox.result import Verdict
from agentrl.sandbox.worker import close_shared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("math_verify", reason="math-verify is not installed: pip install 'agentrl[math]'")


@pytest.fixture(scope="module", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    close_shared()


GRADER = MathGrader(seconds=2)
# (answer, gold, verdict); the first block is where math-verify alone errs, as a list of its false negatives
# and false positives; S9 to S13 are the attacks of that name.
JUDGED = [
    ("(1,2)", "$(1,2)$", "correct"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)", "correct"),
    ("1e3", "1000", "correct"),
    ("A", r"\text{A}", "correct"),
    (r"\$100", "100", "correct"),
    ("3:4", "3/4", "correct"),
    ("0.3333333", "1/3", "correct"),
    ("0.333", "1/3", "wrong"),
    ("5 cm", "5 m", "wrong"),  # S11
    ("5", "5 cm", "correct"),
    ("10%", "10", "wrong"),
    ("10", r"10\%", "correct"),
    ("10%", "0.1", "correct"),
    ("0.1", r"10\%", "correct"),
    ("The answer is 12 or 13 or 14", "12", "wrong"),
    (r"\boxed{12} and \boxed{14}", "12", "wrong"),  # S10
    (r"\boxed{12} and \boxed{12.0}", "12", "wrong"),
    (r"\boxed{12}, again \boxed{12}", "12", "correct"),
    (r"\boxed{12", "12", "unparsable"),
    ("x<3", r"(-\infty,3)", "correct"),  # S12
    (r"(-\infty,3)", "x<3", "correct"),
    ("x<4", r"(-\infty,3)", "wrong"),
    (r"2\sqrt{3}", r"\sqrt{12}", "correct"),
    ("x^2+2x+1", "(x+1)^2", "correct"),
    (r"3\frac{1}{2}", "3.5", "correct"),
    ("1,250", "1250", "correct"),
    ("10000001", "10000000", "wrong"),
    ("-5", "5", "wrong"),
    ("yes", r"\text{no}", "wrong"),
    *((answer, gold, "wrong") for answer in (r"\boxed{12=14}", "12 = 12.0 = 14") for gold in ("12", "14")),
    (r"\boxed{x=12=14}", "14", "wrong"),
    (r"\boxed{1=2}", "2", "wrong"),
    (r"\boxed{5=5}", "5", "correct"),
    (r"\boxed{2+3=5}", "5", "correct"),
    (r"\boxed{x=\frac{2}{3}=0.67}", r"\frac{2}{3}", "wrong"),  # its last side is taken
    (r"\boxed{x=0.67=\frac{2}{3}}", r"\frac{2}{3}", "correct"),
    (r"\boxed{12}, \fbox{14}", "12", "wrong"),
    (r"\fbox{14}", "14", "correct"),
    ("inf", r"\infty", "correct"),
    (r"\infty", "inf", "correct"),
    (r"-\infty", "inf", "wrong"),
    ("1 1/2", "1.5", "correct"),
    ("-1 1/2", "-1.5", "correct"),
    ("1 1/2", "1/2", "wrong"),
    ("10^{400}", "1e400", "correct"),
    ("10^{401}", "1e400", "wrong"),
    *((answer, "5", "unparsable") for answer in ("1/0", r"\frac{1}{0}", "0/0", r"\frac{x}{0}", "1/(1-1)")),
    ("x=1/0", "5", "unparsable"),
    (r"e^{i\pi}", "-1", "correct"),
    ("-1", r"e^{i\pi}", "correct"),
    (r"e^{i\pi}+1", "0", "correct"),
    (r"e^{2i\pi}", "-1", "wrong"),
    ("4i+3", "3+4i", "correct"),
    ("3i", "3", "wrong"),
    ("2i", "2i+0", "correct"),
    ("3x", "3", "wrong"),
    ("3xy", "3", "wrong"),
    ("5cm", "5", "correct"),
    ("5 s", "5", "correct"),
    ("5 men", "5", "correct"),
    ("5apples", "5", "correct"),
    ("", "5", "unparsable"),
    ("x" * 1_000_000, "5", "unparsable"),  # S8
    ("5", "", "grader_error"),
    ("5", r"\frac{", "grader_error"),
]


@pytest.mark.parametrize(("answer", "gold", "verdict"), JUDGED)
def test_an_answer_is_judged(answer: str, gold: str, verdict: str) -> None:
    assert GRADER(answer, gold).verdict == verdict


@pytest.mark.parametrize("bomb", ["1000000!", "9^{9^{9^9}}", r"\binom{10^{9}}{5\cdot 10^{8}}"])
def test_s9_a_bomb_costs_its_time_and_nothing_else(bomb: str) -> None:
    assert MathGrader(seconds=1)(bomb, "1").reward in {None, 0.0}
    assert GRADER("x+1", "1+x").verdict is Verdict.CORRECT


def test_s13_an_answer_is_never_evaluated(tmp_path: Path) -> None:
    attempt = f"__import__('os').system('touch {tmp_path / 'reached'}')"
    for answer in (attempt, rf"\boxed{{{attempt}}}", f"lambda: {attempt}", f"${attempt}$ + 1"):
        assert GRADER(answer, "1").reward in {None, 0.0}
    assert list(tmp_path.iterdir()) == []


def test_s16_the_same_answer_gets_the_same_verdict() -> None:
    assert {GRADER(r"\frac{x}{2}", "x/2").verdict for _ in range(100)} == {Verdict.CORRECT}


@pytest.mark.parametrize("odd", [None, 1, b"1", ["1"]])
def test_what_is_no_text_is_no_answer_and_no_gold(odd: object) -> None:
    assert GRADER(cast("str", odd), "1").verdict is Verdict.UNPARSABLE
    assert GRADER("1", cast("str", odd)).verdict is Verdict.GRADER_ERROR


def test_a_box_may_be_demanded() -> None:
    assert MathGrader(boxed=True)("12", "12").verdict is Verdict.UNPARSABLE
    assert MathGrader(boxed=True)(r"\boxed{12}", r"\boxed{12}").verdict is Verdict.CORRECT


def test_each_answer_of_gsm8k_is_right_and_its_neighbour_wrong(test_data: Path) -> None:
    lines = (test_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    golds = [json.loads(line)["answer"].rsplit("####", 1)[1].strip() for line in lines]
    shown = [rf"so that we get $\boxed{{{gold}}}$." for gold in golds]

    assert len(golds) == 1319
    assert [MathGrader()(text, gold).reward for text, gold in zip(shown, golds, strict=True)] == [1.0] * 1319
    wrong = [str(int(gold.replace(",", "")) + 1) for gold in golds]
    assert {MathGrader()(text, gold).verdict for text, gold in zip(wrong, golds, strict=True)} == {"wrong"}


def test_math_verify_itself_agrees_on_gsm8k(test_data: Path) -> None:
    lines = (test_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    golds = [json.loads(line)["answer"].rsplit("####", 1)[1].strip().replace(",", "") for line in lines]

    verdicts = [MathGrader()._verified(rf"{gold}.0 + 0", gold).verdict for gold in golds]

    assert verdicts == ["correct"] * 1319

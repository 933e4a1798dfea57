"""Graders: what an answer is worth. Each is a frozen value; what may never return runs in killable processes.

`MathGrader` expressions, `AnswerGrader` short answers, `ProgramGrader` programs against hidden tests,
`QueryGrader` SQL, `FunctionGrader` a function of yours. All return a `Grade`; only its verdicts correct and
wrong are rewards.
"""

from agentrl.sandbox.graders.answers import AnswerGrader
from agentrl.sandbox.graders.mathematics import MathGrader
from agentrl.sandbox.graders.programs import CallTest, HiddenTest, ProgramGrader, StdinTest
from agentrl.sandbox.graders.queries import Bird, QueryGrader, Spider, Strict
from agentrl.sandbox.graders.scorer import FunctionGrader
from agentrl.sandbox.result import Grade, Verdict

__all__ = [
    "AnswerGrader",
    "Bird",
    "CallTest",
    "FunctionGrader",
    "Grade",
    "HiddenTest",
    "MathGrader",
    "ProgramGrader",
    "QueryGrader",
    "Spider",
    "StdinTest",
    "Strict",
    "Verdict",
]

r"""Tasks from files of the user's: JSONL, JSON, Parquet, or a folder of JSON files.

GSM8K (README of openai/grade-school-math): `question`, and `answer` with the number behind "####" in its last
line. MATH (`competition_math.py` of hendrycks/competition_math on the Hub): a JSON file for each problem in
`train/SUBJECT`, with `problem`, `level`, `type` and `solution`, whose last `\boxed{}` or `\fbox{}` is the
answer; some solutions write `\boxed 2` (`last_boxed_only_string` of EleutherAI's harness). MATH-500 adds
`answer`, without a box, and calls the type `subject`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from agentrl.errors import ConfigError
from agentrl.sandbox.graders.mathematics import boxes
from agentrl.sandbox.graders.programs import CallTest, HiddenTest, StdinTest
from agentrl_envs.code.work import Exercise, Problem
from agentrl_tools.records import asked, records, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agentrl_envs.code.work import Work

_QUESTIONS = ("question", "problem", "prompt")
_BARE_BOX = re.compile(r"\\boxed ([^$]+)")


def read_tasks(path: str | Path) -> list[Work]:
    r"""Read every task of a file, or of a folder with a file for each (as MATH comes).

    A row has its text under "question", "problem" or "prompt". Its answer is the text after "####" of
    "answer" (GSM8K), the `\boxed{}` of "solution" or "answer" (MATH), or the whole "answer". A row with
    "tests" is a function or program to write: each test is {"function", "arguments", "expected"} or
    {"stdin", "stdout"}. Rows in verl's layout are read, too: `prompt` and `reward_model`.

    Raises:
        ConfigError: the file is missing or empty, or a row has no question or no answer; it says which.
    """
    tasks = [_task(asked(row), where) for row, where in records(path)]
    if not tasks:
        raise ConfigError(f"{str(path)!r} holds no tasks. Write one JSON object on each line.")
    return tasks


def _task(row: Mapping[str, object], where: str) -> Work:
    texts = (row.get(name) for name in _QUESTIONS)
    question = next((text for text in texts if isinstance(text, str) and text.strip()), "")
    if not question:
        raise ConfigError(f"{where} has no question; its keys are {', '.join(row)}.")
    tests = row.get("tests")
    if isinstance(tests, list) and tests:
        return Exercise(question, tuple(_test(item, where) for item in cast("list[object]", tests)))
    answer = _answer(row)
    if not answer:
        raise ConfigError(f"{where} has no answer: neither 'answer' nor a boxed one in 'solution'.")
    return Problem(question, answer, str(row.get("type") or row.get("subject") or "problem"))


def _answer(row: Mapping[str, object]) -> str:
    for name in ("answer", "solution"):
        text = _text(row.get(name))
        if "####" in text:
            return text.rsplit("####", 1)[1].strip()
        found = boxes(text) or _BARE_BOX.findall(text)
        if found:
            return str(found[-1]).strip()
        if name == "answer" and text.strip():
            return text.strip()
    return ""


def _text(answer: object) -> str:
    """An answer as a text; of a list the first."""
    if isinstance(answer, list):
        return _text(next(iter(cast("list[object]", answer)), None))
    return "" if answer is None or answer != answer else str(answer)  # noqa: PLR0124  # NaN is no answer


def _test(item: object, where: str) -> HiddenTest:
    content = unpacked(item)  # Parquet may hold the tests as texts
    if isinstance(content, dict) and "stdin" in content and "stdout" in content:
        return StdinTest(str(content["stdin"]), str(content["stdout"]))
    if isinstance(content, dict) and {"function", "arguments", "expected"} <= set(content):
        return CallTest(str(content["function"]), tuple(content["arguments"]), content["expected"])
    raise ConfigError(
        f"{where} has a test without 'stdin' and 'stdout', or 'function', 'arguments' and 'expected'."
    )

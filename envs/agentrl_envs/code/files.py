"""Tasks from files of the user's: lines of JSON, or Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from agentrl.errors import ConfigError
from agentrl.sandbox.graders.mathematics import boxes
from agentrl.sandbox.graders.programs import CallTest, HiddenTest, StdinTest
from agentrl_envs.code.work import Exercise, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agentrl_envs.code.work import Work

_QUESTIONS = ("question", "problem", "prompt")


def read_tasks(path: str | Path) -> list[Work]:
    r"""Read every task of a file.

    A row has its text under "question", "problem" or "prompt". Its answer is the text after "####" of
    "answer" (GSM8K), the `\boxed{}` of "solution" or "answer" (MATH), or the whole "answer". A row with
    "tests" is a function or program to write: each test is {"function", "arguments", "expected"} or
    {"stdin", "stdout"}.

    Raises:
        ConfigError: the file is missing or empty, or a row has no question or no answer; it says which.
    """
    place = Path(path)
    if not place.is_file():
        raise ConfigError(f"there is no file {str(place)!r} to read tasks from.")
    rows = _parquet(place) if place.suffix == ".parquet" else _lines(place)
    tasks = [_task(row, f"row {number} of {str(place)!r}") for number, row in enumerate(rows, 1)]
    if not tasks:
        raise ConfigError(f"{str(place)!r} holds no tasks. Write one JSON object on each line.")
    return tasks


def _lines(path: Path) -> Iterator[Mapping[str, object]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"line {number} of {str(path)!r} is not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise ConfigError(f"line {number} of {str(path)!r} is not a JSON object.")
            yield row


def _parquet(path: Path) -> Iterator[Mapping[str, object]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    yield from cast("list[dict[str, object]]", table.to_pylist())


def _task(row: Mapping[str, object], where: str) -> Work:
    question = next((str(row[name]) for name in _QUESTIONS if row.get(name)), "")
    if not question.strip():
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
        text = str(row.get(name) or "")
        if "####" in text:
            return text.rsplit("####", 1)[1].strip()
        found = boxes(text)
        if found:
            return found[-1].strip()
        if name == "answer" and text.strip():
            return text.strip()
    return ""


def _test(item: object, where: str) -> HiddenTest:
    # Parquet may hold the tests as texts.
    content = json.loads(item) if isinstance(item, str) else item
    if isinstance(content, dict) and "stdin" in content and "stdout" in content:
        return StdinTest(str(content["stdin"]), str(content["stdout"]))
    if isinstance(content, dict) and {"function", "arguments", "expected"} <= set(content):
        return CallTest(str(content["function"]), tuple(content["arguments"]), content["expected"])
    raise ConfigError(
        f"{where} has a test without 'stdin' and 'stdout', or 'function', 'arguments' and 'expected'."
    )

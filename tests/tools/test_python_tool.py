from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import SandboxUnavailable
from agentrl.sandbox.jail import Sandbox
from agentrl.sandbox.result import Limits
from agentrl.testing import check_tool
from agentrl.world.protocol import Fenced, Tags
from agentrl.world.tool import tools_of
from agentrl.world.toolbox import Toolbox
from agentrl_tools.python import PythonTool

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = Limits(wall_seconds=3, memory=256 << 20, kept_output=1000)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    try:
        opened = Sandbox(limits=LIMITS)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    with opened:
        yield opened


@pytest.fixture
def python(sandbox: Sandbox) -> Iterator[PythonTool]:
    made = PythonTool(sandbox, limits=LIMITS)
    yield made
    made.close()


def _said(python: PythonTool, code: str) -> tuple[str, str | None]:
    result = python.python(code)
    return result.text, result.error


def test_variables_stay_over_the_turns_of_a_trajectory_and_no_longer(python: PythonTool) -> None:
    assert _said(python, "x = 6") == ("(no output)", None)
    assert _said(python, "```python\nx * 7\n```") == ("42", None)
    python.reset()
    assert "NameError" in _said(python, "x")[0]


def test_errors_and_endings_are_words_for_the_agent(python: PythonTool) -> None:
    python.python("x = 1")
    text, error = _said(python, "print('before')\n1 / 0")
    assert text == error
    assert text.startswith("before\nTraceback")
    assert "ZeroDivisionError" in text
    assert "not end in time" in _said(python, "while True: pass")[0]
    assert "[the program ended with exit code 3]" in _said(python, "import os; os._exit(3)")[0]
    assert "9001 more bytes" in _said(python, "print('y' * 10000)")[0]
    assert _said(python, "x") == ("1", None)


def test_the_final_answer_leaves_apart_from_the_output(python: PythonTool) -> None:
    assert _said(python, "print('thinking'); final_answer(6 * 7)") == ("thinking", None)
    assert python.answer == "42"
    python.reset()
    assert python.answer is None


@pytest.mark.parametrize("remembers", [True, False])
def test_both_kinds_are_tools(remembers: bool, sandbox: Sandbox) -> None:
    made = PythonTool(sandbox, limits=LIMITS, remembers=remembers)

    report = check_tool(made, arguments=[{"code": "print(1)"}])

    assert not report.errors, report
    made.python("x = 1")
    assert made.python("print(x)").error is None if remembers else made.python("print(x)").error is not None
    made.python("final_answer('tea')")
    assert made.answer == "tea"
    made.close()


def test_a_copy_is_a_branch(python: PythonTool) -> None:
    python.python("x = [1]")
    other = copy.deepcopy(python)
    other.python("x.append(2)")

    assert _said(python, "x") == ("[1]", None)
    assert _said(other, "x") == ("[1, 2]", None)
    other.close()


def test_it_runs_from_tags_and_from_fenced_code(python: PythonTool) -> None:
    box = Toolbox([python])

    for protocol, text in ((Tags(), "<python>print(1)</python>"), (Fenced(), "```python\nprint(1)\n```")):
        made = protocol.for_tools(tools_of(python))
        assert box.run(made.parse(text)).text == "1"


@pytest.mark.parametrize("value", ["'9' * 5000", "[1] * 10**6", "'\\ud800'", "10**5000"])
def test_a_final_answer_that_cannot_be_taken_is_an_error_without_the_mark(
    value: str, python: PythonTool
) -> None:
    text, error = _said(python, f"final_answer({value})")
    assert "ValueError: final_answer takes" in text
    assert error == text
    assert python._mark not in text
    assert python.answer is None

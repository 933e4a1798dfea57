"""calculator and finish."""

from __future__ import annotations

import functools

import pytest

from agentrl.policy.scripted import ScriptedPolicy
from agentrl.rollout.easy import collect
from agentrl.testing import check_tool
from agentrl.trajectory import Trajectory
from agentrl.world import Fenced, JsonCalls, Tags, TextEnv, Toolbox
from agentrl.world.registry import load_tool
from agentrl_tools.calculator import compute
from agentrl_tools.finish import Finish


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("-2^2", -4),
        ("2**-1", 0.5),
        ("7 // 2 + 7 % 2", 4),
        ("10^40 + 1", 10**40 + 1),
        ("sqrt(2) * sqrt(2)", 2.0),
        ("log(8, 2)", 3.0),
        ("max(1, 2, 3) - min(4, 5)", -1),
        ("round(2.567, 1)", 2.6),
        ("3 × 4 − 2", 10),
        ("cos(pi)", -1.0),
        ("gcd(12, 18)", 6),
        ("(-8)^(-1)", -0.125),
    ],
)
def test_values(expression: str, value: float) -> None:
    assert compute(expression) == pytest.approx(value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "no arithmetic expression"),
        ("1 +", "no arithmetic expression"),
        ("__import__('os').system('x')", "is not arithmetic|there is no function"),
        ("open('x')", "is not arithmetic|there is no function"),
        ("().__class__", "is not arithmetic"),
        ("'a' * 1000000", "is not arithmetic"),
        ("True + 1", "is not arithmetic"),
        ("[1][0]", "is not arithmetic"),
        ("x + 1", "is not arithmetic"),
        ("lambda: 1", "is not arithmetic"),
        ("1 if 1 else 2", "is not arithmetic"),
        ("9^9^9^9", "too large"),
        ("2^5000", "too large"),
        ("10^1000 * 10^1000", "too large"),
        ("1 / 0", "division by zero"),
        ("(-1)^0.5", "not a real number"),
        ("sqrt(-1)", "nonnegative|domain"),
        ("1e400", "not a real number"),
        ("exp(10000)", "range"),
        ("squirt(2)", "there is no function 'squirt'.*Did you mean 'sqrt'"),
        ("sqrt(1, 2)", "takes 1 to 1 arguments"),
        ("round(1, 0.5)", "does not take"),
        ("+".join("1" * 600), "at most 1000"),
        ("-" * 900 + "1", "no arithmetic|nested"),
        ("1" * 990 + "^9", "too large"),
    ],
)
def test_what_is_no_arithmetic_is_a_sentence(expression: str, message: str) -> None:
    with pytest.raises((ValueError, ArithmeticError), match=message):
        compute(expression)


def test_the_calculator_keeps_the_contract() -> None:
    (found,) = load_tool("calculator")
    check_tool(found, arguments=[{"expression": "0.1 + 0.2"}]).raise_if_failed()
    assert found.call({"expression": "0.1 + 0.2"}).text == "0.3"
    assert found.call({"expression": "2^100"}).text == str(2**100)
    assert found.call({"expression": "1/0"}).error == "calculator failed: division by zero"


def test_finish_takes_the_answer_of_every_protocol() -> None:
    class Sum(TextEnv):
        """A world of two tools that knows nothing of its own."""

        @functools.cached_property
        def toolbox(self) -> Toolbox:
            return Toolbox([*load_tool("calculator"), Finish(lambda answer: float(answer == "4"))])

    for protocol in (Tags(), Fenced(), JsonCalls()):
        script = [protocol.write("calculator", {"expression": "2 + 2"}), protocol.write_answer("4")]
        (item,) = collect(Sum, ScriptedPolicy(script), protocol=protocol)
        assert isinstance(item, Trajectory)
        assert (item.reward, len(item.turns)) == (1.0, 2)
        assert "4" in item.turns[1].observation
    (found,) = load_tool("finish")
    check_tool(found, arguments=[{"answer": "4"}]).raise_if_failed()

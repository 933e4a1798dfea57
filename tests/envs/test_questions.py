"""Questions of one's own, with tools by name: ours, and those of an MCP server."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path

import pytest

import agentrl
from agentrl.errors import ConfigError, EnvironmentUsageError, RegistryError
from agentrl.policy.scripted import ScriptedPolicy
from agentrl.trajectory import Invalid, Trajectory
from agentrl_envs.questions.env import QuestionsEnv

needs_mcp = pytest.mark.skipif(
    importlib.util.find_spec("mcp") is None, reason="the extra `mcp` is not installed"
)
RAW = Path(__file__).parent.parent / "tools" / "mcp_raw.py"


def server(how: str) -> str:
    return f"mcp:{shlex.quote(sys.executable)} -I -S {shlex.quote(str(RAW))} {how}"


@pytest.fixture
def questions(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "questions.jsonl"
    rows = [
        {"question": "What is 6 times 7?", "answer": "42"},
        {"question": "And 1 + 1?", "answer": ["2", "two"]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return {"train": str(path)}


def test_a_calculator_helps_and_the_answer_is_graded(questions: dict[str, str]) -> None:
    env = QuestionsEnv(questions, ["calculator"])
    policy = ScriptedPolicy(["<calculator>6*7</calculator>", "<answer>42</answer>"])
    first, second = agentrl.collect(env, policy, tasks=2)
    assert isinstance(first, Trajectory)
    assert isinstance(second, Trajectory)
    assert (first.reward, second.reward) == (1.0, 0.0)
    assert "42" in first.turns[1].observation
    assert "<calculator>" in env.system_text()
    report = agentrl.check_env(
        lambda: QuestionsEnv(questions, ["calculator"]),
        actions=["<calculator>1+1</calculator>", "<answer>2</answer>"],
    )
    assert not report.errors, str(report)


def test_wrong_settings_are_sentences(questions: dict[str, str]) -> None:
    with pytest.raises(RegistryError, match=r"no tool 'calculater'\. Did you mean 'calculator'"):
        QuestionsEnv(questions, ["calculater"])
    with pytest.raises(ConfigError, match="needs a name"):
        QuestionsEnv(questions, [{"seconds": 3}])
    with pytest.raises(ConfigError, match="tools is a list"):
        QuestionsEnv(questions, "calculator")
    with pytest.raises(ConfigError, match="no reward 'exakt'"):
        QuestionsEnv(questions, reward="exakt")
    with pytest.raises(ConfigError, match="with a file for each split"):
        QuestionsEnv({})


@needs_mcp
def test_tools_of_a_server_are_played_and_its_failures_are_no_rewards(questions: dict[str, str]) -> None:
    def played(how: str, **arguments: object) -> Trajectory | Invalid:
        (result,) = agentrl.collect(
            lambda: QuestionsEnv(questions, [{"name": server(how), **arguments}]),
            ScriptedPolicy(["<tool>one</tool>", "<tool>1</tool>", "<answer>42</answer>"]),
        )
        return result

    fine = played("fine")
    assert isinstance(fine, Trajectory)
    assert [turn.kind for turn in fine.turns] == ["tool_error", "ok", "ok"]
    assert "'one' is not of type 'integer'" in fine.turns[1].observation
    assert fine.reward == 1.0
    dead = played("die")
    assert isinstance(dead, Invalid)
    assert "the disk is full" in dead.detail


@needs_mcp
def test_what_a_server_remembers_is_not_copied(questions: dict[str, str]) -> None:
    env = QuestionsEnv(questions, [server("fine")])
    env.reset(seed=1)
    with pytest.raises(EnvironmentUsageError, match="cannot be copied"):
        env.snapshot()
    env.close()

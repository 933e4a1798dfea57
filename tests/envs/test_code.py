"""Code-v0: what is drawn, what is read from files, how it is graded, and who solves it."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import agentrl
from agentrl.errors import ConfigError, RegistryError, SandboxUnavailable
from agentrl.sandbox.graders.programs import CallTest, StdinTest
from agentrl.sandbox.opening import shared_sandbox
from agentrl.testing import check_env
from agentrl.trajectory import TurnKind
from agentrl.world.protocol import Fenced, JsonCalls, Tags
from agentrl_envs.code import CodeEnv, Exercise, Problem, read_tasks
from agentrl_envs.code.env import drawn
from agentrl_envs.code.expert import TRIES, Solver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentrl.world.protocol import Protocol


@pytest.fixture(scope="module", autouse=True)
def _jail() -> None:
    try:
        shared_sandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def env() -> Iterator[CodeEnv]:
    made = CodeEnv()
    yield made
    made.close()


def _play(env: CodeEnv, split: str, index: int) -> tuple[float, dict[str, object]]:
    observation, _ = env.reset(seed=0, options={"split": split, "index": index})
    player = env.expert(observation)
    while True:
        action = player.act()
        observation, reward, terminated, truncated, info = env.step(action)
        player.observe(action, observation)
        if terminated or truncated:
            return reward, info


@pytest.mark.parametrize(("kind", "families"), [("problems", 7), ("functions", 6), ("sums", 8)])
def test_a_script_that_sees_only_the_text_solves_every_family(kind: str, families: int) -> None:
    env = CodeEnv(kind)  # type: ignore[arg-type]  # of the three
    first = {env.get_task("valid", index).type: index for index in reversed(range(60))}
    assert len(first) == families

    for index in first.values():
        reward, info = _play(env, "valid", index)
        assert (reward, info["success"], info["sandbox_tier"]) == (1.0, True, str(shared_sandbox().tier))
    env.close()


@pytest.mark.parametrize("protocol", [Tags(), JsonCalls(), Fenced()])
def test_it_is_played_in_every_protocol(protocol: Protocol, env: CodeEnv) -> None:
    env.protocol = protocol.for_tools(env.toolbox.tools)
    assert _play(env, "valid", 0)[0] == 1.0


def test_the_expert_writes_again_what_the_clock_stopped() -> None:
    stopped = "```output\n[the program did not end in time and was stopped]\n```"
    player = Solver(drawn("problems", "train", 0).question, Fenced(names=("python", "submit")))
    program = player.act()

    player.observe(program, stopped)
    assert player.act() == program
    player.observe(program, "```output\n12\n```")
    assert player.act() == "\\boxed{12}"

    player = Solver(drawn("problems", "train", 0).question, Fenced(names=("python", "submit")))
    for _ in range(TRIES):
        player.observe(program, stopped)
    assert player.act() == "\\boxed{0}"


def test_tasks_are_the_same_every_time_and_in_one_split_only() -> None:
    texts = {split: {drawn("mixed", split, index).question for index in range(300)} for split in _splits()}

    assert drawn("mixed", "train", 7) == drawn("mixed", "train", 7)
    assert not texts["train"] & texts["valid"]
    assert not texts["valid"] & texts["test"]
    assert len(texts["train"]) > 280


@pytest.mark.parametrize("largest", [9, 30, 99])
def test_sums_name_small_numbers_and_have_small_answers(largest: int) -> None:
    for index in range(400):
        work = drawn("sums", "train", index, largest)
        assert isinstance(work, Problem)
        numbers = [int(number) for number in re.findall(r"\d+", work.question)]
        assert all(2 <= number <= largest for number in numbers)
        assert 1 <= int(work.answer) <= largest
    questions = {drawn("sums", "train", index, largest).question for index in range(400)}
    assert not questions & {drawn("sums", "test", index, largest).question for index in range(400)}


def test_instructions_can_be_left_out() -> None:
    assert "\\boxed{}" in CodeEnv("sums").system_text()
    assert CodeEnv("sums", instructions=False).system_text() == ""


def _splits() -> tuple[str, ...]:
    return "train", "valid", "test"


def test_a_rollout_reads_the_worlds_own_protocol(env: CodeEnv) -> None:
    assert env.default_protocol() == Fenced(names=("python", "submit"))


def test_the_environment_keeps_its_contract() -> None:
    actions = ["```python\nx = 1\nx\n```", "nothing", "```python\nx += 1\nprint(x)\n```", "\\boxed{-1}"]
    report = check_env(CodeEnv, tasks=[("train", 0), ("valid", 1)], actions=actions, turns=5)

    assert not report.errors, report


def test_answers_are_taken_from_boxes_and_from_code(env: CodeEnv) -> None:
    for action in ("So \\boxed{{{}}}.", "```python\nfinal_answer({})\n```"):
        env.reset(seed=0, options={"split": "valid", "index": 1})
        gold = env.gold()
        observation, reward, terminated, _, info = env.step(action.format(gold))
        assert (reward, terminated, info["success"]) == (1.0, True, True)
        assert str(gold) not in observation


def test_a_wrong_or_unreadable_answer_scores_nothing(env: CodeEnv) -> None:
    for answer in ("-12345", "9**9**9**9", "I do not know"):
        env.reset(seed=0, options={"split": "valid", "index": 1})
        _, reward, terminated, _, info = env.step(f"\\boxed{{{answer}}}")
        assert (reward, terminated, info["success"]) == (0.0, True, False)


def test_the_wrong_kind_of_answer_is_refused_and_costs_a_turn() -> None:
    env = CodeEnv("functions", max_steps=2)
    env.reset(seed=0, options={"split": "valid", "index": 0})
    observation, _, terminated, truncated, info = env.step("\\boxed{3}")
    assert ("Submit" in observation, terminated, truncated) == (True, False, False)
    assert info["turn_kind"] is TurnKind.TOOL_ERROR
    _, _, terminated, truncated, info = env.step("```python\nfinal_answer(3)\n```")
    assert (terminated, truncated, info["success"]) == (False, True, False)
    env.close()


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(0)",
        "def rotate(values): return values",
        "def rotate(values):\n    class Same(list):\n        __eq__ = lambda *_: True\n    return Same()",
        "while True: pass",
    ],
)
def test_programs_that_do_not_solve_the_task_earn_nothing(code: str) -> None:
    env = CodeEnv("functions", seconds=1.0)
    index = next(index for index in range(60) if env.get_task("valid", index).type == "rotate")
    env.reset(seed=0, options={"split": "valid", "index": index})
    _, reward, terminated, _, info = env.step(f"```submit\n{code}\n```")
    assert (reward, terminated, info["success"]) == (0.0, True, False)
    env.close()


def test_what_an_agent_draws_out_ends_within_the_time_of_a_step() -> None:
    env = CodeEnv("functions", seconds=50.0)
    env.step_seconds = 2.0
    index = next(index for index in range(60) if env.get_task("valid", index).type == "rotate")
    env.reset(seed=0, options={"split": "valid", "index": index})
    block = "```python\nimport time; time.sleep(60)\n```"
    observation, _, _, _, info = env.step(f"{block}\n{block}")
    assert info["turn_kind"] is TurnKind.TOOL_ERROR
    assert "did not end in time" in observation
    assert "python was not called: the calls before it took 1 s" in observation
    _, reward, terminated, _, info = env.step(
        "```submit\ndef rotate(values):\n    import time; time.sleep(60)\n```"
    )
    assert (reward, terminated, info["success"]) == (0.0, True, False)
    env.close()


def test_a_copy_of_an_episode_goes_on_on_its_own(env: CodeEnv) -> None:
    env.reset(seed=0, options={"split": "valid", "index": 0})
    env.step("```python\nx = [1]\n```")
    state = env.snapshot()
    env.step("```python\nx.append(2)\n```")
    other = CodeEnv()
    other.restore(state)

    assert other.step("```python\nx\n```")[0] == "[1]"
    assert env.step("```python\nx\n```")[0] == "[1, 2]"
    assert copy.deepcopy(other).step("```python\nx\n```")[0] == "[1]"
    other.close()


def test_files_in_the_formats_of_the_field(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"question": "How many?", "answer": "Two and two.\n#### 1,004"},
        {"problem": "Find x.", "solution": "So $x = \\boxed{\\frac{1}{2}}$.", "type": "Algebra"},
        {"prompt": "Add.", "tests": [{"function": "add", "arguments": [1, 2], "expected": 3}]},
        {"prompt": "Echo.", "tests": [{"stdin": "a", "stdout": "a"}]},
    ]
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")

    tasks = read_tasks(path)

    assert tasks[0] == Problem("How many?", "1,004")
    assert tasks[1] == Problem("Find x.", "\\frac{1}{2}", "Algebra")
    assert tasks[2] == Exercise("Add.", (CallTest("add", (1, 2), 3),))
    assert tasks[3] == Exercise("Echo.", (StdinTest("a", "a"),))
    table = pa.Table.from_pylist(rows[:1])
    pq.write_table(table, tmp_path / "tasks.parquet")
    assert read_tasks(tmp_path / "tasks.parquet") == tasks[:1]
    env = CodeEnv(files={"train": str(path)})
    assert (env.list_splits(), env.num_tasks("train")) == (("train",), 4)
    env.reset(seed=0, options={"split": "train", "index": 3})
    assert env.step("```submit\nprint(input())\n```")[1] == 1.0
    env.close()


def test_every_form_of_a_problem_file_says_the_same(tmp_path: Path) -> None:
    math = {"problem": "Find x.", "level": "Level 5", "type": "Algebra", "solution": "So \\boxed{4}."}
    folder = tmp_path / "MATH" / "algebra"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(json.dumps(math))
    (tmp_path / "math.json").write_text(json.dumps([math]))
    verl = {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": "Find x. Output the answer after ####."}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"split": "train", "index": 0, "question": "Find x.", "answer": "x is 4\n#### 4"},
    }
    pq.write_table(pa.Table.from_pylist([verl]), tmp_path / "verl.parquet")
    of_500 = {"problem": "Find x.", "solution": "So \\boxed{4}.", "answer": "4", "subject": "Algebra"}
    (tmp_path / "math500.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(of_500).encode())
    for name, solution in (("bare.json", "So $x$ is $\\boxed 4$ then."), ("framed.json", "So \\fbox{4}.")):
        (tmp_path / name).write_text(json.dumps([math | {"solution": solution}]))

    assert read_tasks(tmp_path / "MATH") == [Problem("Find x.", "4", "Algebra")]
    for name in ("math.json", "math500.jsonl", "bare.json", "framed.json"):
        assert read_tasks(tmp_path / name) == read_tasks(tmp_path / "MATH")
    assert read_tasks(tmp_path / "verl.parquet") == [Problem("Find x.", "4", "problem")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds no tasks"),
        ("{", "line 1 of .* is no JSON"),
        ("3", "no JSON object"),
        ('{"text": "x"}', "no question; its keys are text"),
        ('{"question": "x"}', "no answer"),
        ('{"question": "x", "answer": NaN}', "no answer"),
        ('{"question": "x", "tests": [{"in": 1}]}', "a test without"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=says):
        read_tasks(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "problem"}, "kind must be one of problems"),
        ({"kind": "sums", "largest": 8}, "largest must be at least 9; got 8"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"memory_megabytes": 0}, "memory_megabytes must be at least 1"),
        ({"seconds": -1.0}, "seconds must be a number above 0; got -1.0"),
        ({"seconds": "ten"}, "takes seconds as a number; got 'ten'"),
        ({"files": "tasks.jsonl"}, "files is a table with a file for each split"),
        ({"files": {}}, "files is a table with a file for each split"),
    ],
)
def test_a_bad_setting_is_a_sentence(settings: dict[str, object], says: str) -> None:
    with pytest.raises((ConfigError, RegistryError), match=says):
        agentrl.make("agentrl/Code-v0", **settings)


def test_gsm8k_is_read_and_its_answers_are_accepted(test_data: Path) -> None:
    path = next((test_data / "gsm8k").glob("*test*.jsonl"))
    env = CodeEnv(files={"test": str(path)})
    assert env.num_tasks("test") == 1319
    for index in (0, 1, 2):
        env.reset(seed=0, options={"split": "test", "index": index})
        assert env.step(f"\\boxed{{{env.gold()}}}")[1] == 1.0
    env.close()

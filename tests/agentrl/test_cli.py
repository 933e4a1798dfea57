"""The command line and the public names: what they do, print and exit with."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import agentrl
from agentrl.run.cli import BAD_INPUT, FOUND_BAD, run
from agentrl.run.commands.training import INTERRUPTED

SMALL = (
    "model.hidden=32", "model.layers=1", "model.heads=2", "model.kv_heads=1", "model.intermediate=32",
    "model.slots=8", "model.vocabulary=400", "warm_start.demonstrations=8", "warm_start.steps=1",
    "rl.steps=1", "rl.tasks=1", "rl.members=2", "limits.turns=2", "processes=1", "shards=1",
    "evaluation.curve_tasks=0", "evaluation.final_tasks=2",
)  # fmt: skip
COMMANDS = {
    "train", "sft", "eval", "compare", "report", "export", "envs", "tools", "serve", "check-template",
    "doctor", "recipes",
}  # fmt: skip
Out = pytest.CaptureFixture[str]

# Pinned: a name is added with a decision and never removed without one.
PUBLIC = """
AgentrlError Algorithm AsyncTextEnv Batch EvaluationSuite Fenced Invalid JsonCalls Limits PlainText Policy
RandomPolicy Request Sample Sampling ScriptedPolicy StopReason Tags Task TextEnv TextSpace Tool ToolResult
TrainSettings Trajectory Turn TurnKind __version__ check_env check_tool collect evaluate export list_envs
make pack register spec tool train unpack
""".split()  # noqa: SIM905  # a list of forty lines is no clearer


def test_public_names_are_pinned() -> None:
    assert sorted(agentrl.__all__) == sorted(PUBLIC)
    assert dir(agentrl) == sorted(PUBLIC)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "train"])
def test_a_public_name_is_the_thing_of_that_name(name: str) -> None:
    found: object = getattr(agentrl, name)
    assert name == "__version__" or getattr(found, "__name__", name) == name


def test_train_is_public() -> None:
    pytest.importorskip("torch", reason="the extra 'train' is not installed")
    assert callable(agentrl.train)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        getattr(agentrl, "trian")  # noqa: B009  # a checker would stop the attribute


def test_no_public_name_is_a_folders() -> None:
    folder = agentrl.__path__[0]
    names = {path.name.removesuffix(".py") for path in Path(folder).iterdir()}
    assert not names & set(PUBLIC)


def test_help_names_every_command_and_is_light(capsys: Out) -> None:
    before = time.process_time()
    assert run(["--help"]) == 0
    print(f"help: {time.process_time() - before:.2f} CPU-s without imports (aim: 0.6 with them)")
    text = capsys.readouterr().out
    assert all(f" {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: Out) -> None:
    assert run([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: agentrl {command}")


def test_version(capsys: Out) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == agentrl.__version__


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["trian"], '"train"'),
        (["train", "--ouut", "x"], "--out"),
        (["envs", "lst"], '"list"'),
        (["sft"], "SCENARIO"),
    ],
)
def test_what_is_misspelt_or_missing_is_named(arguments: list[str], near: str, capsys: Out) -> None:
    assert run(arguments) == BAD_INPUT
    assert near in capsys.readouterr().err


def test_train_without_a_scenario_says_how(capsys: Out) -> None:
    assert run(["train"]) == BAD_INPUT
    assert "household/train" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m agentrl.run.cli envs show agentrl/Household-v0 | true"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""


# -- envs ----------------------------------------------------------------------------------------------------


def test_envs_are_listed(capsys: Out) -> None:
    assert run(["envs", "list", "--json"]) == 0
    ids = [item["id"] for item in json.loads(capsys.readouterr().out)]
    assert {"agentrl/Household-v0", "agentrl/TextWorld-v0"} <= set(ids)


def test_listing_imports_no_world(tmp_path: Path) -> None:
    code = (
        "import sys; from agentrl.run.cli import run; run(['envs', 'list'])\n"
        "print([m for m in sys.modules if m.startswith(('agentrl_envs', 'torch'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("[]\n")


def test_an_env_is_shown(capsys: Out) -> None:
    assert run(["envs", "show", "agentrl/Household-v0", "settings=medium", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown["splits"]) == {"train", "valid_seen", "valid_unseen"}
    assert "expert" in shown["hooks"]
    assert "gold" not in shown["hooks"]
    assert "Your task is to" in shown["first_observation"]
    assert run(["envs", "show", "agentrl/Household-v0"]) == 0
    assert "Your task is to" in capsys.readouterr().out


def test_a_wrong_argument_of_an_env_is_named(capsys: Out) -> None:
    assert run(["envs", "show", "agentrl/Household-v0", "setings=medium"]) == BAD_INPUT
    assert "Did you mean 'settings'" in capsys.readouterr().err
    assert run(["envs", "show", "agentrl/Household-v0", "medium"]) == BAD_INPUT
    assert "name=value" in capsys.readouterr().err


def test_an_env_is_checked(capsys: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lawless_worlds.py").write_text(
        "import random\nfrom agentrl.world.env import TextEnv\n"
        "class Lawless(TextEnv):\n"
        "    def step(self, action):\n        return str(random.random()), 0.0, False, False, {}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(["envs", "check", "agentrl/Household-v0"]) == 0
    assert "passed" in capsys.readouterr().out
    assert run(["envs", "check", "lawless_worlds:Lawless", "--json", "--no-processes"]) == FOUND_BAD
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert "determinism" in {item["check"] for item in findings if item["severity"] == "error"}


def test_an_env_is_checked_with_actions_that_reach_its_end(capsys: Out) -> None:
    checked = ["envs", "check", "agentrl.testing:WordWorld", "length=20", "--no-processes"]
    assert run(checked) == 0
    assert "(--action on the command line, actions= in Python)" in capsys.readouterr().out
    assert run(["envs", "check", "agentrl.testing:WordWorld", "--action", "lamp", "--action", "mug"]) == 0
    assert "note" not in capsys.readouterr().out


def test_ctrl_c_before_a_run_has_begun_is_said(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agentrl.run.scenarios.find", interrupted)
    assert run(["eval", "household/eval", "--policy", "expert"]) == INTERRUPTED
    assert "stopped." in capsys.readouterr().err


def test_an_env_is_played(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("?\nlook\n:q\n"))
    assert run(["envs", "play", "agentrl/Household-v0", "--split", "valid_seen", "--index", "3"]) == 0
    text = capsys.readouterr().out
    assert "Your task is to" in text
    assert "\ninventory\n" in text, "the admissible commands"
    assert "Left after 1 turns" in text


def test_a_line_that_ends_in_a_backslash_goes_on(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("go to\\\n fridge 1\n:q\n"))
    assert run(["envs", "play", "agentrl/Household-v0", "--split", "valid_seen", "--index", "3"]) == 0
    assert "Nothing happens." in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--seed", "--index"])
def test_a_number_below_zero_is_no_defect_of_the_world(option: str, capsys: Out) -> None:
    assert run(["envs", "play", "agentrl/Household-v0", option, "-5"]) == BAD_INPUT
    assert capsys.readouterr().err == f"error: {option} is a whole number from 0 on; got -5.\n"


class Boom(agentrl.TextEnv):
    """A world with a defect."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, object]]:
        raise RuntimeError("kaboom")


def test_what_a_world_raises_at_the_keyboard_is_its_own_defect(
    capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    agentrl.register("tests/Boom-v0", Boom)
    monkeypatch.setattr("sys.stdin", io.StringIO("look\n"))
    assert run(["envs", "play", "tests/Boom-v0"]) == FOUND_BAD
    said = capsys.readouterr().err
    assert "Boom raised RuntimeError: kaboom. Mend the environment" in said
    assert "defect of agentrl" not in said


def test_a_port_that_is_taken_is_said_before_anything_is_promised(capsys: Out) -> None:
    pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "agentrl/Household-v0", "--port", str(port)]) == BAD_INPUT
    said = capsys.readouterr()
    assert f"port {port}" in said.err
    assert "--port" in said.err
    assert "is offered" not in said.out


def test_a_wrong_field_of_a_part_names_the_fields(capsys: Out) -> None:
    pytest.importorskip("torch", reason="the extra 'train' is not installed")
    wrong = ("rl.plan.memory.part=Window", "rl.plan.memory.turnz=4")
    assert run(["train", "household/train", *SMALL, *wrong]) == BAD_INPUT
    assert "Its fields are turns" in capsys.readouterr().err


def test_a_game_is_played_to_its_end(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    (trajectory,) = agentrl.collect("agentrl/Household-v0", "expert", split="valid_seen")
    assert isinstance(trajectory, agentrl.Trajectory)
    commands = "\n".join(turn.action for turn in trajectory.turns)
    monkeypatch.setattr("sys.stdin", io.StringIO(commands + "\n"))
    assert run(["envs", "play", "agentrl/Household-v0", "--split", "valid_seen"]) == 0
    assert f"ended after {len(trajectory.turns)} turns, reward 1, success." in capsys.readouterr().out


# -- train, sft, eval, compare, report -----------------------------------------------------------------------


def test_train_sft_eval_compare_report(tmp_path: Path, capsys: Out) -> None:
    pytest.importorskip("torch", reason="the extra 'train' is not installed")
    out = tmp_path / "run"
    assert run(["train", "household/train", *SMALL, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "Warm start" in text
    assert f"Report: {out / 'report.html'}" in text

    assert run(["sft", "household/train", *SMALL, "--out", str(tmp_path / "sft"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert "final" not in summary, "an sft run has no reinforcement phase"
    model = summary["model"]

    policies = ["--policy", f"{out}:warm-start", "--policy", str(out), "--policy", f"hf:{model}"]
    small = ["processes=1", "limits.turns=2", "scenario.0.tasks=2", "scenario.1.tasks=2"]
    arguments = ["eval", "household/eval", *small, *policies, "--out", str(tmp_path / "eval"), "--json"]
    assert run(arguments) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 2 * 2 + 3 * 2 * 2, (
        "two baselines sampled; three models sampled and greedy; two splits"
    )
    assert {row["means"]["turns"] for row in rows if row["policy"] != "expert"} == {2.0}

    assert (
        run(
            [
                "eval",
                "household/eval",
                *small,
                "--only",
                *policies[2:4],
                "--fail-below",
                "0.9",
                "--out",
                str(tmp_path / "gate"),
            ]
        )
        == FOUND_BAD
    )
    assert "below 90.0%" in capsys.readouterr().err

    both = [str(tmp_path / "eval"), str(tmp_path / "eval" / "eval.json")]
    assert (
        run(["compare", *both, "--policy-before", f"{out}:warm-start", "--policy-after", str(out), "--json"])
        == 0
    )
    assert {item["mode"] for item in json.loads(capsys.readouterr().out)} == {"sampled", "greedy"}

    (out / "report.html").unlink()
    assert run(["report", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    assert (out / "report.html").exists()
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"torn')
    assert run(["report", str(out)]) == 0
    assert f"Left out of the report: 1 damaged line(s) or file(s) of {out}" in capsys.readouterr().err

    assert run(["check-template", str(out / "start")]) == 0
    assert "append-only" in capsys.readouterr().out


def test_a_run_that_a_signal_stops_says_how_to_go_on(
    tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="the extra 'train' is not installed")
    from agentrl.run.bench import Bench

    after_step = Bench.after_step

    def interrupted(self: Bench, phase: str, step: int, *, last: bool = False) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        after_step(self, phase, step, last=last)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Bench, "after_step", interrupted)
        assert run(["train", "household/train", *SMALL, "--out", str(out)]) == INTERRUPTED
    assert f"--resume {out}" in capsys.readouterr().err
    assert run(["train", "--resume", str(out), "--json"]) == 0
    assert "final" in json.loads(capsys.readouterr().out)


def test_recipes_are_listed_and_shown(capsys: Out) -> None:
    assert run(["recipes", "list"]) == 0
    listed = capsys.readouterr().out
    assert "GTPO " in listed
    assert "(2508.03772)" in listed
    assert run(["recipes", "show", "simple-tir"]) == 0
    shown = capsys.readouterr().out
    assert "2509.02479" in shown
    assert "keep          All(filters=(NoVoid(void=no_code_or_answer" in shown
    assert run(["recipes", "list", "--json"]) == 0
    assert {
        "name": "GRPO",
        "title": "group-relative policy optimisation",
        "paper": "2402.03300",
    } in json.loads(capsys.readouterr().out)
    assert run(["recipes", "show", "grpo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["part"] == "agentrl.learn.algorithm:Algorithm"
    assert run(["recipes", "show", "GIGPOO"]) == BAD_INPUT
    assert "Did you mean 'GIGPO'" in capsys.readouterr().err

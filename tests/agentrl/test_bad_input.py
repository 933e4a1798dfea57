"""Bad input: one sentence that names the repair, an exit code other than 0, a traceback only with --debug."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentrl.run.cli import BAD_INPUT, DEFECT, FOUND_BAD, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Said = Callable[[Sequence[str], int], str]

SMALL = (
    "model.hidden=32", "model.layers=1", "model.heads=2", "model.kv_heads=1", "model.intermediate=32",
    "model.slots=8", "model.vocabulary=400", "warm_start.demonstrations=8", "warm_start.steps=1",
    "rl.steps=1", "rl.tasks=1", "rl.members=2", "limits.turns=2", "processes=1", "shards=1",
    "evaluation.curve_tasks=0", "evaluation.final_tasks=2",
)  # fmt: skip

WORLDS = """
from agentrl.testing import FaultyEnv
from agentrl_envs.household.env import HouseholdEnv

class Broken(FaultyEnv):
    def __init__(self):
        super().__init__(HouseholdEnv(), p=1.0)

class LateBroken(HouseholdEnv):
    def reset(self, *, seed=None, options=None):
        if options["index"] >= 1_000_000:
            raise RuntimeError("the game server is down")
        return super().reset(seed=seed, options=options)
"""


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command that must fail with a code, and returns what it said on standard error."""

    def check(arguments: Sequence[str], code: int) -> str:
        assert run(list(arguments)) == code
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return text

    return check


@pytest.fixture
def worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of broken worlds on the path, under a name of its own."""
    name = f"broken_worlds_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(WORLDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.fixture
def trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A finished run of a tiny model."""
    pytest.importorskip("torch", reason="the extra 'train' is not installed")
    out = tmp_path / "run"
    assert run(["train", "household/train", *SMALL, "--out", str(out)]) == 0, capsys.readouterr().err
    capsys.readouterr()
    return out


def train(*overrides: str, out: Path) -> list[str]:
    return ["train", "household/train", *SMALL, *overrides, "--out", str(out)]


def test_an_unknown_environment_names_the_nearest(said: Said, tmp_path: Path) -> None:
    text = said(train("environment.id=agentrl/Houshold-v0", out=tmp_path / "run"), BAD_INPUT)
    assert "Did you mean 'agentrl/Household-v0'?" in text
    assert "'agentrl/Household-v0'" in said(["envs", "show", "agentrl/Houshold-v0"], BAD_INPUT)


def test_broken_toml_is_named_with_its_line(said: Said, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("seed = 1\n[rl\nsteps = 3\n")
    assert "broken.toml is not valid TOML" in (text := said(["train", str(path)], BAD_INPUT))
    assert "line 2" in text


def test_a_folder_given_as_settings_names_the_files_in_it(said: Said, tmp_path: Path) -> None:
    assert "It holds none." in said(["train", str(tmp_path)], BAD_INPUT)
    (tmp_path / "mine.toml").touch()
    assert "is a folder, and settings are a TOML file" in said(["train", str(tmp_path)], BAD_INPUT)
    assert "Name one of those in it: mine.toml." in said(["eval", str(tmp_path)], BAD_INPUT)


def test_a_wrong_type_and_an_unknown_setting_are_named_with_their_lines(said: Said, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('[environment]\nid = "agentrl/Household-v0"\n[rl]\nsteps = "many"\nmember = 3\n')
    text = said(["train", str(path)], BAD_INPUT)
    assert f"{path}, line 4: rl.steps = 'many'" in text
    assert f"{path}, line 5: there is no setting 'rl.member'. Did you mean 'rl.members'?" in text


@pytest.mark.parametrize(
    ("arguments", "sentences"),
    [
        (
            ("train", "empty.toml"),
            ("'environment' is missing", 'environment = {id = "agentrl/Household-v0"}'),
        ),
        (("eval", "empty.toml"), ("'scenario' is missing", 'scenario = [{split = "valid_seen"}]')),
        (
            ("train", "household/train", "rl.rewards=0.2"),
            ("on the command line: rl.rewards = 0.2", "a table of names and values", "rl.rewards.NAME=VALUE"),
        ),
        (("train", "household/train", "rl=3"), ("rl = 3", "it is a section", "rl.NAME=VALUE")),
        (
            ("train", "household/train", "model.hidden=33"),
            ("line 13 with model.hidden=33 of the command line", "hidden must be a multiple of heads"),
        ),
        (("train", "--resume", "nowhere"), ("there is no folder nowhere", "Give the folder of a run")),
        (("train", "--resume", "empty.toml"), ("empty.toml is a file and no folder",)),
        (("train", "--resume", "."), (". holds no run.toml",)),
        (
            ("train", "household/train", "--out", "empty.toml"),
            ("it is a file, and a folder is expected there", "--out"),
        ),
        (
            ("eval", "household/eval", "--out", "empty.toml"),
            ("it is a file, and a folder is expected there",),
        ),
        (("eval", "household/eval", "--tasks", "0"), ("1 or more; got 0",)),
        (
            ("envs", "play", "agentrl/Household-v0", "--index", "abc"),
            ("error: --index is 'abc', and a whole number is expected", "`agentrl envs play --help`"),
        ),
        (("trian",), ('Did you mean "train"?', "`agentrl --help`")),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_its_form(
    arguments: tuple[str, ...], sentences: tuple[str, ...], said: Said, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("empty.toml").touch()
    text = said(arguments, BAD_INPUT)
    for sentence in sentences:
        assert sentence in text
    assert not any(mark in text for mark in ("Errno", "pace", "╭"))
    assert [path.name for path in tmp_path.iterdir()] == ["empty.toml"], "nothing is left behind"


def test_a_refused_run_takes_nothing_away_that_was_there(said: Said, tmp_path: Path) -> None:
    mine = tmp_path / "run" / "checkpoints" / "mine.pt"
    mine.parent.mkdir(parents=True)
    mine.touch()
    said(train("model.context=8", out=tmp_path / "run"), BAD_INPUT)
    assert mine.exists()


def test_a_refused_evaluation_leaves_no_folder(said: Said, worlds: str, tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(f'environment.id = "{worlds}:Broken"\n[[scenario]]\nsplit = "nowhere"\n')
    said(["eval", str(suite), "--policy", "random", "--out", str(tmp_path / "e")], BAD_INPUT)
    assert not (tmp_path / "e").exists()


def test_an_unknown_split_names_those_there_are(said: Said, tmp_path: Path) -> None:
    text = said(train("environment.split=trian", out=tmp_path / "run"), BAD_INPUT)
    assert "train, valid_seen, valid_unseen" in text


def test_an_unknown_algorithm_names_the_nearest(said: Said, tmp_path: Path) -> None:
    assert "Did you mean" in said(train("rl.algorithm=GIGPOO", out=tmp_path / "run"), BAD_INPUT)


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from agentrl.run.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [("train", "household/train"), ("eval", "household/eval", "--policy", "hf:x"), ("check-template", ".")],
)
def test_a_missing_extra_is_named(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == BAD_INPUT
    assert "pip install 'agentrl[train]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(params=[100, 20_000, 100_000])
def full_disk(request: pytest.FixtureRequest) -> Iterator[int]:
    """No file may grow beyond so many bytes: run.toml, the starting model or the optimizer does not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (request.param, hard))
    yield request.param
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_run_directory_is_a_sentence(full_disk: int, said: Said, tmp_path: Path) -> None:
    text = said(train(out=tmp_path / "run"), BAD_INPUT)
    assert str(tmp_path / "run") in text
    assert "pace" in text
    assert len(text.splitlines()) == 1, "one sentence"


def test_a_run_directory_that_cannot_be_made_is_a_sentence(said: Said, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = said(train(out=tmp_path / "file" / "run"), BAD_INPUT)
    assert "cannot be written" in text
    assert "--out" in text
    text = said(["eval", "household/eval", "--out", str(tmp_path / "file" / "eval")], BAD_INPUT)
    assert "cannot be written" in text


def test_a_read_only_run_directory_is_a_sentence(said: Said) -> None:
    folder = Path("/proc/self/agentrl")  # nobody can write here, root neither
    if not folder.parent.exists():
        pytest.skip("this system has no /proc")
    assert "--out" in said(train(out=folder), BAD_INPUT)


def test_a_folder_without_permission_is_a_sentence(said: Said, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o555)
    try:
        assert "ermission" in said(train(out=tmp_path / "run"), BAD_INPUT)
    finally:
        tmp_path.chmod(0o755)


def test_a_world_that_raises_in_the_preflight_episode_stops_the_run(
    said: Said, worlds: str, tmp_path: Path
) -> None:
    wrong = (f"environment.id={worlds}:Broken", "environment.kwargs={}", "warm_start.demonstrations=0")
    text = said(train(*wrong, out=tmp_path / "run"), FOUND_BAD)
    assert "preflight" in text
    assert "injected failure" in text
    assert "agentrl envs check" in text


def test_a_context_that_holds_no_prompt_stops_the_run_before_the_warm_start(
    said: Said, tmp_path: Path
) -> None:
    text = said(train("model.context=8", out=tmp_path / "run"), BAD_INPUT)
    assert "could not say anything in the preflight episode" in text
    assert "a stream holds 8 (model.context)" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", ["GIGPO", "GIGPO_SIMILAR", "SIMPLE_TIR"])  # the last two read texts
def test_lone_members_that_would_teach_nothing_are_refused(recipe: str, said: Said, tmp_path: Path) -> None:
    text = said(train("rl.members=1", f"rl.algorithm={recipe}", out=tmp_path / "run"), BAD_INPUT)
    assert "every advantage would be zero" in text
    assert "Set rl.members to 2 or more" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("rl.algorithm=FAPO",), "declare reward_names = ('flawed',)"),
        (
            ("rl.plan.sampler.part=Weighted", "rl.plan.sampler.pool=0"),
            "a pool of 0 tasks cannot give",
        ),
    ],
)
def test_what_no_step_could_use_is_refused_before_the_warm_start(
    wrong: tuple[str, ...], sentence: str, said: Said, tmp_path: Path
) -> None:
    assert sentence in said(train(*wrong, out=tmp_path / "run"), BAD_INPUT)
    assert not (tmp_path / "run").exists()


def test_a_setting_of_another_place_is_pointed_to(said: Said) -> None:
    text = said(["eval", "household/eval", "--policy", "expert", "tasks=8"], BAD_INPUT)
    assert "there is no setting 'tasks'. It stands in scenario.0.tasks." in text
    text = said(["eval", "household/eval", "turns=8"], BAD_INPUT)
    assert "It stands in scenario.0.turns and limits.turns." in text


def test_a_world_that_raises_above_the_set_share_stops_the_run(
    said: Said, worlds: str, tmp_path: Path
) -> None:
    text = said(train(f"environment.id={worlds}:LateBroken", out=tmp_path / "run"), FOUND_BAD)
    assert "100%" in text
    assert "the game server is down" in text
    assert "most_invalid" in text


def test_an_evaluation_of_a_broken_world_is_no_success_of_zero(
    said: Said, worlds: str, tmp_path: Path
) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(f'environment.id = "{worlds}:Broken"\n[[scenario]]\nsplit = "valid_seen"\ntasks = 3\n')
    text = said(["eval", str(suite), "--policy", "random", "--out", str(tmp_path / "e")], FOUND_BAD)
    assert "3 of 3 rollouts" in text
    assert "injected failure" in text


def test_a_template_that_refuses_every_message_is_a_sentence(
    said: Said, trained: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = trained / "start"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    tokenizer.save_pretrained(folder)
    for arguments in (
        ["check-template", str(folder)],
        train(f"model.path={folder}", out=tmp_path / "again"),
    ):
        text = said(arguments, FOUND_BAD)
        assert "cannot be applied to messages of the roles user: never" in text
        assert "markup" in text
    text = said(["check-template", str(trained)], BAD_INPUT)
    assert f"is a run directory. Name the model in it that is meant: {folder}, " in text


def test_a_resume_with_other_settings_shows_them_and_refuses(said: Said, trained: Path) -> None:
    text = said(["train", "--resume", str(trained), "rl.steps=2"], BAD_INPUT)
    assert "rl.steps: was 1, now 2" in text
    assert "--accept-changes" in text
    assert run(["train", "--resume", str(trained), "rl.steps=2", "--accept-changes"]) == 0
    assert "already holds a run" in said(train(out=trained), BAD_INPUT)


def test_a_resume_of_nothing_is_a_sentence(said: Said, tmp_path: Path) -> None:
    assert "no run can be read or resumed" in said(["train", "--resume", str(tmp_path)], BAD_INPUT)


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "nothing/here"], debug=True) == BAD_INPUT
    assert "Traceback" in capsys.readouterr().err


def test_a_defect_is_called_one(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.world.registry.list_envs", None)  # so that our own code raises
    text = said(["envs", "list"], DEFECT)
    assert "--debug" in text
    assert "'NoneType' object is not callable" in text

"""`agentrl envs new`: the package that it writes works as it is, and is found without being imported."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import ConfigError
from agentrl.run.cli import run
from agentrl.run.scaffold import write_package

if TYPE_CHECKING:
    from pathlib import Path


def command(*arguments: str, folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), *sys.path])}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=where, capture_output=True, text=True, check=False
    )


def test_a_new_package_installs_lists_and_passes_its_own_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["envs", "new", "light-house"]) == 0
    assert "pip install -e light-house" in capsys.readouterr().out
    folder, installed = tmp_path / "light-house", tmp_path / "installed"

    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    made = command(*pip, "--target", str(installed), str(folder), folder=tmp_path, path=tmp_path)
    assert made.returncode == 0, made.stderr

    code = (
        "import sys, agentrl\n"
        "assert 'light_house/LightHouse-v0' in agentrl.list_envs()\n"
        "assert not any(name.startswith('light_house') for name in sys.modules)\n"
        "from agentrl.run.cli import run\n"
        "assert run(['envs', 'list']) == 0\n"
        "assert not any(name.startswith('light_house') for name in sys.modules)\n"
    )
    listed = command("-c", code, folder=tmp_path, path=installed)
    assert listed.returncode == 0, listed.stderr
    assert "light_house.env:LightHouse" in listed.stdout

    tested = command("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", folder=folder, path=installed)
    assert tested.returncode == 0, tested.stdout
    assert "3 passed" in tested.stdout


@pytest.mark.parametrize("name", ["My World", "1world", "a__b", "x/y", ""])
def test_a_name_that_is_no_package_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="small letters, digits and underscores"):
        write_package(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "why"), [("numpy", "in this Python already"), ("class", "Python's own")])
def test_a_name_that_is_taken_is_refused(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why):
        write_package(name, tmp_path)
    assert not any(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="exists already; nothing was written"):
        write_package("mine", tmp_path)

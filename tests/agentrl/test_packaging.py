"""One wheel, three import names, nothing else; imports stay light and never collide with a user's."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
PACKAGES = {"agentrl", "agentrl_envs", "agentrl_tools"}
HEAVY = ("torch", "transformers", "pyarrow")
PROBE = f"""
import json, sys, time
print(json.dumps([[m for m in {HEAVY!r} if m in sys.modules], time.process_time()]))
"""


def python(code: str, cwd: Path, extra: Mapping[str, str] | None = None) -> str:
    """Run `code` as a script in `cwd` in a fresh interpreter and return what it prints."""
    script = cwd / "client_script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=cwd,
        env={**os.environ, **(extra or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, so that both are complete."""
    pytest.importorskip("build", reason="the extra 'dev' is not installed")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """A user's project that owns packages called `envs` and `tools`."""
    for name in ("envs", "tools"):
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").write_text(f"OWNER = 'client {name}'\n")
    return tmp_path


CLIENT = """
import agentrl, agentrl_envs, agentrl_tools, envs, tools
assert envs.OWNER == "client envs" and tools.OWNER == "client tools"
for module in (agentrl, agentrl_envs, agentrl_tools):
    print(module.__file__)
"""


def test_the_wheel_holds_our_three_packages_and_the_scenarios(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    in_checkout = {
        path.relative_to(ROOT / "scenarios").as_posix() for path in (ROOT / "scenarios").rglob("*.toml")
    }
    assert in_checkout
    assert {f"agentrl/_scenarios/{name}" for name in in_checkout} <= set(names)


def test_an_installed_wheel_leaves_a_clients_own_packages_alone(
    wheel: Path, client: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(site)
    files = python(CLIENT, client, {"PYTHONPATH": str(site)}).split()
    assert [Path(file).is_relative_to(site) for file in files] == [True, True, True]


def test_a_checkout_leaves_a_clients_own_packages_alone(client: Path) -> None:
    assert len(python(CLIENT, client).split()) == len(PACKAGES)


def test_importing_agentrl_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded, cpu_seconds = json.loads(python("import agentrl" + PROBE, tmp_path))
    print(f"import agentrl: {cpu_seconds:.2f} CPU-s (aim: 0.3)")
    assert loaded == []


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
import sys
from agentrl.run.cli import main
sys.argv = ["agentrl", "--help"]
try:
    main()
except SystemExit as exit:
    assert not exit.code, exit.code
print()
{PROBE}"""
    loaded, cpu_seconds = json.loads(python(code, tmp_path).splitlines()[-1])
    print(f"agentrl --help: {cpu_seconds:.2f} CPU-s (aim: 0.6)")
    assert loaded == []


def test_python_m_agentrl_run_cli_prints_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agentrl.run.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "train" in done.stdout


def test_every_entry_point_names_an_existing_class() -> None:
    ours = [entry for entry in entry_points(group="agentrl.envs") if entry.name.startswith("agentrl/")]
    assert {entry.name for entry in ours} >= {"agentrl/Household-v0", "agentrl/TextWorld-v0"}
    for entry in ours:
        source = ROOT / "envs" / Path(*entry.module.split("."))
        text = source.with_suffix(".py").read_text()
        assert entry.attr in {node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}


GYMNASIUM = """
import sys
import agentrl_envs, gymnasium
assert "agentrl/Household-v0" in gymnasium.registry
print(*[name for name in sys.modules if name.startswith("agentrl_envs.")])
assert type(gymnasium.make("agentrl_envs:agentrl/Household-v0").unwrapped).__name__ == "HouseholdEnv"
"""


def test_gymnasium_finds_our_worlds_without_loading_them(tmp_path: Path) -> None:
    assert python(GYMNASIUM, tmp_path).split() == []


def _imports_of_the_root(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "agentrl":
            yield f"{path.relative_to(ROOT)}:{node.lineno}: from agentrl import ..."
        if isinstance(node, ast.Import) and any(alias.name == "agentrl" for alias in node.names):
            yield f"{path.relative_to(ROOT)}:{node.lineno}: import agentrl"


def test_nothing_inside_agentrl_imports_the_root() -> None:
    """Ruff's TID251 cannot say it: a ban on `agentrl` would also ban `from agentrl.errors import ...`."""
    inside = (path for path in (ROOT / "agentrl").rglob("*.py") if path != ROOT / "agentrl" / "__init__.py")
    assert [line for path in inside for line in _imports_of_the_root(path)] == []

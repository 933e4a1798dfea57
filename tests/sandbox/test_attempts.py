"""The attempts without a jail, as an ordinary user, and against single versions of Landlock."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentrl.sandbox import landlock
from agentrl.sandbox.probe import missing, probe
from agentrl.sandbox.result import Tier

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ATTEMPTS = tomllib.loads((HERE / "attempts.toml").read_text(encoding="utf-8"))["attempt"]
STRANGER = 64999
PYTHON = "/usr/bin/python3"
AS_ROOT = os.getuid() == 0


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Things that lie outside, fresh ones, for an attempt may reach them."""
    folder = tmp_path_factory.mktemp("outside")
    _open_to_all(folder)
    (folder / "secret").write_text("the gold answer")
    (folder / "secret").chmod(0o666)
    name = f"agentrl-{os.getpid()}-{folder.name}"
    trainer = subprocess.Popen(["sleep", "600"])
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen(64)
        yield {
            "SECRET_FILE": str(folder / "secret"),
            "OUTSIDE": str(folder),
            "TCP_PORT": str(server.getsockname()[1]),
            "ABSTRACT": name,
            "TRAINER": str(trainer.pid),
        }
    trainer.kill()
    trainer.wait()


def _open_to_all(folder: Path) -> None:
    folder.chmod(0o777)
    for parent in folder.parents:
        if parent.stat().st_uid == os.getuid() and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)


def _said(
    how: str,
    attempts: list[dict[str, str]],
    world: dict[str, str],
    cwd: Path,
    *,
    python: str = sys.executable,
    user: int | None = None,
) -> dict[str, dict[str, object]]:
    codes: dict[str, str] = {}
    for attempt in attempts:
        code = attempt["code"]
        for word, value in world.items():
            code = code.replace(word, value)
        codes[attempt["name"]] = code
    asked = json.dumps({"root": str(ROOT), "how": how, "attempts": codes})
    rights: dict[str, object] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    done = subprocess.run(
        [python, str(HERE / "attack.py")],
        input=asked,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "TOP_SECRET": "TOP_SECRET"},
        timeout=300,
        check=False,
        **rights,  # type: ignore[call-overload]  # only where it is another user
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, dict[str, object]] = json.loads(done.stdout)
    return answer


def test_what_the_jail_holds_works_without_one(outside: dict[str, str], tmp_path: Path) -> None:
    users = {"user", "root"} if AS_ROOT else {"user"}
    shown = [attempt for attempt in ATTEMPTS if attempt.get("unjailed") in users]

    said = _said("none", shown, outside, tmp_path)

    failed = {name: result["message"] for name, result in said.items() if not result["reached"]}
    assert not failed
    assert len(shown) >= 20


@pytest.mark.parametrize("tier", ["strict", pytest.param("bwrap", marks=pytest.mark.slow), "landlock"])
def test_every_attempt_of_an_ordinary_user_is_held(
    tier: str, outside: dict[str, str], tmp_path: Path
) -> None:
    if not AS_ROOT:
        pytest.skip("an ordinary user runs these tests, so test_jail.py shows the same")
    _skip_without_python(tier)
    _open_to_all(tmp_path)

    said = _said(tier, ATTEMPTS, outside, tmp_path, python=PYTHON, user=STRANGER)

    assert said.pop("afterwards") == "well\n"  # type: ignore[comparison-overlap]  # a text among the results
    for attempt in ATTEMPTS:
        result = said[attempt["name"]]
        if attempt.get(tier) != "open":
            assert not result["reached"], attempt["name"]
        assert result["status"] != "infra_error", result
        if "outcome" in attempt:
            assert result["status"] == attempt["outcome"], attempt["name"]
    assert len(said) >= 44


def _skip_without_python(tier: str) -> None:
    if not os.access(PYTHON, os.X_OK):
        pytest.skip(f"no {PYTHON} that every user can read")
    version = subprocess.run(
        [PYTHON, "-c", "import sys; print(sys.version_info >= (3, 11))"],
        capture_output=True,
        text=True,
        check=True,
    )
    if version.stdout.strip() != "True":
        pytest.skip(f"{PYTHON} is older than 3.11")
    readable = subprocess.run(
        ["ls", str(ROOT)], user=STRANGER, group=STRANGER, capture_output=True, check=False
    )
    if readable.returncode:
        pytest.skip(f"an ordinary user cannot read {ROOT}")
    if tier == "bwrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    lacking = missing(probe(PYTHON), Tier(tier))
    if lacking:
        pytest.skip(" ".join(lacking))


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_what_each_version_of_landlock_holds_alone(
    version: int, outside: dict[str, str], tmp_path: Path
) -> None:
    if landlock.abi() < version:
        pytest.skip(f"this kernel has version {landlock.abi()} of Landlock")
    users = {"user", "root"} if AS_ROOT else {"user"}
    known = [item for item in ATTEMPTS if "landlock_abi" in item and item["unjailed"] in users]

    said = _said(f"landlock {version}", known, outside, tmp_path)

    held = {name for name, result in said.items() if not result["reached"]}
    assert held == {item["name"] for item in known if 1 <= int(item["landlock_abi"]) <= version}

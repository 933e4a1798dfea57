from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
import tomllib
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import ConfigError, SandboxError, SandboxUnavailable
from agentrl.sandbox.bubble import bubblewrap
from agentrl.sandbox.jail import Sandbox
from agentrl.sandbox.probe import Layer, missing, probe
from agentrl.sandbox.result import Limits, Program, Status, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ATTEMPTS = tomllib.loads((Path(__file__).parent / "attempts.toml").read_text(encoding="utf-8"))["attempt"]
LIMITS = Limits(wall_seconds=4, memory=256 << 20)
READABLE_PYTHON = "/usr/bin/python3"


def _processes() -> set[int]:
    mine: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        try:
            tasks = list(Path(f"/proc/{waiting.pop()}/task").iterdir())
            below = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
        except OSError:
            continue
        mine |= set(below)
        waiting += below
    return mine


@pytest.fixture(scope="module")
def strict() -> Iterator[Sandbox]:
    os.environ["TOP_SECRET"] = "TOP_SECRET"
    lacking = missing(probe(), Tier.STRICT)
    if lacking:
        pytest.skip(" ".join(lacking))
    mounts = Path("/proc/self/mounts").read_text()
    before = _processes()
    with Sandbox("strict", limits=LIMITS) as sandbox:
        yield sandbox
    del os.environ["TOP_SECRET"]
    assert Path("/proc/self/mounts").read_text() == mounts
    assert _processes() >= before


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("outside")
    folder.chmod(0o777)
    (folder / "secret").write_text("the gold answer")
    (folder / "secret").chmod(0o666)
    name = f"agentrl-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen(8)
        yield {
            "SECRET_FILE": str(folder / "secret"),
            "OUTSIDE": str(folder),
            "TCP_PORT": str(server.getsockname()[1]),
            "ABSTRACT": name,
            "TRAINER": str(os.getpid()),
        }
    assert [path.name for path in folder.iterdir()] == ["secret"]


def _written_out(code: str, world: dict[str, str]) -> str:
    for word, value in world.items():
        code = code.replace(word, value)
    return code


KINDS = ("socket.SOCK_STREAM", "socket.SOCK_DGRAM")
BY_PATH = """
import socket
for make in (lambda: socket.socket(socket.AF_UNIX, KIND), lambda: socket.socketpair(socket.AF_UNIX, KIND)[0]):
    try:
        make().connect(PATH)
        print("REACHED")
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_of_the_host_is_out_of_reach(strict: Sandbox, landlock: Sandbox, kind: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        path = f"{folder}/host"
        with socket.socket(socket.AF_UNIX, eval(kind)) as server:  # one of the two above
            server.bind(path)
            if "STREAM" in kind:
                server.listen(8)
            Path(path).chmod(0o777)
            code = BY_PATH.replace("KIND", kind).replace("PATH", repr(path))
            for jail in (strict, landlock):
                result = jail.run(code)
                assert result.stdout.split(), result
                assert "REACHED" not in result.stdout, result
            assert landlock.run("import asyncio; asyncio.run(asyncio.sleep(0)); print(1)").stdout == "1\n"


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=[item["name"] for item in ATTEMPTS])
def test_an_attempt_is_held_in_strict(
    attempt: dict[str, str], strict: Sandbox, world: dict[str, str]
) -> None:
    result = strict.run(_written_out(attempt["code"], world))

    assert "REACHED" not in result.stdout
    assert result.status is not Status.INFRA_ERROR, result.message
    assert result.wall_seconds < 8
    if "outcome" in attempt:
        assert result.status == attempt["outcome"], result
    assert strict.run("print('well')").stdout == "well\n"


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=[item["name"] for item in ATTEMPTS])
def test_an_attempt_is_held_by_landlock_but_for_the_documented_rest(
    attempt: dict[str, str], landlock: Sandbox, world: dict[str, str]
) -> None:
    result = landlock.run(_written_out(attempt["code"], world))

    assert "REACHED" not in result.stdout or attempt.get("landlock") == "open", result
    assert result.status is not Status.INFRA_ERROR, result.message
    if "outcome" in attempt:
        assert result.status == attempt["outcome"], result


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=[item["name"] for item in ATTEMPTS])
def test_an_attempt_is_held_by_bubblewrap_but_for_the_documented_rest(
    attempt: dict[str, str], bwrap: Sandbox, world: dict[str, str]
) -> None:
    result = bwrap.run(_written_out(attempt["code"], world))

    assert "REACHED" not in result.stdout or attempt.get("bwrap") == "open", result
    assert result.status is not Status.INFRA_ERROR, result.message
    if "outcome" in attempt:
        assert result.status == attempt["outcome"], result


@pytest.fixture(scope="module")
def bwrap(open_jail: Callable[[str, Limits], Sandbox]) -> Iterator[Sandbox]:
    with open_jail("bwrap", LIMITS) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def landlock(open_jail: Callable[[str, Limits], Sandbox]) -> Iterator[Sandbox]:
    with open_jail("landlock", LIMITS) as sandbox:
        yield sandbox


def test_a_program_gets_its_files_its_input_and_its_seed(strict: Sandbox) -> None:
    program = Program(
        "import random; print(open('data/a.txt').read(), input(), random.random())",
        files={"data/a.txt": "file"},
        stdin="typed\n",
        seed=7,
    )

    first, second = strict.run(program), strict.run(program)

    assert first.stdout.startswith("file typed 0.3238")
    assert second.stdout == first.stdout


def test_a_command_runs_in_the_jail(strict: Sandbox) -> None:
    result = strict.run(Program(argv=("/bin/sh", "-c", "echo $HOME; pwd; exit 3")))

    assert (result.stdout, result.returncode, result.status) == ("/work\n/work\n", 3, Status.ERROR)


def test_nothing_of_one_execution_is_seen_by_the_next(strict: Sandbox) -> None:
    strict.run(
        "open('left', 'w').write('x'); open('/tmp/left', 'w').write('x'); import builtins; builtins.left = 1"
    )

    result = strict.run(
        # An interpreter that lies below one of these folders is mounted there.
        "import os, builtins\n"
        "kept = [name for place in ('.', '/tmp') for name in os.listdir(place)\n"
        "        if not os.path.ismount(os.path.join(place, name))]\n"
        "print(kept, hasattr(builtins, 'left'))"
    )

    assert result.stdout == "[] False\n"


def test_output_is_drained_and_what_was_cut_is_counted(strict: Sandbox) -> None:
    result = strict.run("print('x' * 1_000_000)")

    assert result.ok
    assert len(result.stdout) == 65536
    assert result.truncated == (1_000_001 - 65536, 0)


def test_a_long_input_that_nobody_reads_does_not_hang(strict: Sandbox) -> None:
    assert strict.run(Program("print('done')", stdin="x" * 5_000_000)).stdout == "done\n"


def test_an_error_shows_the_lines_of_the_program_and_nothing_of_ours(strict: Sandbox) -> None:
    result = strict.run("def f():\n    1 / 0\nf()")

    assert result.status is Status.ERROR
    assert "ZeroDivisionError" in result.stderr
    assert "inmate" not in result.stderr


def test_files_lie_where_their_paths_say(strict: Sandbox) -> None:
    files = {"x" * 255: "1", "d/../e/./f": "2", "..g": "3"}
    result = strict.run(
        Program("for n in ('x' * 255, 'e/f', '..g'): print(open(n).read(), end='')", files=files)
    )

    assert result.stdout == "123", result


def test_auto_takes_the_best_tier_and_stamps_it() -> None:
    with Sandbox(limits=LIMITS) as sandbox:
        result = sandbox.run("pass")

    assert result.tier is sandbox.tier
    assert "seccomp" in result.layers
    with pytest.raises(SandboxError, match="closed"):
        sandbox.run("pass")


def test_where_nothing_holds_auto_refuses_and_names_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {name: Layer(name, works=False, errno=1, detail="no") for name in probe()}

    def probed(_: str) -> dict[str, Layer]:
        return lost

    monkeypatch.setattr("agentrl.sandbox.jail.probe", probed)

    with pytest.raises(
        SandboxUnavailable, match=r"seccomp is missing .* 'bwrap' .* last resort is 'unconfined'"
    ):
        Sandbox()


def test_bubblewrap_that_is_not_installed_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.sandbox.bubble.ENVIRONMENT", {"PATH": "/nowhere"})

    with pytest.raises(OSError, match="apt-get install bubblewrap"):
        bubblewrap((), [], ())


def test_a_missing_layer_is_a_sentence_with_its_repair() -> None:
    found = dict(probe())
    found["user namespace"] = Layer("user namespace", works=False, errno=1, detail="Operation not permitted")

    lacking = missing(found, Tier.STRICT)

    assert "user namespace is missing (errno 1, Operation not permitted)" in lacking[0]
    assert "sysctl" in lacking[0]


def test_descriptors_and_processes_stay_flat(
    strict: Sandbox, jail_ahead: Callable[[Sandbox], list[int]]
) -> None:
    strict.run("pass")
    first = jail_ahead(strict)
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(50):
        assert strict.run("pass").ok

    assert not set(first) & set(jail_ahead(strict))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    "code",
    [
        "for _ in range(3000): os.mkdir('d'); os.chdir('d')",
        "os.mkdir('d'); os.chmod('d', 0); os.chmod('.', 0)",
    ],
    ids=["deep", "shut"],
)
def test_a_work_folder_goes_however_deep_it_is_and_whoever_may_look(
    code: str, monkeypatch: pytest.MonkeyPatch, open_jail: Callable[[str, Limits], Sandbox]
) -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders let nobody through
        Path(place).chmod(0o711)
        monkeypatch.setattr(tempfile, "tempdir", place)
        with open_jail("landlock", LIMITS) as sandbox:
            result = sandbox.run(f"import os; print(os.getcwd())\n{code}", Limits(wall_seconds=60))
            assert result.status is Status.OK, result
            deadline = time.monotonic() + 60
            while Path(result.stdout.strip()).exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert not Path(result.stdout.strip()).exists()
            left = list(Path(place).glob("*/*"))
            assert len(left) <= 1  # the folder of the jail that comes next
            assert [path for folder in left for path in folder.iterdir()] == []

        assert list(Path(place).iterdir()) == []


@pytest.mark.parametrize("target", ["/tmp", "/work"])
def test_an_interpreter_below_the_work_folder_stays_readable_and_is_no_work_of_the_session(
    target: str, strict: Sandbox
) -> None:
    del strict  # skips where there is no such tier
    made = not Path(target).exists()
    Path(target).mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=target) as place:
            Path(place).chmod(0o755)
            venv.create(f"{place}/deep/env", symlinks=True)
            library = next(Path(place).glob("deep/env/lib/python*/site-packages"))
            (library / "ours.py").write_text("value = 7")
            name = Path(place).name
            with Sandbox("strict", limits=LIMITS, python=f"{place}/deep/env/bin/python") as sandbox:
                code = f"import os, ours\nprint(ours.value)\nos.rename('{place}', '{target}/y')"
                result = sandbox.run(code)
                assert (result.stdout, result.status) == ("7\n", Status.ERROR), result
                with sandbox.open_session() as session:
                    session.run("x = 1; open('/tmp/g', 'w').write('1')")
                    kept = session.snapshot()
                    session.run("open('/tmp/g', 'w').write('2')")
                    session.restore(kept)
                    shown = session.run(
                        f"import os, ours; open('/tmp/g').read(), '{name}' in os.listdir('{target}')"
                    )
                    assert shown.stdout == "('1', True)\n", shown
                    kept.close()
    finally:
        if made:
            Path(target).rmdir()


def test_bubblewrap_shows_an_interpreter_below_a_folder_that_it_covers(bwrap: Sandbox) -> None:
    del bwrap  # skips where there is no such tier
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        command = [READABLE_PYTHON, "-m", "venv", "--without-pip", f"{place}/env"]
        subprocess.run(command, check=True, timeout=120)
        library = next(Path(place).glob("env/lib/python*/site-packages"))
        (library / "ours.py").write_text("value = 7")
        with Sandbox("bwrap", limits=LIMITS, python=f"{place}/env/bin/python") as sandbox:
            result = sandbox.run("import ours; print(ours.value)", Limits(wall_seconds=60))

    assert (result.stdout, result.status) == ("7\n", Status.OK), result


def test_an_error_shows_no_frame_of_ours(strict: Sandbox) -> None:
    with strict.open_session() as session:
        for code in ("x = (", "def f(: pass", "1 / 0"):
            for said in (strict.run(code).stderr, session.run(code).stderr):
                assert "Error" in said
                assert "script.py" not in said
                assert "/lib/" not in said


@pytest.mark.parametrize("python", ["/nonexistent", "/etc/passwd", "/bin/ls"])
@pytest.mark.parametrize("tier", ["auto", "landlock"])
def test_a_program_that_is_no_interpreter_is_named(python: str, tier: str) -> None:
    with pytest.raises(ConfigError, match=f"must be an interpreter; '{python}'"):
        Sandbox(tier, python=python)

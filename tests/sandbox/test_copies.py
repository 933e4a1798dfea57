"""What branches and snapshots make of the files of a session: kinds, modes, links, and what is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentrl.sandbox.result import MIB, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentrl.sandbox.jail import Sandbox

LIMITS = Limits(wall_seconds=10, memory=256 * MIB)
MAKE = """
import os, subprocess
def write(path, text, mode):
    with open(path, "w") as file: file.write(text)
    os.chmod(path, mode)
write("run.sh", "#!/bin/sh\\necho hi\\n", 0o755)
write("secret", "nobody reads this", 0)
write("read only", "x", 0o444)
os.symlink("run.sh", "link")
os.symlink("/etc/passwd", "out")
os.symlink("/etc", "out folder")
os.symlink("loop", "loop")
os.symlink("nowhere", "broken")
os.symlink("..", "up")
for name, mode in (("shut", 0), ("full", 0o555), ("open", 0o777)):
    os.mkdir(name)
    write(f"{name}/inner", name, 0o640)
    os.chmod(name, mode)
os.umask(0o777)
"""
SEE = """
import stat
def see():
    found = {}
    for name in (".", *sorted(os.listdir("."))):
        status = os.lstat(name)
        linked = stat.S_ISLNK(status.st_mode)
        if not os.path.ismount(name) or name == ".":
            found[name] = oct(status.st_mode), os.readlink(name) if linked else ""
    return found
"""
READ = """
for name in ("secret", "shut"): os.chmod(name, 0o700)
[open(name).read() for name in ("secret", "read only", "shut/inner", "full/inner", "open/inner")]
"""


@pytest.fixture(scope="module", params=["strict", "landlock"])
def sandbox(request: pytest.FixtureRequest, open_jail: Callable[[str, Limits], Sandbox]) -> Iterator[Sandbox]:
    with open_jail(request.param, LIMITS) as opened:
        yield opened


def test_copies_keep_kinds_modes_and_links(sandbox: Sandbox) -> None:
    with sandbox.open_session() as session:
        session.run(MAKE + SEE)
        before = session.run("see()").stdout
        assert "'link': ('0o120777', 'run.sh')" in before
        kept = session.snapshot()
        assert session.run("see()").stdout == before  # reading them changes nothing
        with session.branch() as other:
            assert other.run("see()").stdout == before
            other.run("os.chmod('shut', 0o700); open('shut/more', 'w').close(); os.unlink('link')")

            assert session.run("see()").stdout == before
            ran = session.run("subprocess.run(['./link'], capture_output=True).stdout")
            assert ran.stdout == "b'hi\\n'\n", ran.stderr
            assert session.run(READ).stdout == "['nobody reads this', 'x', 'shut', 'full', 'open']\n"
            session.restore(kept)
            kept.close()
            assert session.run("see()").stdout == before


def test_a_link_is_copied_and_what_it_leads_to_is_not(sandbox: Sandbox) -> None:
    with sandbox.open_session() as session:
        session.run("import os; os.mkdir('d'); open('d/f', 'w').write('old'); os.symlink('d', 'to')")
        with session.branch() as other:
            other.run(
                "import shutil; os.unlink('to'); shutil.move('d', 'to'); open('to/f', 'w').write('new')"
            )

            assert session.run("os.readlink('to'), open('to/f').read()").stdout == "('d', 'old')\n"
            assert other.run("os.path.islink('to'), open('to/f').read()").stdout == "(False, 'new')\n"


def test_what_is_neither_file_nor_folder_nor_link_is_left_out(sandbox: Sandbox) -> None:
    with sandbox.open_session() as session:
        session.run(
            "import os; os.mkfifo('pipe'); open('a', 'w').write('first'); os.link('a', 'b'); os.mkdir('d')"
        )
        with session.branch() as other:
            other.run("1")
            see = (
                "_ = open('b', 'a').write('+'); [os.path.lexists(n) for n in ('pipe', 'd')], open('a').read()"
            )
            assert session.run(see).stdout == "([False, True], 'first')\n"

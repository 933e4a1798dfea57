"""A PostgreSQL server of one's own, in a temporary folder on a Unix socket: for tests, and for worlds."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.parse import quote

from agentrl.errors import SandboxUnavailable

START_SECONDS = 60.0
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "40",
    "autovacuum": "off",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "log_min_messages": "panic",
}
# Starts the server; ends it and removes its folder when the pipe from the host closes, however that ended.
_KEEPER = '"$@" & server=$!; cat >/dev/null; kill -QUIT $server; wait $server; rm -rf "$0"'


def find_binaries() -> Path | None:
    """Return the folder of `initdb` and `postgres`, on the PATH or where Debian puts them, or None."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


class PostgresServer:
    """A server that lives as long as this object and this process; its data are gone with it.

    PostgreSQL refuses to run as root, so as root it runs as the user `postgres`, or `nobody`.

    Raises:
        SandboxUnavailable: there is no PostgreSQL, or it does not start; the message says why.
    """

    def __init__(self) -> None:
        binaries = find_binaries()
        if binaries is None:
            raise SandboxUnavailable(
                "There is no PostgreSQL on this machine: neither initdb on the PATH nor /usr/lib/postgresql. "
                "On Debian or Ubuntu: apt-get install postgresql. Or name a server of yours by its URL."
            )
        self._user = _ordinary_user()
        self.folder = Path(tempfile.mkdtemp(prefix="agentrl-pg-"))
        self._keeper: subprocess.Popen[bytes] | None = None
        try:
            if self._user is not None:
                os.chown(self.folder, self._user, -1)
            self._initialize(binaries)
            self._start(binaries)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, database: str = "postgres", user: str = "owner", password: str = "") -> str:
        """Return the address of a database for SQLAlchemy; the default user owns the server."""
        secret = f":{quote(password, safe='')}" if password else ""
        return (
            f"postgresql+psycopg://{user}{secret}@/{quote(database)}?host={quote(str(self.folder), safe='')}"
        )

    def close(self) -> None:
        """Stop the server at once and remove its data."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None and keeper.stdin is not None:
            keeper.stdin.close()
            try:
                keeper.wait(30)
            except subprocess.TimeoutExpired:
                keeper.kill()
                keeper.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _initialize(self, binaries: Path) -> None:
        command = [binaries / "initdb", "-D", self.folder / "data", "-U", "owner", "-A", "trust"]
        done = subprocess.run(
            [*map(str, command), "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"],
            user=self._user,
            capture_output=True,
            check=False,
            text=True,
            timeout=START_SECONDS,
            cwd="/",
            env=_environment(),
        )
        if done.returncode:
            raise SandboxUnavailable(f"initdb failed: {done.stderr.strip()[-500:]}")
        # The owner comes in by the socket's permissions; everybody else shows a password.
        (self.folder / "data" / "pg_hba.conf").write_text(
            "local all owner trust\nlocal all all scram-sha-256\n"
        )

    def _start(self, binaries: Path) -> None:
        settings = [item for name, value in _SETTINGS.items() for item in ("-c", f"{name}={value}")]
        server = [
            str(binaries / "postgres"),
            "-D",
            str(self.folder / "data"),
            "-k",
            str(self.folder),
            *settings,
        ]
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, str(self.folder), *server],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
        ready = [str(binaries / "pg_isready"), "-h", str(self.folder), "-U", "owner", "-t", "1"]
        _wait_until_ready(ready)


def _wait_until_ready(command: list[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if subprocess.run(command, capture_output=True, check=False, timeout=START_SECONDS).returncode == 0:
            return
        time.sleep(0.05)
    raise SandboxUnavailable(f"PostgreSQL did not start within {START_SECONDS:g} s.")


def _ordinary_user() -> int | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise SandboxUnavailable("PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody'.")


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

"""Runs attempts as somebody else: a script of its own, for another user or another interpreter.

It reads a JSON object from its standard input: `root`, where agentrl lies; `how`, a tier of the jail, "none"
or "landlock N"; `attempts`, names and code; and prints what became of each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys


def main() -> None:
    asked = json.load(sys.stdin)
    sys.path.insert(0, asked["root"])
    how = asked["how"]
    run = {"none": _unjailed}.get(how) or (_alone if how.startswith("landlock ") else None)
    attempts = asked["attempts"]
    if run is None:
        said = _jailed(how, attempts)
    else:
        said = {name: run(code, how) for name, code in attempts.items()}
    print(json.dumps(said))


def _jailed(tier: str, attempts: dict[str, str]) -> dict[str, object]:
    from agentrl.sandbox.jail import Sandbox
    from agentrl.sandbox.result import Limits

    said: dict[str, object] = {}
    with Sandbox(tier, limits=Limits(wall_seconds=4, memory=256 << 20)) as sandbox:
        for name, code in attempts.items():
            result = sandbox.run(code)
            said[name] = {
                "reached": "REACHED" in result.stdout,
                "status": str(result.status),
                "seconds": result.wall_seconds,
                "message": result.message,
            }
        said["afterwards"] = sandbox.run("print('well')").stdout
    return said


def _unjailed(code: str, how: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    return {"reached": "REACHED" in done.stdout, "message": done.stderr[-300:]}


def _alone(code: str, how: str) -> dict[str, object]:
    """Hold an attempt by one version of Landlock and nothing else."""
    from agentrl.sandbox import inmate, landlock

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writing, 1)
            readable = (*inmate.READABLE, sys.prefix, sys.base_prefix)
            writable = (".", *inmate.DEVICES)
            landlock.restrict(readable, writable, most=int(how.split()[1]))
            exec(compile(code, "attempt", "exec"), {"__name__": "__main__"})
            sys.stdout.flush()
        except BaseException:  # noqa: BLE001  # a fork of this script ends here, whatever happens
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as output:
        text = output.read()
    os.waitpid(child, 0)
    return {"reached": "REACHED" in text}


if __name__ == "__main__":
    main()

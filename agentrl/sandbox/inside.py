"""The beginning of a warden in a jail that bubblewrap made: a fresh interpreter learns what to guard."""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
from typing import NoReturn

from agentrl.sandbox import warden


def main() -> NoReturn:
    """Guard what the command line says, as JSON; an empty one says that nothing is to be guarded."""
    said = sys.argv.pop()
    if not said:
        sys.exit(0)
    about = json.loads(said)
    orders = socket.socket(fileno=about["orders"])
    for name in about["preload"]:
        importlib.import_module(name)
    orders.send(b"{}")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)
    os.close(null)
    warden.guard(orders, "/work", tuple(about["readable"]), warden.MADE_NAMESPACES)

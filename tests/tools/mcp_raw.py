"""An MCP server by hand, without the SDK, that goes wrong as its argument says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

HOW = sys.argv[1] if len(sys.argv) > 1 else ""
INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS: dict[str, list[dict[str, Any]]] = {
    "collide": [{"name": "a.b", "inputSchema": INTEGER}, {"name": "a/b", "inputSchema": INTEGER}],
    "schema": [{"name": "tool", "inputSchema": {"type": "object", "properties": {"n": {"type": "nothing"}}}}],
    "remote": [
        {
            "name": "tool",
            "inputSchema": {"type": "object", "properties": {"n": {"$ref": "http://127.0.0.1:9/schema"}}},
        }
    ],
}


def answer(message: dict[str, Any]) -> dict[str, Any] | None:
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        return {
            "result": {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "raw", "version": "1"},
            }
        }
    if method == "tools/list":
        usual = [{"name": "tool", "description": "Fails.", "inputSchema": INTEGER}]
        page: dict[str, Any] = {"tools": TOOLS.get(HOW, usual)}
        return {"result": page | ({"nextCursor": "more"} if HOW == "pages" else {})}
    if method == "tools/call":
        return called()
    return {"error": {"code": -32601, "message": "Method not found"}} if "id" in message else None


def called() -> dict[str, Any]:
    if HOW == "hang":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)  # left by mcp_raw"])
        time.sleep(600)
    if HOW == "die":
        print("the disk is full", file=sys.stderr, flush=True)
        os._exit(3)
    if HOW == "flood":
        while True:
            os.write(1, b"x" * 65536)
    if HOW == "refuse":
        return {"error": {"code": -32602, "message": "n is too large"}}
    if HOW == "internal":
        return {"error": {"code": -32603, "message": "the database is gone"}}
    if HOW == "chatter":
        print("debugging output", flush=True)
    return {"result": {"content": [{"type": "text", "text": "fine"}]}}


def main() -> None:
    if HOW == "silent":
        time.sleep(600)
    if HOW == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin:
        asked = json.loads(line)
        told = answer(asked)
        if told is not None and "id" in asked:
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **told}), flush=True)
    if HOW == "deaf":
        time.sleep(600)


if __name__ == "__main__":
    main()

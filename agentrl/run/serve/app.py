"""The routes: FastAPI over `Sessions`, with a token, a cap on bodies, and a page that needs no network."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import html
import ipaddress
from typing import TYPE_CHECKING, Annotated

from fastapi import Body, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.datastructures import Headers

from agentrl.errors import ConfigError
from agentrl.run.serve.sessions import Refused, Sessions, step_all

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 8 << 20
"""Longest body of a call."""

BODY_SECONDS = 30.0
"""How long a body may take to arrive."""


class Opening(BaseModel):
    """Which episode: split, index and seed as in `TextEnv.reset`; `protocol` is how actions are written."""

    split: str | None = None
    index: Annotated[int | None, Field(ge=0)] = None
    seed: Annotated[int | None, Field(ge=0)] = None
    protocol: dict[str, object] | None = None


class Turn(BaseModel):
    """The action of a turn. A client that got no answer sends the same turn again: it is executed once."""

    turn: Annotated[int, Field(ge=0)]
    action: str


class SessionTurn(Turn):
    """The action of a turn of one of several sessions."""

    session: str


def build(sessions: Sessions, *, token: str = "") -> FastAPI:
    """Return the application.

    Args:
        token: what clients must send as `Authorization: Bearer ...`; "" lets everybody in.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await sessions.aclose()

    app = FastAPI(title="agentrl serve", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(_Door, token=token)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Exception) -> JSONResponse:
        status = error.status if isinstance(error, Refused) else 500
        headers = {"retry-after": "1"} if status == 503 else {}
        return JSONResponse({"error": str(error)}, status, headers)

    _add_routes(app, sessions)
    return app


def _add_routes(app: FastAPI, sessions: Sessions) -> None:
    @app.get("/health")
    async def health() -> dict[str, object]:
        """Whether the server lives."""
        return {"status": "healthy", "sessions": len(sessions)}

    @app.get("/world")
    async def world() -> dict[str, object]:
        """The world: splits, sizes, protocol, limits."""
        return sessions.about()

    @app.post("/sessions")
    async def begin(opening: Annotated[Opening, Body()]) -> dict[str, object]:
        """Begin an episode in a new session."""
        return await sessions.open(opening.split, opening.index, opening.seed, opening.protocol)

    @app.post("/sessions/{session}/step")
    async def step(session: str, turn: Annotated[Turn, Body()]) -> dict[str, object]:
        """Execute the action of a turn, once."""
        return await sessions.step(session, turn.turn, turn.action)

    @app.post("/step")
    async def step_many(
        turns: Annotated[list[SessionTurn], Body(max_length=1024)],
    ) -> list[dict[str, object]]:
        """Execute the actions of several sessions at the same time; the answers stand in the same order."""
        return await step_all(sessions, [(item.session, item.turn, item.action) for item in turns])

    @app.post("/sessions/{session}/close")
    async def close(session: str) -> dict[str, object]:
        """Close a session; closing it again is no error."""
        await sessions.close(session)
        return {}

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        """The calls on one page, without anything from the network."""
        return documentation(app)


def documentation(app: FastAPI) -> str:
    """Return the OpenAPI description as a page of HTML that needs no network."""
    rows: list[str] = []
    for path, methods in app.openapi()["paths"].items():
        for method, about in methods.items():
            cells = (method.upper(), path, about.get("description", ""))
            rows.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>agentrl serve</title>"
        "<style>body{font:16px system-ui;margin:2rem}td{padding:.3rem 1rem .3rem 0}</style>"
        f"<h1>agentrl serve</h1><table>{''.join(rows)}</table>"
        "<p>With the form of each body: <a href='/openapi.json'>openapi.json</a></p></html>"
    )


class _Door:
    """Lets in whoever knows the token, with a body that is not too long and arrives in time."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self.token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if self.token and scope["path"] != "/health" and not hmac.compare_digest(given, self.token):
            await _say(401, "this server wants a token: Authorization: Bearer ...", scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _whole(receive)
        except TimeoutError:
            await _say(408, f"the body took longer than {BODY_SECONDS:g} s", scope, receive, send)
            return
        if body is None:
            await _say(413, f"the body is longer than {MOST_BYTES} bytes", scope, receive, send)
            return
        await self.app(scope, _given_again(body, receive), send)


async def _whole(receive: Receive) -> bytes | None:
    """The body of a call, or None where it is too long."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _given_again(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


async def _say(status: int, why: str, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"error": why}, status)(scope, receive, send)


def check_exposure(host: str, token: str) -> None:
    """Raise `ConfigError` where a server that others can reach would let everybody in."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not token:
        raise ConfigError(
            f"a server on {host} can be reached from other machines and needs a token. Put one into the "
            "environment variable that --token-variable names, or serve on 127.0.0.1."
        )

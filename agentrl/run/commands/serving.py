"""`agentrl serve`."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from agentrl.errors import ConfigError, MissingExtraError
from agentrl.run.commands.environments import arguments_of
from agentrl.run.commands.training import Flag  # noqa: TC001  # cyclopts reads annotations

if TYPE_CHECKING:
    from fastapi import FastAPI


def serve(  # one door with a default for everything but the world
    env: str,
    /,
    *arguments: str,
    host: str = "127.0.0.1",
    port: int = 8765,
    token_variable: str = "AGENTRL_TOKEN",
    privileged: Flag = False,
    sessions: int = 256,
    idle_seconds: float = 600.0,
    step_seconds: float = 60.0,
) -> None:
    """Offer a world over HTTP, for `agentrl.world.remote:RemoteEnv` or other clients; /docs lists the calls.

    Args:
        env: an id, or "module:Class".
        arguments: constructor arguments, as name=value.
        host: address to listen on; one that other machines reach needs a token.
        port: port to listen on.
        token_variable: environment variable with the token that clients must send, if there is to be one.
        privileged: let clients read the true state's key, the gold answer and the admissible commands, which
            training may want and an agent must never see.
        sessions: most sessions at the same time.
        idle_seconds: a session that nobody touches for so long is closed.
        step_seconds: deadline of one call of the world.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("Serving a world", "serve") from error
    from agentrl.run.serve.app import check_exposure

    token = os.environ.get(token_variable, "")
    check_exposure(host, token)
    app = _application(env, arguments, token, privileged, (sessions, idle_seconds, step_seconds))
    with _listening(host, port) as door:
        url = f"http://{host}:{door.getsockname()[1]}"
        print(f"{env} is offered on {url}; {url}/docs lists the calls. Ctrl-C ends it.", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[door])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that is bound before anything is promised. Raises `ConfigError` where the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"nothing can be offered on {host} port {port}: {error.strerror or error}. Choose another with "
            "--port, or end what uses it."
        ) from error


def _application(
    env: str, arguments: tuple[str, ...], token: str, privileged: bool, bounds: tuple[int, float, float]
) -> FastAPI:
    from agentrl.run.serve import ServeLimits, Sessions
    from agentrl.run.serve.app import build
    from agentrl.world.registry import make

    given = arguments_of(arguments)
    limits = ServeLimits(*bounds)
    return build(Sessions(lambda: make(env, **given), limits, privileged=privileged), token=token)

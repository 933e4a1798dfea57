"""A server over streamable HTTP, with a cap on what it may send."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from mcp.client._transport import TransportStreams

    from agentrl_tools.mcp.pipe import Pipe


@contextlib.asynccontextmanager
async def web(
    url: str, headers: Mapping[str, str], seconds: float, pipe: Pipe
) -> AsyncGenerator[TransportStreams]:
    """Connect to a server and yield the SDK's two streams. Proxies of the environment are not used.

    Args:
        seconds: for one call.
        pipe: says how much a server may send, and is told when it sends more.
    """
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    async def cap(response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            pipe.problem = "it sends compressed answers, which nobody asked for"
            raise httpx2.DecodingError(pipe.problem, request=response.request)
        if response.request.method == "POST":
            response.stream = _capped(response.stream, pipe)

    client = httpx2.AsyncClient(
        headers={"accept-encoding": "identity", **headers},
        timeout=httpx2.Timeout(seconds, read=seconds + 5.0),
        trust_env=False,
        event_hooks={"response": [cap]},
    )
    streams = streamable_http_client(url, http_client=client, max_sse_event_size=pipe.most_bytes)
    async with client, streams as both:
        yield both


def _capped(inner: Any, pipe: Pipe) -> Any:  # noqa: ANN401  # httpx2's streams
    """Return a body that breaks off when it is longer than allowed."""
    import httpx2

    class Capped(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            seen = 0
            async for chunk in inner:
                seen += len(chunk)
                if seen > pipe.most_bytes:
                    pipe.problem = f"it sent an answer of more than {pipe.most_bytes} bytes"
                    raise httpx2.ReadError(pipe.problem)
                yield chunk

        async def aclose(self) -> None:
            await inner.aclose()

    return Capped()

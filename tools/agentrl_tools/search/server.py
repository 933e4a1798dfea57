"""A server of Search-R1's `/retrieve`: `python -m agentrl_tools.search.server corpus.jsonl --port 8000`."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path  # noqa: TC003  # cyclopts reads annotations
from typing import TYPE_CHECKING, Final, cast

from agentrl.errors import AgentrlError

if TYPE_CHECKING:
    from collections.abc import Generator

    from agentrl_tools.search.results import Hit, Retriever

MOST_BYTES: Final = 1_000_000
MOST_QUERIES: Final = 1024
MOST_RESULTS: Final = 100
USUAL_RESULTS: Final = 3


class _Handler(BaseHTTPRequestHandler):
    """Answers `POST /retrieve` and `GET /health`."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    retriever: Retriever
    lock: threading.Lock

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, {"status": "healthy"})
        else:
            self._send(404, {"error": "POST /retrieve, or GET /health"})

    def do_POST(self) -> None:
        if self.path.rstrip("/") != "/retrieve":
            self._send(404, {"error": "POST /retrieve, or GET /health"})
            return
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self.close_connection = True
            self._send(413, {"error": f"a request has a content-length of at most {MOST_BYTES} bytes"})
            return
        try:
            queries, topk, scores = _read(self.rfile.read(int(length)))
        except ValueError as error:
            self._send(422, {"error": str(error)})
            return
        with self.lock:
            found = [
                [_written(hit, scores) for hit in self.retriever.search(query, topk)] for query in queries
            ]
        self._send(200, {"result": found})

    def _send(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the standard library
        """Say nothing: a run asks thousands of times."""


def _read(body: bytes) -> tuple[list[str], int, bool]:
    """Return queries, number of results and whether scores are wanted."""
    content: object = json.loads(body)
    if not isinstance(content, Mapping):
        form = 'a request is an object: {"queries": [...], "topk": 3, "return_scores": true}'
        raise ValueError(form)  # noqa: TRY004  # what a client sent is wrong, not a type of ours
    known = cast("Mapping[str, object]", content)
    queries = known.get("queries")
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise ValueError('"queries" must be a list of texts')
    if len(queries) > MOST_QUERIES:
        raise ValueError(f"at most {MOST_QUERIES} queries in one request")
    topk = known.get("topk")
    topk = USUAL_RESULTS if topk is None else topk
    if isinstance(topk, bool) or not isinstance(topk, int) or not 1 <= topk <= MOST_RESULTS:
        raise ValueError(f'"topk" must be a number from 1 to {MOST_RESULTS}')
    return cast("list[str]", queries), topk, bool(known.get("return_scores", False))


def _written(hit: Hit, scores: bool) -> dict[str, object]:
    """Search-R1's form: `contents` with the title in quotes first, wrapped where scores are wanted."""
    item = hit.document
    document: dict[str, object] = {
        "id": item.id,
        "contents": item.contents,
        "title": item.title,
        "text": item.text,
    }
    return {"document": document, "score": hit.score} if scores else document


def make_server(retriever: Retriever, host: str = "127.0.0.1", port: int = 0) -> ThreadingHTTPServer:
    """Return a server that is not running yet; port 0 takes a free one, see `server_address`."""
    handler = type("Handler", (_Handler,), {"retriever": retriever, "lock": threading.Lock()})
    server = ThreadingHTTPServer((host, port), handler)
    server.daemon_threads = True
    return server


@contextlib.contextmanager
def serve(retriever: Retriever, host: str = "127.0.0.1", port: int = 0) -> Generator[str]:
    """Serve in a thread, and give the address of `/retrieve`."""
    server = make_server(retriever, host, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}/retrieve"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Serve a corpus until stopped."""
    from cyclopts import App

    app = App(
        name="python -m agentrl_tools.search.server", help="Serve a corpus as /retrieve.", version_flags=[]
    )

    @app.default
    def run(corpus: Path, *, host: str = "127.0.0.1", port: int = 8000) -> None:
        """Serve a JSONL or Parquet corpus with BM25.

        Args:
            corpus: the file.
            host: address to listen on; 0.0.0.0 shows the corpus to the network.
            port: to listen on.
        """
        from agentrl_tools.search.bm25 import Bm25
        from agentrl_tools.search.corpus import read_corpus

        try:
            server = make_server(Bm25(read_corpus(corpus)), host, port)
        except AgentrlError as error:
            sys.exit(f"error: {error}")
        except OSError as error:
            sys.exit(f"error: {host}:{port} cannot be listened on: {error.strerror or error}.")
        print(f"Serving {corpus} at http://{host}:{server.server_address[1]}/retrieve")  # noqa: T201  # a program
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
        server.server_close()

    app()


if __name__ == "__main__":
    main()

"""A proxy before an S3 server that refuses, cuts answers short, and loses answers to what was done."""

from __future__ import annotations

import http.client
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message><RequestId>0123456789ABCDEF</RequestId></Error>"
)
_OF_THE_CONNECTION = {"connection", "content-length", "date", "server", "transfer-encoding"}


@dataclass
class Faults:
    """Shares of requests; they may be changed while the proxy runs."""

    refused: float = 0.0
    """Of all requests: answered 503 SlowDown, and never seen by the server."""
    cut: float = 0.0
    """Of answers to GET: the header promises the whole body, and the connection ends half way through it."""
    lost: float = 0.0
    """Of changes: done by the server, and the connection ends without an answer."""


class FaultyS3(ThreadingHTTPServer):
    """The proxy at ``url``; ``done`` counts the requests and the faults of each kind."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: str, faults: Faults, seed: int = 0) -> None:
        self.faults, self.done, self.server_netloc = faults, Counter[str](), urlsplit(server).netloc
        self._random, self._lock = random.Random(seed), threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def falls_on(self, kind: str) -> bool:
        """Whether this request is to have the fault."""
        with self._lock:
            drawn = self._random.random() < float(getattr(self.faults, kind))
            self.done[kind] += drawn
            return drawn

    def count(self) -> None:
        """One more request."""
        with self._lock:
            self.done["requests"] += 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are none of the test's business."""


@contextmanager
def before(server: str, faults: Faults | None = None) -> Iterator[FaultyS3]:
    """A proxy that runs before the server at this URL until the context ends."""
    proxy = FaultyS3(server, faults or Faults())
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def _answer(self) -> None:
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy.count()
        if proxy.falls_on("refused"):
            self._send(503, {"Content-Type": "application/xml"}, _SLOW_DOWN)
            return
        upstream = http.client.HTTPConnection(proxy.server_netloc, timeout=60)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in _OF_THE_CONNECTION}
        if self.command in ("PUT", "POST", "DELETE") and proxy.falls_on("lost"):
            self.close_connection = True
        elif self.command == "GET" and content and proxy.falls_on("cut"):
            self._send(answer.status, headers, content[: len(content) // 2], len(content))
            self.close_connection = True
        else:
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self._send(answer.status, headers, content, int(length) if length else None)

    def _send(self, status: int, headers: dict[str, str], body: bytes, promised: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if promised is None else promised))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):
                self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815  # the names that http.server asks for

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

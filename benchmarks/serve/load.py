"""Load on an HTTP service, from a process of its own: one line of JSON on standard input says what, one is the answer.

Connections stay open and are served by one loop that does next to nothing a request. Closed: each connection asks again
as soon as it is answered. Open: requests come at random moments (Poisson) at a given rate, whoever is ready, and their
time counts from the moment they were due, so that a service that falls behind cannot hide it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

_MOST_KEPT = 20
_CONNECT_WITHIN_S = 10.0


class Connection(asyncio.Protocol):
    """One connection, with one request under way at most."""

    def __init__(self, load: Load) -> None:
        self._load, self._buffer = load, b""
        self._due = self._body = 0.0
        self.transport: Any = None
        self.busy, self.place = False, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, due: float) -> None:
        self.busy, self._due = True, due
        self.place, request = self._load.next_request()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = data if not self._buffer else self._buffer + data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.index(b"content-length:") + 15
        length = int(head[at : head.find(b"\r\n", at) if head.find(b"\r\n", at) > 0 else end])
        if len(self._buffer) < end + 4 + length:
            return
        body, self._buffer, self.busy = self._buffer[end + 4 :], b"", False
        closing = b"connection: close" in head
        self._load.answered(self, int(head[9:12]), time.perf_counter() - self._due, body, closing)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)


class Load:
    """So many connections for so many seconds."""

    def __init__(self, order: dict[str, Any]) -> None:
        """``order``: host, port, requests (a file), connections, seconds, and either rate or nothing."""
        self._host, self._port = str(order["host"]), int(order["port"])
        lines = Path(order["requests"]).read_text().splitlines()
        self._requests = [_request(self._host, line.encode()) for line in lines]
        self._count, self._seconds = int(order["connections"]), float(order["seconds"])
        self._rate: float | None = order.get("rate")
        self._keep_all = bool(order.get("keep_all", False))
        self._place = 0
        self._idle: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self._taken_s: list[float] = []
        self._ended_s: list[float] = []
        self._failures: list[str] = []
        self._kept: list[tuple[int, str]] = []
        self._over = False

    def next_request(self) -> tuple[int, bytes]:
        self._place = (self._place + 1) % len(self._requests)
        return self._place, self._requests[self._place]

    def answered(self, connection: Connection, status: int, seconds: float, body: bytes, closing: bool) -> None:
        self._taken_s.append(seconds)
        self._ended_s.append(time.time())
        if status != 200:
            self._failures.append(f"{status}: {body[:200]!r}")
        elif self._keep_all:
            self._kept.append((connection.place, body.decode()))
        if self._over:
            return
        if closing:
            connection.transport.close()  # and ``lost`` opens another
        elif self._rate is None:
            connection.ask(time.perf_counter())
        elif self._waiting:
            connection.ask(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        if not self._over:
            if connection.busy:
                self._failures.append("a connection was closed before its answer")
            asyncio.get_running_loop().create_task(self._connect())
        if connection in self._idle:
            self._idle.remove(connection)

    async def run(self) -> dict[str, Any]:
        """Load for so many seconds; times in ms."""
        for _ in range(self._count):
            await self._connect()
        began = time.perf_counter()
        if self._rate is None:
            await asyncio.sleep(self._seconds)
        else:
            await self._at_random(began, self._rate)
        self._over = True
        if not self._taken_s:
            raise RuntimeError(f"there was no answer in {self._seconds} s: {self._failures[:_MOST_KEPT]}")
        taken = np.array(self._taken_s) * 1e3
        ended = np.array(self._ended_s)
        return {
            "requests": len(taken),
            "per_s": len(taken) / (time.perf_counter() - began),
            "p50_ms": float(np.percentile(taken, 50)),
            "p99_ms": float(np.percentile(taken, 99)),
            "failures": len(self._failures),
            "failed_with": sorted(set(self._failures))[:_MOST_KEPT],
            "times": np.stack([ended, taken], axis=1).tolist() if self._keep_all else [],
            "answers": self._kept,
        }

    async def _connect(self) -> None:
        loop, end = asyncio.get_running_loop(), time.perf_counter() + _CONNECT_WITHIN_S
        while not self._over:
            try:
                _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
            except OSError:
                if time.perf_counter() > end:
                    raise
                self._failures.append("no connection")
                await asyncio.sleep(0.05)
                continue
            if self._rate is None:
                connection.ask(time.perf_counter())
            elif self._waiting:
                connection.ask(self._waiting.popleft())
            else:
                self._idle.append(connection)
            return

    async def _at_random(self, began: float, rate: float) -> None:
        generator = np.random.default_rng(0)
        due = began + np.cumsum(generator.exponential(1.0 / rate, int(rate * self._seconds)))
        for moment in due.tolist():
            ahead = moment - time.perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
            if self._idle:
                self._idle.popleft().ask(moment)
            else:
                self._waiting.append(moment)
        end = time.perf_counter() + 10.0
        while len(self._taken_s) < len(due) and time.perf_counter() < end:
            await asyncio.sleep(0.01)


def _request(host: str, body: bytes) -> bytes:
    head = (
        f"POST /v1/retrieve HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


def main() -> None:
    """One order a line until there are no more."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asyncio.run(Load(json.loads(line)).run())) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

"""A listener of its own: requests in, a port that several share, and an end that drops nobody."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from raycl.errors import ConfigError
from raycl.serving import listener
from raycl.serving.listener import Listener


def application(name: str, go: asyncio.Event | None = None) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if go is not None:
            await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": name.encode()})

    return app


async def get(port: int) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://127.0.0.1:{port}/")).text


def test_listeners_share_a_port_and_one_that_ends_leaves_it_to_the_others() -> None:
    async def both() -> None:
        first = Listener(application("a"), "127.0.0.1", 0, 5.0)
        second = Listener(application("b"), "127.0.0.1", first.port, 5.0)
        first.start()
        second.start()
        seen: set[str] = set()
        while seen != {"a", "b"}:
            seen.add(await get(first.port))
        await first.stop(1.0)
        assert {await get(first.port) for _ in range(20)} == {"b"}
        await second.stop(1.0)
        with pytest.raises(httpx.ConnectError):
            await get(first.port)

    asyncio.run(asyncio.wait_for(both(), 30.0))


def test_what_is_under_way_is_counted_and_answered_before_the_end() -> None:
    async def drain() -> None:
        go = asyncio.Event()
        running = Listener(application("a", go), "127.0.0.1", 0, 5.0)
        running.start()
        asked = asyncio.create_task(get(running.port))
        while not running.in_flight:
            await asyncio.sleep(0.01)
        ended = asyncio.create_task(running.stop(10.0))
        await asyncio.sleep(0.05)
        assert not ended.done()
        go.set()
        assert await asked == "a"
        await ended
        assert running.in_flight == 0

    asyncio.run(asyncio.wait_for(drain(), 30.0))


def test_a_connection_that_is_kept_hears_of_the_end_and_loses_no_request() -> None:
    async def ask_on() -> None:
        running = Listener(application("a"), "127.0.0.1", 0, 5.0)
        running.start()
        async with httpx.AsyncClient(trust_env=False) as client:
            before = await client.get(f"http://127.0.0.1:{running.port}/")
            ended = asyncio.create_task(running.stop(10.0))
            await asyncio.sleep(0.3)
            last = await client.get(f"http://127.0.0.1:{running.port}/")
            assert [answer.headers.get("connection") for answer in (before, last)] == [None, "close"]
            assert last.text == "a"
            await ended
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{running.port}/")

    asyncio.run(asyncio.wait_for(ask_on(), 30.0))


def test_a_connection_on_which_nobody_asks_is_closed() -> None:
    async def keep() -> None:
        running = Listener(application("a"), "127.0.0.1", 0, 60.0)
        running.start()
        assert await get(running.port) == "a"
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        await running.stop(10.0)
        assert await reader.read() == b""
        writer.close()

    asyncio.run(asyncio.wait_for(keep(), 30.0))


def test_a_port_of_somebody_else_is_a_bad_config() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        with pytest.raises(ConfigError, match=rf"serving\.port={port} on 127\.0\.0\.1 cannot be listened at \(.*\)"):
            Listener(application("a"), "127.0.0.1", port, 5.0)
        assert listener.wait_for("127.0.0.1", port, 1.0)
    assert not listener.wait_for("127.0.0.1", port, 0.1)


def test_replicas_that_listen_share_one_port_and_none_with_the_proxies() -> None:
    listener.require_apart(8_001, 8_000)
    listener.require_apart(8_000, None)
    with pytest.raises(
        ConfigError, match=r"serving\.port=8000 with serving\.listen=replicas is where .* set serving\.port"
    ):
        listener.require_apart(8_000, 8_000)
    with pytest.raises(ConfigError, match=r"serving\.port=0 with serving\.listen=replicas: each .* name the one"):
        listener.require_apart(0, None)

"""HTTP straight into this process, at a port that other processes of the machine share."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

import uvicorn
from starlette.types import ASGIApp

from raycl.errors import ConfigError

_BACKLOG = 2_048
_LOOK_S = 0.02
_LEAVES_WITHIN_S = 1.0
"""From the end of a listener to that of connections on which nobody asks any more."""
_LAST = (b"connection", b"close")
"""The header of a connection's last answer."""


class Listener:
    """Answers connections that the kernel hands to it, each to one of the listeners of the port; one loop calls it."""

    def __init__(self, app: ASGIApp, host: str, port: int, keep_alive_s: float) -> None:
        """Takes the port at once; ConfigError where it cannot. Connections are answered from ``start`` on."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                f"serving.port={port} on {host} cannot be listened at ({error.strerror}): choose another"
            ) from error
        self.port = int(self._socket.getsockname()[1])
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                lifespan="off",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=round(keep_alive_s),
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return len(self._server.server_state.tasks)

    def start(self) -> None:
        """Answer from now on, on the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self, within_s: float) -> None:
        """Take no more connections, answer what is under way for so long at the most, and close the rest.

        A connection between two requests is not closed at once, since the next one may be on its way: for a second its
        next answer says that it is the last, and what is asked till then has the whole time.
        """
        state, settings = self._server.server_state, self._server.config
        if self._task is not None:
            for accepting in self._server.servers if self._server.started else ():
                accepting.close()
            settings.encoded_headers = [*settings.encoded_headers, _LAST]  # of the seconds to come
            state.default_headers.append(_LAST)
            ends_at = time.monotonic() + min(_LEAVES_WITHIN_S, within_s)
            while state.connections and time.monotonic() < ends_at:
                await asyncio.sleep(_LOOK_S)
            settings.timeout_graceful_shutdown = max(1, round(within_s))
            self._server.should_exit = True
            await self._task
        self._socket.close()


def require_apart(port: int, proxies: int | None) -> None:
    """ConfigError where replicas would listen at the port of Serve's proxies, None without any, or each at its own."""
    if port == 0:
        raise ConfigError(
            "serving.port=0 with serving.listen=replicas: each replica would take another port; name the one that they"
            " share"
        )
    if port == proxies:
        raise ConfigError(
            f"serving.port={port} with serving.listen=replicas is where Serve's own proxies listen, which would take a"
            f" part of the connections: set serving.port to another, start Serve with proxy_location: Disabled, or set"
            f" serving.listen=proxy"
        )


def wait_for(host: str, port: int, within_s: float) -> bool:
    """Whether something listens there before the time is up."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
        except OSError:
            time.sleep(_LOOK_S)
        else:
            return True
    return False

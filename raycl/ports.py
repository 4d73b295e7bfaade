"""Ports that stay free until they are used."""

from __future__ import annotations

import contextlib
import random
import socket

_RANGE = range(20_000, 32_768)
"""Above the ports of Ray's workers (10002 to 19999), and below those that Linux gives to whoever names none (from
32768): one of those may be taken again at any time between its choice and its use."""


def free(count: int, host: str = "127.0.0.1") -> list[int]:
    """Distinct ports of ``host`` that nobody listens at, at random; OSError where there are not as many."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.SystemRandom().sample(_RANGE, len(_RANGE)):
            if len(found) == count:
                break
            probe = held.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                found.append(port)
    if len(found) < count:
        raise OSError(f"of the ports {_RANGE.start} to {_RANGE.stop - 1} of {host} not even {count} are free")
    return found

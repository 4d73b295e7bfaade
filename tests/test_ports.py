"""Ports that nobody is given by chance."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from raycl import ports


def test_ports_are_distinct_free_and_none_that_the_system_gives_away() -> None:
    found = ports.free(20)
    assert len(set(found)) == 20
    for port in found:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if given.exists():
        first = int(given.read_text().split()[0])
        assert first < 20_000 or max(found) < first  # where it is as Linux sets it


def test_a_port_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = ports.free(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        monkeypatch.setattr(ports, "_RANGE", range(port, port + 1))
        with pytest.raises(OSError, match=f"of the ports {port} to {port} of 127.0.0.1 not even 1 are free"):
            ports.free(1)
    assert ports.free(1) == [port]

"""What a caller learns of a service that does not answer, and of a user in the pairs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pyarrow.parquet as pq
import pytest

from raycl import journey, lineage
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.errors import InputError, RayclError
from raycl.serving import client
from raycl.serving.api import Query
from tests import tiny as builders


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Failing(BaseHTTPRequestHandler):
    """A service that is broken inside."""

    def do_POST(self) -> None:
        self.send_response(500)
        self.end_headers()
        self.wfile.write(b"broken inside")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def failing_url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Failing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def pairs(tiny: Config) -> Pairs:
    return Pairs.of(lineage.pairs(tiny, journey.workspace(tiny)))


def test_a_service_that_is_not_there_is_named_with_the_command_that_starts_it(free_port: int) -> None:
    with pytest.raises(RayclError, match=rf"http://127\.0\.0\.1:{free_port} does not answer .*'raycl serve CONFIG'"):
        client.ask(f"http://127.0.0.1:{free_port}", Query())


def test_a_service_that_fails_is_quoted(failing_url: str) -> None:
    with pytest.raises(RayclError, match="answered 500: broken inside") as told:
        client.ask(failing_url, Query())
    assert told.value.exit_code == 1


def test_the_history_of_a_user_is_the_log_in_time_order(tiny: Config, pairs: Pairs) -> None:
    log = pq.read_table(tiny.logs[0].uri).sort_by("timestamp").to_pylist()
    for user in range(builders.FIRST_USER, builders.FIRST_USER + builders.NUM_USERS):
        expected = [row["item_id"] for row in log if row["user_id"] == user]
        assert client.history_of(pairs, str(user)) == expected


def test_a_user_without_events_is_told_to_ask_with_a_history(pairs: Pairs) -> None:
    with pytest.raises(InputError, match=r"--user 4000 has no events in pairs .*: ask with --history instead"):
        client.history_of(pairs, "4000")


@pytest.mark.parametrize("user", ["ann", "1.5", "", "9" * 30])
def test_an_id_of_another_type_is_told_the_type(pairs: Pairs, user: str) -> None:
    with pytest.raises(InputError, match=rf"--user {user}: the log's user ids are of type int64"):
        client.history_of(pairs, user)

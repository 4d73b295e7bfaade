"""What a caller learns of a service that does not answer, and of a user in the pairs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raycl import journey, lineage, ports
from raycl.config import Config
from raycl.data import reader, states
from raycl.data.handoff import Pairs
from raycl.errors import InputError, RayclError
from raycl.evaluation.tasks import item_features, user_vectors
from raycl.index import release
from raycl.model import embed, weights
from raycl.serving import client
from raycl.serving.api import Query
from raycl.serving.retriever import Retriever
from raycl.storage import tables
from tests import tiny as builders

NOW = 1_800_000_000.0


@pytest.fixture
def free_port() -> int:
    return ports.free(1)[0]


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


def test_a_known_user_is_asked_for_with_history_and_features(pairs: Pairs) -> None:
    user = builders.FIRST_USER + 4
    query = client.query_of(pairs, str(user), 7)
    assert query == Query(history=client.history_of(pairs, str(user)), user={"country": "lk", "age": 24.0}, k=7)
    assert client.query_of(pairs, str(builders.FIRST_USER + builders.NUM_USERS - 1)).user == {}


def test_a_query_without_a_number_leaves_it_to_the_service(pairs: Pairs) -> None:
    assert "k" not in client.query_of(pairs, "1").model_dump(exclude_unset=True)
    assert client.query_of(pairs, "1", 10).model_dump(exclude_unset=True)["k"] == 10


def test_the_answer_for_a_known_user_is_the_ranking_by_the_evaluations_vector(tiny: Config) -> None:
    """Of every user, also of those who are not in the user table; with the history before the held-out event."""
    require_answers_by_the_evaluations_vector(tiny)


@pytest.mark.parametrize("pooling", ["recency", "transformer"])
def test_so_it_is_with_features_of_every_kind_and_histories_that_share_the_items(
    pooling: str, ray_local: None, tmp_path: Path
) -> None:
    config = builders.every_kind(tmp_path, share_items=True, pooling=pooling)
    builders.run_stages(config)
    require_answers_by_the_evaluations_vector(config)


def require_answers_by_the_evaluations_vector(config: Config) -> None:
    workspace = journey.workspace(config)
    pairs = Pairs.of(lineage.pairs(config, workspace))
    towers = lineage.towers(config, workspace).store
    served = Retriever.of(release.load(lineage.release(config, workspace).store))
    items = embed.items(weights.load_item(towers), item_features(pairs))
    names = np.array(pairs.vocabulary()["item"].to_pylist())
    num_checked = 0
    for path, _ in pairs.files("test"):
        users = tables.read(pairs.store, path, ["user"])["user"].to_pylist()
        sequences = reader.read(pairs.store, [path], "test")
        vectors, asked = (
            user_vectors(pairs, towers, sequences, "test"),
            states.before_targets(sequences, pairs.rules, "test"),
        )
        assert asked.age_s is not None
        for user, vector, state, age_s in zip(users, vectors, asked.history, asked.age_s, strict=True):
            before = names[state[state >= 0][::-1]].tolist()
            times = [NOW - float(age) for age in age_s[state >= 0][::-1]]
            said = {"history": before, "times": times, "time": NOW, "k": 20}
            query = client.query_of(pairs, str(user)).model_copy(update=said)
            (answer,) = served.retrieve([query])
            scores = items @ vector
            scores[np.isin(names, before)] = -np.inf
            order = np.argsort(-scores)[:20]
            assert [item.item_id for item in answer.items] == names[order].tolist()
            assert [item.score for item in answer.items] == pytest.approx(scores[order].tolist(), abs=1e-5)
            if num_checked < 5:
                require_reasons(served, query)
            num_checked += 1
    assert num_checked == builders.NUM_USERS


def require_reasons(served: Retriever, query: Query) -> None:
    """Of a history that every subset is looked at, and of the same with all its events twice, which is drawn from."""
    for times in (1, 2):
        history = query.history * times
        asked = query.model_copy(update={"history": history, "times": query.times * times, "explain": True, "k": 3})
        nothing = {"history": [], "times": [], "exclude": history, "k": 50}
        answer, empty = served.retrieve([asked, asked.model_copy(update=nothing)])
        base = {item.item_id: item.score for item in empty.items}
        for item in answer.items:
            assert item.reasons is not None
            values = [event.value for event in item.reasons.events]
            assert item.reasons.empty_history + sum(values) == pytest.approx(item.score, abs=1e-5)
            if empty.basis == "features":
                assert item.reasons.empty_history == pytest.approx(base[item.item_id], abs=1e-5)


def test_a_user_without_events_is_told_to_ask_with_a_history(pairs: Pairs) -> None:
    with pytest.raises(InputError, match=r"--user 4000 has no events in pairs .*: ask with --history instead"):
        client.history_of(pairs, "4000")


@pytest.mark.parametrize("user", ["ann", "1.5", "", "9" * 30])
def test_an_id_of_another_type_is_told_the_type(pairs: Pairs, user: str) -> None:
    with pytest.raises(InputError, match=rf"--user {user}: the log's user ids are of type int64"):
        client.history_of(pairs, user)

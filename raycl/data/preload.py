"""What Ray's workers load before they are asked to (``RAY_preload_python_modules``): the modules of the passes.

Ray sets ``OMP_NUM_THREADS`` when a task begins, and NumPy's BLAS reads it when it is loaded, which is now: unset, each
worker of a node would have as many BLAS threads as the node has cores, all of them spinning.
"""

from __future__ import annotations

import os

_THREADS = "OMP_NUM_THREADS"

if unset := _THREADS not in os.environ:
    os.environ[_THREADS] = "1"
try:
    from raycl.data import clean_tasks, pair_tasks
finally:
    if unset:
        del os.environ[_THREADS]

__all__ = ["clean_tasks", "pair_tasks"]

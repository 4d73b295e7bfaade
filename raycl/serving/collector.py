"""Python's garbage collector in a process whose callers wait."""

from __future__ import annotations

import gc


def spare_modules() -> None:
    """Leave what is loaded by now out of all later collections; called before anything that is to go again is loaded.

    The modules of Ray, torch and raycl are 300,000 objects that stay. Each full collection would go through them, and
    every request under way would wait for that, over a tenth of a second.
    """
    gc.collect()
    gc.freeze()

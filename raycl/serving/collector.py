"""Python's garbage collector in a process whose callers wait."""

from __future__ import annotations

import gc

_MOST_NEW = 50_000
"""Objects more than before at which the young ones are gone through. Those of a batch are more than Python's 700, and
are gone without any collection."""


def spare_modules() -> None:
    """Leave what is loaded by now out of all later collections, which come seldom.

    The modules of Ray, torch and raycl are 300,000 objects that stay. Each full collection would go through them, and
    every request under way would wait for that, over a tenth of a second. So it is called before anything is loaded
    that is to go again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_MOST_NEW)

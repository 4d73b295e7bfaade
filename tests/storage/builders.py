"""Shared by the tests of storage: threads that start at once, and a small finished version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from raycl.storage.store import Store
from raycl.storage.versions import Draft, Version, Workspace, fingerprint

T = TypeVar("T")

DIGEST = fingerprint("the input and the config")
FILES = {"data/part-0.bin": b"zero", "data/part-1.bin": b"one", "facts.json": b"{}"}


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What each call returns when each has a thread of its own and all start at once."""
    start = Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def fill(draft: Draft) -> None:
    """Write ``FILES``."""
    for path, content in FILES.items():
        draft.store.write(path, content)


def commit(draft: Draft) -> Version:
    """Commit with a little of everything in the manifest."""
    return draft.commit(
        inputs={"pairs": "some-pairs"},
        config={"model": {"dim": 4}},
        counts={"rows": 2},
        dropped={"no_user": 1},
        facts={"recall": 0.5},
        columns={"data": {"user": "int64"}},
    )


def finished(store: Store, stage: str = "pairs", digest: str = DIGEST) -> Version:
    """A finished version with ``FILES`` in it."""
    draft = Workspace(store).draft(stage, digest, fresh=True)
    fill(draft)
    return commit(draft)

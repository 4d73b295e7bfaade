"""Shared by the tests of storage: threads that start at once, and a small finished version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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


class Killed(BaseException):
    """Stands for the end of a process: nothing handles it."""


@dataclass(frozen=True)
class DyingStore(Store):
    """A store of a process that is killed after so many changes; folders go file by file."""

    left: list[None]
    """One entry a change that is still made."""

    def write(self, path: str, content: bytes) -> None:
        self._live()
        super().write(path, content)

    def create(self, path: str, content: bytes) -> bool:
        self._live()
        return super().create(path, content)

    def delete(self, path: str) -> None:
        self._live()
        super().delete(path)

    def delete_folder(self, path: str) -> None:
        for file in self.files(path):
            self.delete(file)
        super().delete_folder(path)

    def _live(self) -> None:
        if not self.left:
            raise Killed
        self.left.pop()


def run_stage(workspace: Workspace, num_changes: int = 10**6) -> Version:
    """A stage of two tasks, whose output is added up from what the tasks leave; killed after so many changes."""
    if done := workspace.find("pairs", DIGEST):
        return done
    draft = workspace.draft("pairs", DIGEST)
    draft.store = DyingStore(draft.store.uri, [None] * num_changes)
    for number in range(2):
        if draft.task_done(f"task-{number}") is None:
            draft.store.write(f"work/counts/{number}", b"%d" % (number + 1))
            draft.store.write(f"data/part-{number}.bin", b"data")
            draft.finish_task(f"task-{number}", {"rows": number})
    total = sum(int(draft.store.read(f"work/counts/{number}")) for number in range(2))
    draft.store.write("total", b"%d" % total)
    return commit(draft)


def finished(store: Store, stage: str = "pairs", digest: str = DIGEST) -> Version:
    """A finished version with ``FILES`` in it."""
    draft = Workspace(store).draft(stage, digest, fresh=True)
    fill(draft)
    return commit(draft)

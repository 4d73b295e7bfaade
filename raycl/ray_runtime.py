"""Where Ray comes from: the cluster that a job runs in, or an embedded one of this machine."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
import ray.data

from raycl import errors
from raycl.config import RayConfig
from raycl.errors import RayclError

log = logging.getLogger(__name__)

Task = Callable[[int], Mapping[str, Any]]
"""What is done of one number, and the record of it."""

_SAY_EVERY_S = 5.0
_THREADS_END_WITHIN_S = 20.0
_LISTENERS = 4
_WATCHERS = (
    "ray::DashboardAgent",
    "/ray/dashboard/dashboard.py",
    "/ray/_private/log_monitor.py",
    "/ray/autoscaler/_private/monitor.py",
)
_WATCHERS_NICE = 10


def connect(config: RayConfig) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names (``ray job submit`` sets it), else start an embedded one.

    Does nothing when this process is connected already. An embedded one has the settings of ``environment.prepare``,
    if that ran before Ray was imported.
    """
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=True, logging_level=logging.WARNING)
        return
    ray.init(
        address="local",
        num_cpus=config.num_cpus,
        object_store_memory=config.object_store_bytes,
        include_dashboard=False,
        logging_level=logging.WARNING,
        log_to_driver=True,
    )
    _put_watchers_behind()


def kill() -> None:
    """End the processes of an embedded Ray without asking them; a joined cluster goes on.

    ``ray.shutdown`` asks the head first, and waits a minute where that is gone.
    """
    if joined_cluster():
        return
    for pid in _descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def num_gpus() -> int:
    """GPUs in the connected cluster."""
    return int(_resources().get("GPU", 0))


def num_cpus() -> float:
    """CPUs in the connected cluster."""
    return float(_resources().get("CPU", 1))


def joined_cluster() -> bool:
    """Whether this process joined a cluster instead of starting an embedded Ray."""
    return bool(os.environ.get("RAY_ADDRESS"))


def map_tasks(
    name: str,
    task: Task,
    num_tasks: int,
    finished: Callable[[int, Mapping[str, Any]], None] | None = None,
    *,
    num_gpus: float = 0.0,
) -> list[dict[str, Any]]:
    """Run ``task`` once for each number below ``num_tasks``, and return the records in that order.

    ``finished`` hears of each number and record in threads of this process, while other tasks run. A task holds
    ``num_gpus``, which may be a part of one.

    Records cross as JSON, since Arrow would give every row the keys of all. On a terminal Ray Data draws its bars;
    elsewhere a line now and then says how far it is. A RayclError of a task is raised here as it was there.
    """

    def one(row: dict[str, Any]) -> dict[str, Any]:
        return _recorded(task, row)

    one.__name__ = name
    return _gathered(name, _rows(_numbers(num_tasks).map(one, num_gpus=num_gpus or None)), num_tasks, finished)


def map_actors(name: str, ready: Callable[[], Task], num_tasks: int, *, num_gpus: float = 0.0) -> list[dict[str, Any]]:
    """``map_tasks`` with a task that is costly to make ready: each of a pool of actors does so once.

    There are as many actors as the cluster has CPUs for, or with ``num_gpus`` GPUs, and no more than tasks.
    """

    class Actor:
        def __init__(self) -> None:
            self._task = ready()

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            return _recorded(self._task, row)

    Actor.__name__ = name
    room = _resources().get("GPU", 0) / num_gpus if num_gpus else num_cpus()
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(num_tasks, int(room))))
    made: Any = Actor  # Ray Data makes it where it is needed, and its types know functions alone
    rows = _rows(_numbers(num_tasks).map(made, compute=pool, num_gpus=num_gpus or None))
    return _gathered(name, rows, num_tasks, None)


def _numbers(num_tasks: int) -> ray.data.Dataset:
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_rich_progress_bars, context.use_ray_tqdm = True, False
    # Records are small, so there is no store to reserve parts of; with it one CPU works alone for the first second, and
    # each waits a fifth of a second between two tasks.
    context.op_resource_reservation_enabled = False
    return ray.data.range(num_tasks, override_num_blocks=num_tasks)


def _rows(dataset: ray.data.Dataset) -> Generator[dict[str, Any], None, None]:
    """The dataset's rows, each as soon as its task has ended; to close it interrupts the tasks that are under way.

    ``iter_rows`` holds each block back until the next has come, so a refusal would wait for another task's end; and
    what ends early leaves it with a prefetching thread that sleeps for ever, since Ray Data stops that one after the
    last row alone. The bundles have no name here: they end the work when the last hold on them goes.
    """
    for bundle in dataset.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            yield from ray.get(entry.ref).to_pylist()


def _recorded(task: Task, row: Mapping[str, Any]) -> dict[str, Any]:
    record, refused = _caught(lambda: task(int(row["id"])))
    return {"task": row["id"], "record": json.dumps(record), "refused": refused}


def _gathered(
    name: str,
    rows: Generator[dict[str, Any], None, None],
    num_tasks: int,
    finished: Callable[[int, Mapping[str, Any]], None] | None,
) -> list[dict[str, Any]]:
    """The records of all tasks; ``rows`` are the only hold on their dataset, since its end ends what still works."""
    records: dict[int, dict[str, Any]] = {}
    said = time.monotonic()
    heard: list[Future[None]] = []
    # A refusal stops the tasks that are under way.
    with _threads_ended(), ThreadPoolExecutor(_LISTENERS) as pool, contextlib.closing(rows):
        for row in rows:
            number = int(row["task"])
            records[number] = _told(json.loads(row["record"]), row["refused"])
            if finished is not None:
                heard.append(pool.submit(finished, number, records[number]))
            for told in [told for told in heard if told.done()]:
                heard.remove(told)
                told.result()
            if time.monotonic() - said > _SAY_EVERY_S:
                said = time.monotonic()
                log.info("%s: %d of %d tasks done", name, len(records), num_tasks)
        for told in heard:
            told.result()
    return [records[number] for number in range(num_tasks)]


def call(name: str, task: Callable[[], dict[str, Any]], *, num_gpus: int = 0) -> dict[str, Any]:
    """Run ``task`` in a worker of the cluster, with this many GPUs for itself, and return its record.

    A RayclError of the task is raised here as it was there.
    """
    remote = ray.remote(_caught).options(name=name, num_gpus=num_gpus)
    record, refused = ray.get(remote.remote(task))
    return _told(record, refused)


@contextlib.contextmanager
def _threads_ended() -> Iterator[None]:
    """Wait for the threads that started meanwhile: one that asks Ray for something after its end ends the process."""
    before = set(threading.enumerate())
    try:
        yield
    finally:
        for thread in set(threading.enumerate()) - before:
            log.debug("waiting for %s", thread.name)
            thread.join(_THREADS_END_WITHIN_S)


def _caught(task: Callable[[], Mapping[str, Any]]) -> tuple[Mapping[str, Any], str]:
    """The task's record, or the message and the type of its RayclError: Ray would hand over an error of its own."""
    try:
        return task(), ""
    except RayclError as error:
        return {"message": str(error)}, type(error).__name__


def _told(record: Mapping[str, Any], refused: str) -> dict[str, Any]:
    if refused:
        raise getattr(errors, refused, RayclError)(record["message"])
    return dict(record)


def _put_watchers_behind() -> None:
    """Have the processes that only watch an embedded Ray give way to those that work.

    Its agent counts for 10 to 20 ms every few seconds, which is what the slowest answers of a busy core waited for.
    """
    for pid in _descendants(os.getpid()):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
            if any(name in command for name in _WATCHERS):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), _WATCHERS_NICE)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            for child in map(int, listed.read_text(encoding="utf-8").split()):
                found += [child, *_descendants(child)]
    return found


def _resources() -> dict[str, float]:
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found

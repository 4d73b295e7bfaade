"""The processes of one training run on Ray Train: how many there are, when they start again, and how they end."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from types import FrameType
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raycl import ray_runtime
from raycl.config import TrainConfig
from raycl.errors import RayclError, StoreUnavailable
from raycl.storage.store import Store
from raycl.training import stop
from raycl.training.loop import Report
from raycl.training.stop import Stopped

log = logging.getLogger(__name__)

Work = Callable[[Report, threading.Event], None]
"""One process's whole training; the event tells it to end early, by Stopped."""

_STOPPED = "stopped"
"""What a worker returns that ended early."""
_SAVED, _CRASHED = "saved", "crashed"
"""What workers and their controller say besides how far they are."""
_LOOKS_EVERY_S = 0.2
_TOLD = 160
"""Characters of what a worker crashed of; the rest is in its log."""
_HEARS_EVERY_S = 1.0
_ASKS_EVERY_S = 5.0
_LISTENS_WITHIN_S = 5.0
_STOPS_WITHIN_S = 25.0
"""From a signal to the end of the driver: Kubernetes gives a pod 30 s."""
_SAVES_WITHIN_S = 20.0
"""From the end of a group of workers that is resized, or lost one of them, to that of its processes."""

_refused = threading.Event()
"""Of this process, where it controls the workers: whether one of them raised what another try would raise again."""
_asked, _ended = threading.Event(), threading.Event()
"""Of this process, where it is a worker: whether its training is to end early, and whether it has ended."""


def run(work: Work, train: TrainConfig, store: Store, report: Report, *, use_gpu: bool) -> None:
    """Let ``work`` be done by as many workers as ``train`` and the cluster allow; ``report`` hears of what they report.

    After a crash all start again from the newest checkpoint, ``train.max_failures`` times; when a node goes away that
    said so beforehand, or when a range of workers grows, they save first, and no count is kept. RayclError of a worker
    ends it at once. A signal to this process ends it by Stopped, with a checkpoint of the last step.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # On this node, since a queue on another one would go away with that, or keep it from being drained.
    events, wishes = (Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here}) for _ in range(2))
    asked, saved = threading.Event(), threading.Event()
    with (
        _relay(events, report, asked, saved, train.max_failures),
        contextlib.closing(_Wish(asked, wishes)),
        stop.on_signals(asked),
    ):
        while _trained(_trainer(work, train, store, events, wishes, use_gpu=use_gpu), asked, saved) == _STOPPED:
            log.warning("a training worker was told to end, and saved first: starting again from there")


def _trained(trainer: ray.train.torch.TorchTrainer, asked: threading.Event, saved: threading.Event) -> Any:
    """What rank 0 returned; Stopped once this process was asked to end, and the workers have saved."""
    # In the main thread Ray would take Ctrl-C for itself, and end the workers at once and this process with 0.
    found: Future[Any] = Future()
    threading.Thread(target=_fit, args=(trainer, found), name="raycl-fit", daemon=True).start()
    while not found.done() and not asked.is_set():
        asked.wait(_LOOKS_EVERY_S)
    if asked.is_set():
        ends_at = time.monotonic() + _STOPS_WITHIN_S
        while not (found.done() or saved.wait(_LOOKS_EVERY_S)) and time.monotonic() < ends_at:
            pass
        ended = found.done() and found.exception() is None
        if ended and found.result().return_value != _STOPPED:
            return None  # it was at its last step anyway
        if not ended and not saved.is_set():
            log.warning("the workers have not saved within %g s: the last checkpoint counts", _STOPS_WITHIN_S)
        raise Stopped
    return found.result().return_value


class _Wish:
    """Passes on to the workers that this process was asked to end, and to those that start after them."""

    def __init__(self, asked: threading.Event, wishes: Queue) -> None:
        self._asked, self._wishes, self._closed = asked, wishes, threading.Event()
        wishes.empty()  # so that they are known here when a signal has ended the head of an embedded Ray too
        threading.Thread(target=self._pass_on, name="raycl-wish", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._asked.set()
        self._wishes.shutdown()

    def _pass_on(self) -> None:
        self._asked.wait()
        with contextlib.suppress(Exception):  # where the cluster goes down too, nobody hears it
            while not self._closed.wait(_LOOKS_EVERY_S):
                if self._wishes.empty():
                    self._wishes.put(None)


def _fit(trainer: ray.train.torch.TorchTrainer, found: Future[Any]) -> None:
    try:
        found.set_result(trainer.fit())
    except BaseException as error:
        found.set_exception(_plain(error))


def _plain(error: BaseException) -> BaseException:
    """What a person can act on, of what Ray Train raises."""
    if isinstance(error, ray.train.ControllerError) and isinstance(error.controller_failure, RayclError):
        return error.controller_failure
    if isinstance(error, ray.train.WorkerGroupError):
        known = [found for found in error.worker_failures.values() if isinstance(found, RayclError)]
        return known[0] if known else _gave_up(error)
    return error


def _gave_up(error: ray.train.WorkerGroupError) -> RayclError:
    plain = RayclError(
        f"training workers crashed more often than train.max_failures allows; the last time"
        f" {_told(error.worker_failures)}. The last checkpoint is intact: run the same command again to go on"
    )
    plain.__cause__ = error
    return plain


def _told(failures: Mapping[int, BaseException]) -> str:
    """Who crashed of what, in one line."""
    lines = {rank: str(error).strip().partition("\n")[0][:_TOLD] for rank, error in sorted(failures.items())}
    return "; ".join(f"rank {rank}: {line or type(failures[rank]).__name__}" for rank, line in lines.items())


def _trainer(
    work: Work, train: TrainConfig, store: Store, events: Queue, wishes: Queue, *, use_gpu: bool
) -> ray.train.torch.TorchTrainer:
    fewest, most = train.num_workers.min, train.num_workers.max

    def worker() -> str | None:
        return _one(work, events, wishes)

    return _Trainer(
        worker,  # type: ignore[arg-type]
        scaling_config=ray.train.ScalingConfig(
            num_workers=most if fewest == most else (fewest, most),  # type: ignore[arg-type]
            use_gpu=use_gpu,
            resources_per_worker=None if use_gpu else {"CPU": _cpus(train)},
        ),
        torch_config=_Torch(backend="nccl" if use_gpu else "gloo"),
        run_config=ray.train.RunConfig(
            name=f"train-{time.time_ns()}",
            storage_path=store.full(""),
            storage_filesystem=store.filesystem,
            failure_config=ray.train.FailureConfig(max_failures=train.max_failures),
            callbacks=[_Crashes(events)],  # type: ignore[list-item]
        ),
    )


class _Trainer(ray.train.torch.TorchTrainer):
    def _create_default_callbacks(self) -> list[Any]:
        """Without what frees the workers' resources after a controller that died, where they end with this process.

        It asks Ray's dashboard, which an embedded Ray does not have, and warns of that every second.
        """
        found: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        if ray_runtime.joined_cluster():
            return found
        return [callback for callback in found if not isinstance(callback, PlacementGroupCleanerCallback)]


def _cpus(train: TrainConfig) -> float:
    """CPUs that a worker takes: its threads, or fewer where the fewest workers would not find room."""
    cpus, fewest = ray_runtime.num_cpus(), train.num_workers.min
    wanted = float(train.threads_per_worker)
    if wanted * fewest <= cpus:
        return wanted
    log.warning(
        "train.num_workers=%d with train.threads_per_worker=%d want %d CPUs and the cluster has %g: the workers share"
        " them and wait for each other; fewer are faster here",
        fewest,
        train.threads_per_worker,
        fewest * train.threads_per_worker,
        cpus,
    )
    return max(cpus // fewest, 0.5)


def _one(work: Work, events: Queue, wishes: Queue) -> str | None:
    """The training of one worker."""
    first = ray.train.get_context().get_world_rank() == 0
    if first:
        threading.Thread(target=_listen, args=(wishes,), name="raycl-wishes", daemon=True).start()
    threading.Thread(target=_watch_nodes, name="raycl-nodes", daemon=True).start()
    try:
        work(events.put, _asked)
    except Stopped:
        if first:
            events.put({_SAVED: True})
        return _STOPPED
    finally:
        _ended.set()
    return None


def _listen(wishes: Queue) -> None:
    with contextlib.suppress(Exception):  # the queue ends with the driver
        wishes.get()
        _asked.set()


def _watch_nodes() -> None:
    """Ask for the end once a node with one of the workers says that it will go away.

    Every worker asks equally often, by which Ray Train gives all the same answer.
    """
    with contextlib.suppress(Exception):  # the cluster ends
        while not _ended.wait(_ASKS_EVERY_S):
            if ray.train.get_preemption_info() is not None:
                _asked.set()
                return


class _Backend(ray.train.torch.TorchConfig().backend_cls):  # type: ignore[misc]
    """What Ray Train does for torch, with workers that save before they are ended."""

    def on_training_start(self, worker_group: Any, backend_config: ray.train.torch.TorchConfig) -> None:
        super().on_training_start(worker_group, backend_config)
        worker_group.execute(_save_on_sigterm)

    def on_shutdown(self, worker_group: Any, backend_config: ray.train.torch.TorchConfig) -> None:
        if _refused.is_set():
            return  # a worker that waits for one that refused has nothing to save
        ends = worker_group.execute_async(_end_training)
        ray.wait(ends, num_returns=len(ends), timeout=_SAVES_WITHIN_S)
        super().on_shutdown(worker_group, backend_config)


class _Torch(ray.train.torch.TorchConfig):
    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend


def _save_on_sigterm() -> None:
    """In a worker's main thread, while another one trains: the first SIGTERM lets it save, the next one ends it."""

    def ask(number: int, _: FrameType | None) -> None:
        if _asked.is_set() or _ended.is_set():
            sys.exit(number)
        _asked.set()

    signal.signal(signal.SIGTERM, ask)


def _end_training() -> None:
    """Wait until this worker's training has ended, and saved."""
    _asked.set()
    _ended.wait(_SAVES_WITHIN_S)


class _Crashes(ray.train.UserCallback):
    """Tells the driver of crashes, and ends training for errors that another try would end in again."""

    def __init__(self, events: Queue) -> None:
        self._events = events

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if isinstance(error, RayclError) and not isinstance(error, StoreUnavailable):
                _refused.set()
                raise error
        self._events.put({_CRASHED: _told(worker_exceptions)})


@contextlib.contextmanager
def _relay(
    events: Queue, report: Report, asked: threading.Event, saved: threading.Event, max_failures: int
) -> Iterator[None]:
    """Take what is put into ``events`` in a thread of this process: reports, crashes, and that all is saved.

    Workers also save when their group is resized: that counts for nothing before this process was ``asked`` to end.
    """
    ended = threading.Event()

    def listen() -> None:
        crashes = 0
        while True:
            try:
                event = events.get(timeout=_HEARS_EVERY_S)
            except Empty:
                if ended.is_set():
                    return
                continue
            if _SAVED in event:
                if asked.is_set():
                    saved.set()
            elif _CRASHED in event:
                crashes += 1
                again = f"restart {crashes} of {max_failures}, from the newest checkpoint"
                log.warning(
                    "training crashed (%s): %s", event[_CRASHED], again if crashes <= max_failures else "ending"
                )
            else:
                report(event)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LISTENS_WITHIN_S)
        events.shutdown()

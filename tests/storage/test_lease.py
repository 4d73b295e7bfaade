"""One run at a time makes a version: others are refused while it lives, and go on with its work when it does not."""

from __future__ import annotations

import copy
import functools
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from raycl.errors import InputError, RayclError
from raycl.storage import lease
from raycl.storage.lease import Lease, Owner
from raycl.storage.store import Store
from raycl.storage.versions import Draft, Workspace
from tests.storage.builders import DIGEST, FILES, commit, fill, together

_WITHIN_S = 60.0
OPENED = """
import sys
from raycl.storage.store import Store
from raycl.storage.versions import Workspace
draft = Workspace(Store(sys.argv[1])).draft("pairs", sys.argv[2])
print(draft.name, flush=True)
sys.stdin.read()
"""


@contextmanager
def another_run(store: Store) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that makes the version, and the name of its folder."""
    command = [sys.executable, "-c", OPENED, store.uri, DIGEST]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def opened(store: Store) -> Draft:
    return Workspace(store).draft("pairs", DIGEST)


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not reached():
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.002)


def record(draft: Draft, number: int = 1) -> Path:
    """The lease of a draft on this machine's disk."""
    return Path(draft.store.full(f"work/lease/{number:06d}.json"))


def written_by(draft: Draft, owner: Owner, age_s: float) -> None:
    """Make the newest lease that of another owner, whose last heartbeat is so old."""
    held = {"owner": asdict(owner), "beat_s": time.time() - age_s}
    draft.store.write(f"work/lease/{draft.lease.number:06d}.json", json.dumps(held).encode())


def hearts() -> int:
    return sum(thread.name == "raycl-lease" for thread in threading.enumerate())


def test_a_run_is_refused_while_another_process_makes_the_version_and_goes_on_once_that_is_killed(store: Store) -> None:
    with another_run(store) as (process, name):
        with pytest.raises(InputError) as told:
            opened(store)
        assert re.fullmatch(
            rf"{store.uri}/pairs/{name} is being made by process {process.pid} on host {socket.gethostname()} \(last"
            r" heartbeat 2\S+ \S+ UTC, \d+ s ago\): wait for it, or end it and run again \(at once on its host,"
            r" elsewhere 60 s after its last heartbeat\), or use --force for a version beside it",
            str(told.value),
        )
        assert Workspace(store).draft("pairs", DIGEST, fresh=True).name != name
        process.send_signal(signal.SIGKILL)
        process.wait()
        store.under(f"pairs/{name}").write("data/part-0.bin", b"zero")
        (beside,) = set(store.names("pairs")) - {name}
        store.delete_folder(f"pairs/{beside}")
        draft = opened(store)
        assert (draft.name, draft.store.read("data/part-0.bin")) == (name, b"zero")


def test_a_killed_process_that_nobody_has_waited_for_is_gone(tmp_path: Path) -> None:
    with another_run(Store(str(tmp_path))) as (process, name):
        process.send_signal(signal.SIGKILL)
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").split()[2] == "Z")
        assert opened(Store(str(tmp_path))).name == name


def test_a_thread_of_this_process_holds_its_version_until_it_ends(store: Store) -> None:
    is_open, ended = threading.Event(), threading.Event()
    made: list[Draft] = []

    def run() -> None:
        made.append(opened(store))
        is_open.set()
        ended.wait()

    thread = threading.Thread(target=run)
    thread.start()
    is_open.wait()
    with pytest.raises(InputError, match=rf"{made[0].name} is being made by process {os.getpid()} on host"):
        opened(store)
    ended.set()
    thread.join()
    assert opened(store).name == made[0].name


@pytest.mark.parametrize(("age_s", "refused"), [(-5.0, True), (0.0, True), (50.0, True), (70.0, False)])
def test_an_owner_elsewhere_counts_as_dead_after_a_minute_without_heartbeat(
    store: Store, age_s: float, refused: bool
) -> None:
    first = opened(store)
    written_by(first, Owner("elsewhere", "another boot", 1, 1, 1), age_s)
    if not refused:
        assert opened(store).name == first.name
        return
    with pytest.raises(InputError, match=rf"process 1 on host elsewhere \(last heartbeat .* {max(age_s, 0):.0f} s ago"):
        opened(store)


def test_owners_of_this_machine_are_told_apart_by_process_start_and_thread() -> None:
    here = Owner.here()
    assert here.is_gone()  # a thread that asks is not within its earlier work
    assert replace(here, started=here.started - 1).is_gone()
    assert replace(here, thread=2**22 + 1).is_gone()
    assert not replace(here, machine="another boot").is_gone()
    assert not replace(here, machine="").is_gone()
    parent = os.getppid()
    fields = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    runs = replace(here, pid=parent, started=int(fields[19]))
    assert not runs.is_gone()
    assert replace(runs, started=runs.started + 1).is_gone()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert replace(here, pid=ended.pid).is_gone()


def test_of_many_runs_that_go_on_at_once_exactly_one_does(store: Store) -> None:
    killed = opened(store)
    written_by(killed, Owner("elsewhere", "another boot", 1, 1, 1), 70.0)
    name = killed.name

    def attempt(_: int) -> Draft | str:
        try:
            return opened(Store(store.uri))
        except InputError as error:
            return str(error)

    found = together([functools.partial(attempt, number) for number in range(8)])
    (winner,) = [one for one in found if isinstance(one, Draft)]
    assert winner.name == name
    assert all(f"{name} is being made by process {os.getpid()}" in one for one in found if isinstance(one, str))
    winner.finish_task("task", {})


def test_a_run_that_was_taken_over_can_neither_finish_a_task_nor_commit(store: Store) -> None:
    first = opened(store)
    fill(first)
    written_by(first, Owner("elsewhere", "another boot", 1, 1, 1), 70.0)
    second = opened(store)
    for change in (lambda: first.finish_task("task", {}), lambda: commit(first)):
        with pytest.raises(RayclError, match=rf"{first.name} was taken over by another run, since this one gave no"):
            change()
    assert second.task_done("task") is None
    assert Workspace(store).finished("pairs") == []
    assert commit(second).store.files() == sorted([*FILES, "manifest.json"])


def test_a_version_that_was_committed_meanwhile_is_not_written_into(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(store)
    fill(first)
    take = lease.take

    def late(root: Store, folder: str) -> Lease:
        commit(first)
        return take(root, folder)

    monkeypatch.setattr(lease, "take", late)
    with pytest.raises(InputError, match=rf"{first.name} was finished by another run just now: run again to use it"):
        opened(store)
    assert first.store.files() == sorted([*FILES, "manifest.json"])


def test_a_lease_that_cannot_be_read_holds_nobody_out(store: Store) -> None:
    first = opened(store)
    for content in (b"{", b"[]", b'{"owner": {"host": "elsewhere"}, "beat_s": 1}'):
        first.store.write(f"work/lease/{first.lease.number:06d}.json", content)
        assert opened(store).name == first.name


def test_the_heart_beats_until_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    before = hearts()
    draft = opened(Store(str(tmp_path)))
    first = record(draft).read_bytes()
    until(lambda: record(draft).read_bytes() != first)
    fill(draft)
    version = commit(draft)
    until(lambda: hearts() <= before)  # fewer, where a draft of another test went meanwhile
    assert version.store.files() == sorted([*FILES, "manifest.json"])


def test_the_heart_stops_with_the_draft_and_stays_in_the_process_that_opened_it(tmp_path: Path) -> None:
    before = hearts()
    draft = opened(Store(str(tmp_path)))
    travelled = copy.deepcopy(draft)
    assert hearts() == before + 1
    travelled.finish_task("task", {"rows": 1})
    assert draft.task_done("task") == {"rows": 1}
    del draft
    gc.collect()
    until(lambda: hearts() == before)
    travelled.finish_task("task", {"rows": 2})


def test_a_heart_that_cannot_write_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    failures = [OSError("the network is away")] * 2
    write = Store.write

    def unreliable(store: Store, path: str, content: bytes) -> None:
        if failures:
            raise failures.pop()
        write(store, path, content)

    monkeypatch.setattr(Store, "write", unreliable)
    draft = opened(Store(str(tmp_path)))
    first = record(draft).read_bytes()
    until(lambda: record(draft).read_bytes() != first)
    assert [line.message.rpartition(": ")[2] for line in caplog.records[:2]] == ["the network is away"] * 2


def test_a_heart_stops_once_another_run_has_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    before = hearts()
    first = opened(Store(str(tmp_path)))
    second = opened(Store(str(tmp_path)))
    until(lambda: hearts() == before + 1)
    assert (first.lease.number, second.lease.number) == (1, 2)
    beat = record(second, 2).read_bytes()
    until(lambda: record(second, 2).read_bytes() != beat)

"""What TensorBoard itself reads of the event files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raycl.storage.store import Store
from raycl.tracking import events, lines, tensorboard
from raycl.tracking.events import Event, Sink
from tests.tracking.test_events import at, start


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """By curve, steps and values."""
    found: Any = EventAccumulator(str(folder / tensorboard.FOLDER))
    found.Reload()
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def expected(told: list[Event]) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for event in events.counted(told):
        for tag, value in events.scalars(event).items():
            curves.setdefault(tag, []).append((event["step"], value))
    return curves


def test_curves_go_on_from_file_to_file_and_a_resumed_run_in_the_same_ones(tmp_path: Path) -> None:
    found = {"kind": "validation", "step": 2, "time": 5.0, "epoch": 0, "k": 20, "recall": 0.25, "ndcg": 0.5, "users": 9}
    told: list[list[Event]] = [
        [start(0), at(1, 1.0), at(2, 2.0), found],
        [at(3, 3.0), at(4, 4.0)],
        [start(3), at(4, 0.5), at(5, 0.25, epoch=1)],
    ]
    for run in (told[:2], told[2:]):
        sink = tensorboard.TensorBoard(Store(str(tmp_path)))
        for some in run:
            for event in some:
                sink.put(event)
            sink.flush()
        sink.close(finished=True)
    assert len(list((tmp_path / tensorboard.FOLDER).iterdir())) == 3
    assert shown(tmp_path) == expected([event for some in told for event in some])
    assert shown(tmp_path)["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 0.5), (5, 0.25)]


def test_one_file_of_the_whole_run_takes_the_place_of_all(tmp_path: Path) -> None:
    store, told = Store(str(tmp_path)), [at(1, 1.0), at(2, 2.0)]
    sink = tensorboard.TensorBoard(store)
    sink.put(at(1, 7.0))
    sink.flush()
    tensorboard.write_whole(store, told)
    assert store.names(tensorboard.FOLDER) == ["events.out.tfevents.0000000001.raycl"]
    assert shown(tmp_path) == expected(list(told))
    for _ in range(2):  # as a run does that was killed before it could commit
        tensorboard.write_whole(store, told)
        assert shown(tmp_path) == expected(list(told))
    tensorboard.write_whole(store, [])
    assert shown(tmp_path) == {}


def test_a_workspace_on_s3_has_the_same_files(s3_store: Store, tmp_path: Path) -> None:
    stores = s3_store, Store(str(tmp_path))
    for store in stores:
        both: list[Sink] = [tensorboard.TensorBoard(store), lines.Lines(store)]
        for event in (start(0), at(1, 1.0), at(2, 2.0)):
            for one in both:
                one.put(event)
                one.flush()
    paths = [store.files() for store in stores]
    assert paths[0] == paths[1]
    assert len(paths[0]) == 4
    assert [stores[0].read(path) for path in paths[0]] == [stores[1].read(path) for path in paths[0]]
    for store in stores:
        tensorboard.write_whole(store, lines.read(store, lines.PATH))
    assert stores[0].names(tensorboard.FOLDER) == ["events.out.tfevents.0000000003.raycl"]
    assert shown(tmp_path)["train/loss"] == [(1, 1.0), (2, 2.0)]

"""Nights of a workspace on S3 that refuses, cuts answers short and loses them end in the releases of nights on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycl.index import deltas
from raycl.index.delta_items import Handed
from raycl.storage.store import Store
from tests.cluster import nights
from tests.faulty_s3 import Faults, FaultyS3

pytestmark = pytest.mark.long


def uploaded(folder: Path, store: Store) -> None:
    """Copy the log under ``folder``."""
    for path in Store(str(folder)).files():
        if path == "items.parquet" or path.startswith("events/"):
            store.write(path, (folder / path).read_bytes())


@pytest.mark.parametrize(
    "faults",
    [Faults(), Faults(refused=0.1, cut=0.1), Faults(refused=0.05, cut=0.05, lost=0.05)],
    ids=["none", "reads", "reads-and-writes"],
)
def test_two_nights_on_s3_make_the_releases_of_two_nights_on_disk_whatever_its_faults(
    faulty_store: tuple[Store, FaultyS3], tmp_path: Path, scratch: Path, faults: Faults
) -> None:
    store, proxy = faulty_store
    nights.write_log(tmp_path)
    on_disk, on_s3 = nights.night(tmp_path, scratch), nights.night(tmp_path / "s3", scratch, store.uri)
    uploaded(tmp_path, store)
    taken: list[float] = []
    for day in range(2):
        if day:
            nights.a_new_day(tmp_path)
            uploaded(tmp_path, store)
        on_disk.to_the_end()
        proxy.faults = faults
        taken.append(on_s3.to_the_end())
        proxy.faults = Faults()
        assert nights.same(on_disk.current(), on_s3.current())
        for one in (on_disk, on_s3):
            nothing = Handed("item_id", "title", nights.no_items(), ["item-3", "item-4"][day : day + 1])
            deltas.write(one.workspace.store, one.current(), nothing)
    for one in (on_disk, on_s3):
        holding = deltas.take(one.workspace.store, one.current())
        assert [holding.tables[number]["item"].to_pylist() for number in holding.holding] == [["item-3"], ["item-4"]]
    print(f"{dict(proxy.done)}, nights of {taken[0]:.0f} and {taken[1]:.0f} s")
    for kind in ("refused", "cut", "lost"):
        assert (proxy.done[kind] > 0) == (getattr(faults, kind) > 0)

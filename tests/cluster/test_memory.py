"""Logs that are larger than the object store, and logs where one user or one item is most of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from raycl import config_file, journey
from raycl.data import sources
from raycl.storage.versions import Version
from tests.cluster import commands
from tests.cluster.outputs import assert_same_pairs
from tests.data import whole

pytestmark = pytest.mark.long

LEAST_STORE_BYTES = 80_000_000
NUM_ROWS, NUM_USERS, NUM_ITEMS = 2_000_000, 40_000, 5_000


def test_a_log_larger_than_the_object_store_makes_the_same_pairs_in_bounded_memory(
    tmp_path: Path, scratch: Path
) -> None:
    """Events pass between tasks as files, not as objects, so that the store, however small, has nothing to spill."""
    log = tmp_path / "log"
    commands.synth(log, 12_000_000, items=20_000)
    tree = yaml.safe_load((log / "raycl.yaml").read_text(encoding="utf-8"))
    loaded = config_file.check(tree)
    columns = sources.log_columns(loaded.logs[0])
    source = sources.open_inputs(loaded).logs[0]
    one = sources.fragments([source], 1)[0].read(columns)
    decoded = one.nbytes * source.num_rows // one.num_rows
    assert decoded > 5 * LEAST_STORE_BYTES
    tree["pairs"] = {**tree.get("pairs", {}), "rows_per_fragment": 1_000_000}

    found: dict[str, tuple[Version, int]] = {}
    for name, store_bytes in (("capped", LEAST_STORE_BYTES), ("free", 2_000_000_000)):
        tree |= {"workspace": str(tmp_path / name), "ray": {"num_cpus": 2, "object_store_bytes": store_bytes}}
        version, used = commands.pairs(tmp_path / name, tree, scratch / name)
        found[name] = version, used.peak_bytes
        print(
            f"{name}: object store of {store_bytes // 1_000_000} MB, log of {decoded // 1_000_000} MB decoded, peak"
            f" {commands.megabytes(used)} MB, spilled {spills(scratch / name)} times, {used.wall_s:.0f} s"
        )
    assert_same_pairs(found["free"][0], found["capped"][0])
    assert found["capped"][1] < 1.2 * found["free"][1]
    assert spills(scratch / "capped") == 0


def spills(session: Path) -> int:
    """How often a raylet said that it moved objects from its store to disk."""
    logs = list(session.rglob("raylet.out"))
    assert logs
    return sum(log.read_text(encoding="utf-8", errors="replace").count("Spilled ") for log in logs)


def write_skewed(folder: Path, kind: str) -> None:
    """Write a log in which one user has a twentieth of the rows, or one item half of them, or nobody stands out."""
    generator = np.random.default_rng(11)
    user, item = generator.integers(1, NUM_USERS, NUM_ROWS), generator.integers(1, NUM_ITEMS, NUM_ROWS)
    if kind == "user":
        user[generator.permutation(NUM_ROWS)[: NUM_ROWS // 20]] = 0
    elif kind == "item":
        item[generator.permutation(NUM_ROWS)[: NUM_ROWS // 2]] = 0
    time = 1_700_000_000 + generator.integers(0, 30_000_000, NUM_ROWS)
    table = pa.table({"user_id": user, "item_id": item, "timestamp": time})
    folder.mkdir()
    for number in range(4):
        rows = table.slice(number * NUM_ROWS // 4, NUM_ROWS // 4)
        pq.write_table(rows, folder / f"part-{number}.parquet", row_group_size=100_000)


def skewed_tree(folder: Path, log: Path, **pairs: Any) -> dict[str, Any]:
    """The config of a log that ``write_skewed`` made; nobody counts as a robot."""
    return {
        "workspace": str(folder / "workspace"),
        "logs": [{"uri": str(log)}],
        "pairs": {"max_user_events": NUM_ROWS, **pairs},
        "ray": {"num_cpus": 2, "object_store_bytes": LEAST_STORE_BYTES},
    }


def test_one_user_or_one_item_that_is_most_of_the_log_neither_stops_the_job_nor_takes_its_memory(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole.without_ray(monkeypatch)
    peaks = {}
    for kind in ("even", "user", "item"):
        log = tmp_path / f"log-{kind}"
        write_skewed(log, kind)
        tree = skewed_tree(tmp_path / kind, log, rows_per_fragment=200_000, num_buckets=16)
        version, used = commands.pairs(tmp_path / kind, tree, scratch / kind)
        peaks[kind] = used.peak_bytes
        print(f"{kind}: peak {commands.megabytes(used)} MB, {used.wall_s:.0f} s")
        at_once = skewed_tree(tmp_path / f"{kind}-at-once", log, rows_per_fragment=NUM_ROWS, num_buckets=1)
        assert_same_pairs(journey.pairs(config_file.check(at_once)).version, version)
        if kind != "even":
            assert version.manifest.counts["events"] > 0.95 * NUM_ROWS
    assert max(peaks.values()) < 1.3 * peaks["even"]

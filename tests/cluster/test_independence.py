"""The pairs do not depend on how the log is cut, on its files or on how many tasks run side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raycl import journey
from tests.cluster import commands
from tests.cluster.outputs import assert_same_pairs
from tests.data import whole
from tests.data.builders import write_parquet

pytestmark = pytest.mark.long

SPLITS: list[dict[str, Any]] = [
    {"split": {"kind": "leave_last_out"}},
    {"split": {"kind": "time", "val_share": 0.2, "test_share": 0.1}, "min_user_events": 3},
    {"split": {"kind": "column"}, "min_history": 2},
]
CUTS = [
    {"num_files": 1, "rows_per_fragment": 10_000, "num_buckets": 1},
    {"num_files": 1, "rows_per_fragment": 1, "num_buckets": 4},
    {"num_files": 7, "rows_per_fragment": 10_000, "num_buckets": 13},
    {"num_files": 3, "rows_per_fragment": 90, "num_buckets": 3},
]


def write_log(folder: Path, seed: int, num_files: int) -> None:
    """Write a random log with faults and repeats, with the columns of ``whole.config``; the rows depend on ``seed``.

    Ids of users are strings and those of items integers; the times are few, so that many are equal.
    """
    generator = np.random.default_rng(seed)
    size = int(generator.integers(300, 1_200))

    def some(values: list[Any], faulty: Any, share: float = 0.02) -> list[Any]:
        return [faulty if generator.random() < share else value for value in values]

    log = pa.table(
        {
            "who": some([f"u{int(user)}" for user in generator.zipf(1.5, size) % 60], None),
            "what": some([int(item) for item in generator.zipf(1.3, size) % 40], None),
            "when": some([1_600_000_000 + int(time) for time in generator.integers(0, 200, size)], 0),
            "how": some([str(kind) for kind in generator.choice(["view", "buy"], size)], "hover"),
            "much": some([float(weight) for weight in generator.choice([0.5, 1.0, 2.0], size)], -1.0),
            "part": some([str(part) for part in generator.choice(["train", "test"], size, p=[0.8, 0.2])], "dev"),
        }
    )
    again = log.take(pa.array(generator.integers(0, size, size // 10)))
    write_parquet(pa.concat_tables([log, again]), folder / "log", num_files=num_files, rows_per_group=30)
    items = pa.table({"id": range(35), "name": [f"item {item}" for item in range(35)], "price": [1.5] * 35})
    write_parquet(items, folder / "items")
    people = [f"u{user}" for user in range(0, 60, 2)]
    write_parquet(pa.table({"id": people, "country": ["pe", "lk", "ee"] * 10}), folder / "users")


@pytest.mark.parametrize(("seed", "pairs"), list(enumerate(SPLITS)))
def test_no_cut_of_the_log_changes_what_the_whole_log_makes_at_once(
    ray_local: None, tmp_path: Path, seed: int, pairs: dict[str, Any]
) -> None:
    versions = []
    for number, cut in enumerate(CUTS):
        folder = tmp_path / str(number)
        write_log(folder, seed, cut["num_files"])
        how = {name: value for name, value in cut.items() if name != "num_files"}
        settings = whole.config(folder, {**pairs, **how})
        version = journey.pairs(settings).version
        assert whole.found(version) == whole.truth(settings), cut
        versions.append(version)
    for version in versions[1:]:
        assert_same_pairs(versions[0], version)


def test_the_number_of_tasks_side_by_side_changes_no_byte(tmp_path: Path, scratch: Path) -> None:
    write_log(tmp_path, 7, 5)
    made = []
    for cpus in (1, 2, 4):
        settings = whole.config(tmp_path, {"rows_per_fragment": 60, "num_buckets": 5}, ray={"num_cpus": cpus})
        tree = settings.model_dump(mode="json") | {"workspace": str(tmp_path / f"by-{cpus}")}
        version, _ = commands.pairs(tmp_path / f"by-{cpus}", tree, scratch)
        made.append(version.manifest.checksums)
    assert made[0] == made[1] == made[2]

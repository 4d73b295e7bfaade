"""Pairs from and to an S3 server, which may refuse, cut its answers short and lose them, are those from disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raycl.storage.store import Store
from raycl.storage.versions import Version
from tests.cluster import builders, commands
from tests.cluster.outputs import assert_same_pairs, contents, different
from tests.faulty_s3 import Faults, FaultyS3

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of several files."""
    folder = tmp_path_factory.mktemp("log")
    builders.write_log(folder, users=4_000, items=500, num_files=8)
    return folder


def tree(root: str, workspace: str) -> dict[str, Any]:
    """The config of the log under ``root``."""
    made = builders.config_tree(Path("log"), workspace)
    made |= {"logs": [{"uri": f"{root}/events"}]}
    made["items"]["uri"] = f"{root}/items.parquet"
    return made


@pytest.fixture(scope="module")
def from_disk(log: Path, scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The pairs of the log on disk."""
    folder = tmp_path_factory.mktemp("disk")
    return commands.pairs(folder, tree(str(log), str(folder / "workspace")), scratch)[0]


def uploaded(log: Path, store: Store) -> str:
    """The URI of a copy of the log."""
    target = store.under("log")
    for path in Store(str(log)).files():
        target.write(path, (log / path).read_bytes())
    return target.uri


@pytest.mark.parametrize(
    "faults",
    [Faults(), Faults(refused=0.2, cut=0.2), Faults(refused=0.1, cut=0.1, lost=0.1)],
    ids=["none", "reads", "reads-and-writes"],
)
def test_pairs_from_and_to_s3_are_those_from_disk_whatever_its_faults(
    faulty_store: tuple[Store, FaultyS3], from_disk: Version, log: Path, tmp_path: Path, scratch: Path, faults: Faults
) -> None:
    store, proxy = faulty_store
    root = uploaded(log, store)
    proxy.faults = faults
    proxy.done.clear()
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    version, used = commands.pairs(tmp_path, tree(root, store.under("workspace").uri), scratch, **env)
    print(f"{dict(proxy.done)}, {used.wall_s:.0f} s")
    proxy.faults = Faults()
    assert_same_pairs(from_disk, version)
    assert different(contents(from_disk), contents(version)) == []
    for kind in ("refused", "cut", "lost"):
        assert (proxy.done[kind] > 0) == (getattr(faults, kind) > 0)

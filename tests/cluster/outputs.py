"""What versions hold, so that those of two runs can be compared."""

from __future__ import annotations

import json

import pyarrow as pa

from raycl import schema
from raycl.data.handoff import Pairs
from raycl.index.release import GATE_FILE
from raycl.storage import tables
from raycl.storage.store import is_partial
from raycl.storage.versions import WORK, Version, Workspace


def contents(version: Version) -> dict[str, pa.Table | bytes]:
    """Every file that must be the same in two runs: a table for Parquet, bytes for the rest."""
    store = version.store
    # These hold how fast towers were trained, where the log lay, and names of versions, which tell when they were made.
    told_apart = {"manifest.json", "lineage.json", "report.html", "report.json"}
    if version.manifest.stage == "towers":
        told_apart |= {"metrics.json", "track.jsonl", "run.json", "run.html", "model_card.md"}
    folders = ("checkpoints/", "tensorboard/")
    paths = [path for path in store.files() if path not in told_apart and not path.startswith(folders)]
    assert paths
    found: dict[str, pa.Table | bytes] = {
        path: tables.read(store, path) if path.endswith(".parquet") else store.read(path) for path in paths
    }
    if (gate := found.get(GATE_FILE)) is not None:
        plain = json.loads(gate)
        del plain["evidence"]["search_ms"]  # how fast the index was searched
        found[GATE_FILE] = json.dumps(plain).encode()
    return found


def different(expected: dict[str, pa.Table | bytes], found: dict[str, pa.Table | bytes]) -> list[str]:
    """Files that only one side has or that hold something else."""
    return sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))


def whole_sequences(version: Version) -> pa.Table:
    """The sequences of a pairs version, by user, however many files they are in."""
    paths = [path for path in version.store.files(schema.SEQUENCES) if path.endswith(".parquet")]
    return pa.concat_tables(tables.read(version.store, path) for path in paths).sort_by("user").combine_chunks()


def assert_same_pairs(expected: Version, found: Version) -> None:
    """Both hold the same rows, vocabulary, counts and drops; files, buckets and fragments may differ."""
    assert found.manifest.counts == expected.manifest.counts
    assert found.manifest.dropped == expected.manifest.dropped
    assert found.manifest.counts["rows_in"] == found.manifest.counts["events"] + sum(found.manifest.dropped.values())
    assert Pairs.of(found).vocabulary() == Pairs.of(expected).vocabulary()
    sequences = whole_sequences(expected)
    assert sequences == whole_sequences(found)
    assert sequences.num_rows


def only_pairs(workspace: Workspace) -> Version:
    """The one pairs version of a workspace, with all its bytes, and nothing beside it that was begun."""
    (name,) = workspace.store.names("pairs")
    version = workspace.open("pairs", name)
    version.manifest.verify(version.store)
    left = [path for path in version.store.files() if path.startswith(f"{WORK}/") or is_partial(path)]
    assert left == []
    return version

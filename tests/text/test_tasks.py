"""The item table with vectors: which rows have one, what of a killed run stays, and the pairs that read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import config_file, journey, lineage, nightly
from raycl.config import Config
from raycl.config_encode import Encoding
from raycl.data import sources
from raycl.data.handoff import Pairs
from raycl.errors import ConfigError
from raycl.storage.store import Store
from raycl.text import encoders, ray_encode, tasks
from tests import tiny as builders

ENCODE = [
    {"column": "said", "of": ["title", "category"], "model": "projection", "length": 8},
    {"column": "cover", "of": "category", "model": "projection", "length": 4},
]


def config_of(folder: Path, encode: Sequence[dict[str, Any]] = ENCODE) -> Config:
    if not (folder / "log").exists():
        builders.write_log(folder / "log")
    tree = builders.tiny_tree(folder)
    tree["items"]["encode"] = list(encode)
    tree["items"]["features"] += [
        {"column": one["column"], "kind": "vector", "length": one["length"]} for one in encode
    ]
    return config_file.check(tree)


def encoding(**settings: Any) -> Encoding:
    return Encoding.model_validate({**ENCODE[0], **settings})


TABLE = pa.table(
    {
        "title": ["Lip gloss", None, "  ", "Hammer"],
        "category": [["make-up", "red"], ["tools"], [], None],
    }
)


def test_the_words_of_a_row_are_its_columns_one_after_the_other() -> None:
    assert tasks.texts(TABLE, ["title", "category"]) == ["Lip gloss. make-up, red", "tools", "", "Hammer"]


def test_each_row_with_words_has_the_vector_of_its_words() -> None:
    chosen = encoding()
    found = tasks.with_vectors(TABLE, [chosen], [encoders.load(chosen, "f")])["said"].to_pylist()
    assert found[2] is None
    expected = encoders.projected(["Lip gloss. make-up, red", "tools", "Hammer"], 8)
    np.testing.assert_array_equal([found[0], found[1], found[3]], expected)


def test_a_share_of_rows_is_left_without_and_the_same_ones_in_every_run() -> None:
    chosen = encoding(missing=0.3)
    words = [f"item {number}" for number in range(4_000)]
    left = [tasks.left_out(text, chosen) for text in words]
    assert np.mean(left) == pytest.approx(0.3, abs=0.03)
    assert left == [tasks.left_out(text, chosen) for text in words]
    assert left != [tasks.left_out(text, encoding(missing=0.3, column="other")) for text in words]


def test_a_killed_task_goes_on_at_the_part_that_it_was_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "ROWS_PER_PART", 7)
    config = config_of(tmp_path)
    assert config.items is not None
    work = tasks.of(config.items, sources.open_words(config.items), str(tmp_path / "made"))
    asked: list[int] = []

    def encode(texts: Sequence[str]) -> encoders.Vectors:
        asked.append(len(texts))
        if len(asked) == 5:
            raise KeyboardInterrupt
        return encoders.projected(texts, 8)

    with pytest.raises(KeyboardInterrupt):
        tasks.encode_fragment(work, [encode, encode], 0)
    record = tasks.encode_fragment(work, [encode, encode], 0)
    assert asked == [*[7] * 5, 7, 7, 7, 7, 2, 2]  # of two columns each; the third part was lost
    assert record == {"rows": 30, "missing": {"said": 0, "cover": 0}}
    parts = sorted(Store(str(tmp_path / "made")).names("items"))
    assert len(parts) == 5
    made = pa.concat_tables(pq.read_table(tmp_path / "made" / "items" / part) for part in parts)
    assert made["item_id"].to_pylist() == pq.read_table(tmp_path / "log" / "items.parquet")["item_id"].to_pylist()


def test_pairs_read_the_vectors_and_are_found_again_with_them(ray_local: None, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    workspace = journey.workspace(config)
    made = journey.pairs(config)
    version = ray_encode.found(config, workspace)
    assert version is not None
    assert version.manifest.counts == {"items": 30}
    encoded = Pairs.of(made.version).encoded("items")
    assert encoded is not None
    table = pq.read_table(tmp_path / "log" / "items.parquet")
    words = tasks.texts(table, ["title", "category"])
    np.testing.assert_array_equal(encoded["said"].to_pylist(), encoders.projected(words, 8))
    again = journey.pairs(config)
    assert (again.version.name, again.worked) == (made.version.name, False)
    assert lineage.pairs(config, workspace).name == made.version.name
    assert {step.stage: step.would for step in nightly.plan(config)}["pairs"] == "nothing"
    pq.write_table(table.slice(0, 29), tmp_path / "log" / "items.parquet")
    assert ray_encode.found(config, workspace) is None
    assert journey.pairs(config).version.name != made.version.name


@pytest.mark.parametrize(
    ("encode", "told"),
    [
        ([{**ENCODE[0], "column": "other"}], "items.encode.0.column=other is read by no feature: name it in"),
        ([{**ENCODE[0], "column": "price"}], "items.encode.0.column=price is a column of the table already"),
        ([ENCODE[0], ENCODE[0]], "items.encode.1.column=said is there twice"),
        ([{**ENCODE[0], "of": []}], "items.encode.0.of=[]"),
        ([ENCODE[0], {**ENCODE[1], "of": "said"}], "items.encode.0.column=said is read by items.encode too"),
    ],
)
def test_encodings_that_cannot_work_are_refused(tmp_path: Path, encode: list[dict[str, Any]], told: str) -> None:
    tree = config_of(tmp_path).model_dump(mode="json")
    tree["items"]["encode"] = encode
    with pytest.raises(ConfigError) as caught:
        config_file.check(tree)
    assert str(caught.value).startswith(told)

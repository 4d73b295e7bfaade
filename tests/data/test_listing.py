"""Files and their partitions, told from paths."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from raycl.data.listing import ListedFile, hive_partition, list_parquet, partition_type, within
from raycl.data.times import TimeRange, date_span
from raycl.errors import InputError
from raycl.storage.store import Store


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("a.parquet", {}),
        ("dt=2026-01-02/a.parquet", {"dt": "2026-01-02"}),
        ("country=pe/dt=20260102/x/a.parquet", {"country": "pe", "dt": "20260102"}),
        ("where=a%20b%2Fc%3D%C3%A9/a.parquet", {"where": "a b/c=é"}),
        ("a%3Db=1/a.parquet", {"a=b": "1"}),
        ("dt=__HIVE_DEFAULT_PARTITION__/a.parquet", {"dt": None}),
        ("empty=/a.parquet", {"empty": ""}),
        ("dt=1/dt=2/a.parquet", {"dt": "2"}),
        ("=1/k=a=b/x=y.parquet", {"k": "a=b"}),
    ],
)
def test_folders_name_keys_and_values(path: str, values: dict[str, str | None]) -> None:
    assert hive_partition(path) == values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", None, str(2**63 - 1)], pa.int64()),
        (["0"], pa.int64()),
        (["1", "x"], pa.large_string()),
        (["07", "8"], pa.large_string()),
        (["-0"], pa.large_string()),
        (["+1"], pa.large_string()),
        (["1_0"], pa.large_string()),
        (["٣"], pa.large_string()),
        ([str(2**63)], pa.large_string()),
        (["9" * 5_000], pa.large_string()),
        ([""], pa.large_string()),
        ([None, None], pa.null()),
    ],
)
def test_values_that_are_all_whole_numbers_are_integers(values: list[str | None], kind: pa.DataType) -> None:
    assert partition_type(values) == kind


NAMES = ("_k=1/a.parquet", "k=2/b.parquet", "_tmp/k=3/c.parquet", "k=4/_d.parquet", ".k=5/e.parquet")


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_folder_and_a_pattern_list_the_same_files_with_their_partitions(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = Store(str(tmp_path / "day=7")) if where == "local" else request.getfixturevalue("s3_store").under("day=7")
    for name in NAMES:
        store.write(f"log/{name}", b"x")
    expected = [("_k=1/a.parquet", {"day": "7", "_k": "1"}), ("k=2/b.parquet", {"day": "7", "k": "2"})]
    for uri in (f"{store.uri}/log", f"{store.uri}/log/*/*.parquet", f"{store.uri}/log/**"):
        listed = list_parquet("logs.0", uri)
        assert listed.root_uri == f"{store.uri}/log"
        assert [(file.path, file.partition) for file in listed.files] == expected
        assert {file.num_bytes for file in listed.files} == {1}
    (single,) = list_parquet("logs.0", f"{store.uri}/log/k=2/b.parquet").files
    assert (single.path, single.partition) == ("b.parquet", {"day": "7", "k": "2"})


def listed(*folders: str) -> list[ListedFile]:
    return [ListedFile(f"{folder}/a.parquet", 1, 0, hive_partition(f"{folder}/a.parquet")) for folder in folders]


def test_files_of_dates_that_overlap_the_range_are_kept() -> None:
    files = listed(*(f"dt=2026-01-{day:02}" for day in range(1, 6)), "dt=__HIVE_DEFAULT_PARTITION__", "dt=2026-01")
    wanted = TimeRange(date_span(["2026-01-02"])[1], date_span(["2026-01-04"])[0])
    kept = [file.partition["dt"] for file in within("logs.0", files, ["dt"], wanted)]
    assert kept == ["2026-01-02", "2026-01-03", None, "2026-01"]
    assert within("logs.0", files, [], wanted) == tuple(files)
    assert within("logs.0", files, ["dt"], None) == tuple(files)


def test_keys_together_name_a_date() -> None:
    files = listed(
        "year=2026/month=1/day=9", "year=2026/month=1/day=10", "year=2026/month=11/day=__HIVE_DEFAULT_PARTITION__"
    )
    kept = within("logs.0", files, ["year", "month", "day"], TimeRange(*date_span(["2026-01-10"])))
    assert [file.path for file in kept] == [files[1].path, files[2].path]


def test_a_key_that_a_file_lacks_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        within("logs.0", listed("dt=2026-01-01", "x"), ["dt"], None)
    assert str(caught.value) == (
        "logs.0.date_partition=dt is no partition of file x/a.parquet (it has none): name a key of its folders, such as"
        " dt in dt=2026-01-31"
    )


def test_a_value_that_is_no_date_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^logs\.0\.date_partition=dt is 'soon' for file dt=soon/a\.parquet: name keys"
    ):
        within("logs.0", listed("dt=soon"), ["dt"], None)

"""Numbers in the names of files that are created once each."""

from __future__ import annotations

from raycl.storage.numbered import name_of, numbers


def test_numbers_come_back_ascending_whatever_lies_beside() -> None:
    names = [name_of(number) for number in (1_000_000, 12, 3)]
    assert names == ["1000000.json", "000012.json", "000003.json"]
    assert numbers([*names, "12.json", "000012.json.part", ".probe-1", "00001a.json", "000004.parquet"]) == [
        3,
        12,
        1_000_000,
    ]
    assert numbers([]) == []

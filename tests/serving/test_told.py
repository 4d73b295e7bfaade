"""What queries say is read together where it can be, and ages belong to their events."""

from __future__ import annotations

import math
from typing import Any

import pytest

from raycl.data.features import Encoders
from raycl.errors import InputError
from raycl.serving import told
from raycl.serving.api import Query
from raycl.serving.told import Reader, ages
from tests.serving import builders

SAID: list[dict[str, Any]] = [{"age": 30}, {}, {"country": "pe"}, {"age": "old"}, {"city": "lima"}, {"age": None}]


def test_one_that_cannot_be_read_does_not_touch_the_others() -> None:
    reader = Reader("user", builders.encoders())
    found = reader.read(SAID)
    assert [isinstance(one, InputError) for one in found] == [False, False, False, True, True, False]
    for said, one in zip(SAID, found, strict=True):
        if not isinstance(one, InputError):
            assert one.to_pylist() == builders.encoders().encode_rows([said]).to_pylist()
    assert found[1] is reader.nothing
    assert str(found[3]).startswith("user.age: 'old' is not a numeric value")
    assert str(found[4]) == "user.city='lima': the release knows no such feature; it knows country, tags, age, bio"


def test_all_that_can_be_read_is_encoded_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, calls = Reader("context", builders.encoders()), []
    encode_rows = Encoders.encode_rows

    def count(self: Encoders, rows: Any, name: str = "user") -> Any:
        calls.append((len(rows), name))
        return encode_rows(self, rows, name)

    monkeypatch.setattr(Encoders, "encode_rows", count)
    reader.read(SAID[:3])
    assert calls == [(2, "context")]


def test_an_error_is_raised_where_something_good_is_wanted() -> None:
    bad, good = Reader("user", builders.encoders()).read([{"city": "lima"}, {}])
    assert told.good(good).num_rows == 1
    with pytest.raises(InputError, match="city"):
        told.good(bad)


@pytest.mark.parametrize(
    ("body", "fresh", "expected"),
    [
        ({}, [], []),
        ({"history": [1, 2]}, [], [math.nan, math.nan]),
        ({"history": [1, 2], "times": [10, None]}, [], [90, math.nan]),
        ({"history": [1, 2], "times": [10, 130], "time": 120}, [], [110, -10]),
        ({"history": [1]}, [60.0, 75.5], [math.nan, 40, 24.5]),
        ({"history": [1], "times": [30], "time": 80}, [60.0], [50, 20]),
        ({}, [60.0], [40]),
        ({"history": [1, 2], "times": [1e308, -1e308]}, [], [math.nan, math.nan]),
        ({"history": [1, 2], "times": [1.7e308, 5], "time": -1.7e308}, [1.0], [math.nan] * 3),
    ],
)
def test_ages_are_of_the_history_and_then_of_what_was_posted(
    body: dict[str, Any], fresh: list[float], expected: list[float]
) -> None:
    """A time that no age can be made of is as one that is not known."""
    assert ages(Query.model_validate(body), fresh, lambda: 100.0) == pytest.approx(expected, nan_ok=True)

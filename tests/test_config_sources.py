"""Settings of sources: ranges of time, declared defaults, formats."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import yaml

from raycl import config_file
from raycl.config import Config
from raycl.errors import ConfigError

JANUARY = datetime.datetime(2026, 1, 31, 6, tzinfo=datetime.UTC)


def config(log: dict[str, Any], **sections: Any) -> Config:
    return config_file.check({"workspace": "w", "logs": [{"uri": "log", **log}], **sections})


def refusal(log: dict[str, Any], **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config(log, **sections)
    return str(caught.value)


@pytest.mark.parametrize(
    "written",
    ["2026-01-31T06:00:00Z", "2026-01-31 06:00", "2026-01-31T08:00:00+02:00", "'2026-01-31T06:00:00.000'"],
)
def test_a_moment_is_the_same_however_it_is_written(written: str) -> None:
    assert config({"since": yaml.safe_load(written)}).logs[0].since == JANUARY


def test_a_date_is_its_first_moment_in_utc() -> None:
    midnight = JANUARY.replace(hour=0)
    for written in ("2026-01-31", datetime.date(2026, 1, 31), datetime.datetime(2026, 1, 31)):
        assert config({"until": written}).logs[0].until == midnight


@pytest.mark.parametrize("written", [20260131, 1.5, "yesterday", "2026-02-30", True, ""])
def test_anything_else_is_no_moment(written: Any) -> None:
    assert refusal({"since": written}) == (
        f"logs.0.since={written}: write a date or a time such as 2026-01-31 or 2026-01-31T06:00:00Z"
    )


def test_a_moment_between_milliseconds_is_refused() -> None:
    assert refusal({"since": "2026-01-31T00:00:00.0001"}).endswith("write at most three digits after the second")


def test_sources_are_read_back_as_they_were_dumped() -> None:
    log = {"since": datetime.date(2026, 1, 31), "until": JANUARY, "date_partition": ["year", "month"]}
    defaults = {"user_id": 7, "item_id": None, "timestamp": datetime.date(2026, 1, 1)}
    written = config({**log, "defaults": defaults, "format": "delta", "version": 3})
    assert written.logs[0].defaults == {"user_id": 7, "item_id": None, "timestamp": "2026-01-01"}
    assert config_file.check(yaml.safe_load(config_file.dump(written))) == written


def test_a_default_keeps_its_own_type() -> None:
    columns = {"user": "a", "item": "b", "time": "c", "event": "d", "weight": "e"}
    values = {"a": True, "b": 1, "c": 1.0, "d": "1", "e": None}
    kept = config({"columns": columns, "defaults": values}, event_weights={"1": 1}).logs[0].defaults
    assert [(value, type(value)) for value in kept.values()] == [(value, type(value)) for value in values.values()]


def test_one_partition_key_may_stand_alone() -> None:
    assert config({"date_partition": "dt"}).logs[0].date_partition == ("dt",)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (
            {"since": "2026-01-02", "until": "2026-01-02"},
            "logs.0.since=2026-01-02T00:00:00+00:00 is not before logs.0.until=2026-01-02T00:00:00+00:00: no event can"
            " be both, so move one of them",
        ),
        ({"version": 3}, "logs.0.version=3 is of logs.0.format=delta or iceberg: set that, or leave it out"),
        (
            {"defaults": {"when": 1}},
            "logs.0.defaults.when=1: logs.0 reads no such column; it names user_id, item_id, timestamp",
        ),
    ],
)
def test_what_a_log_cannot_be_is_refused_with_the_remedy(log: dict[str, Any], message: str) -> None:
    assert refusal(log) == message


def test_a_range_needs_a_time() -> None:
    pairs = {"split": {"kind": "column"}, "history": "others"}
    message = refusal({"columns": {"time": None, "split": "part"}, "until": "2026-01-02"}, pairs=pairs)
    assert message == (
        "logs.0.until=2026-01-02T00:00:00+00:00 needs logs.0.columns.time, which is null: name the column or leave"
        " until out"
    )


def test_a_range_is_none_of_an_order() -> None:
    assert refusal({"time_unit": "order", "since": "2026-01-02"}) == (
        "logs.0.since=2026-01-02T00:00:00+00:00 is a date, and logs.0.time_unit=order counts events: leave since out,"
        " or name the unit of a time"
    )


def test_defaults_of_the_tables_are_columns_that_they_read() -> None:
    features = [{"column": "colour"}]
    items = {"uri": "i", "display": ["price"], "features": features, "defaults": {"colour": "red", "price": 1}}
    assert config({}, items=items, users={"uri": "u", "features": features, "defaults": {"colour": "x"}}).items
    assert refusal({}, items=items | {"defaults": {"size": 1}}) == (
        "items.defaults.size=1: items reads no such column; it names item_id, title, colour, price"
    )
    assert refusal({}, users={"uri": "u", "defaults": {"colour": 1}}).endswith("it names user_id")

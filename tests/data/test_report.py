"""The data report as data: every number from the sketches, and back from JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest
from pydantic import ValidationError

from raycl.data.report import NO_TYPE, Octave, Report
from raycl.data.report_sketch import Kept, Rows
from tests.data.reports import HOSTILE, config, histogram, kept, made, rows, vocabulary


def test_rows_are_left_out_by_reason_with_shares_of_the_log() -> None:
    found = made()
    assert [(one.reason, one.rows) for one in found.dropped] == [
        ("duplicate", 269),
        ("unknown_event", 89),
        ("null_user", 5),
    ]
    assert [one.share for one in found.dropped] == [269 / 1_234, 89 / 1_234, 5 / 1_234]
    assert [(one.column, one.nulls, one.share) for one in found.nulls][1] == ("time", 3, 3 / 1_234)


def test_days_are_dates_with_rows_and_events() -> None:
    found = made(rows({0: 3, 19_700: 1_000, 19_702: 9})).days
    assert [(day.day, day.rows, day.events) for day in found.counts] == [
        (date(1970, 1, 1), 3, 0),
        (date(2023, 12, 9), 1_000, 800),
        (date(2023, 12, 10), 0, 71),
        (date(2023, 12, 11), 9, 0),
    ]
    assert (found.undated_rows, found.undated_events) == (4, 0)


def test_event_types_have_the_names_of_the_config() -> None:
    found = made().types
    assert [(one.type, one.rows, one.events) for one in found.named] == [
        ("view", 1_001, 700),
        (HOSTILE, 111, 101),
        ("buy", 33, 70),
    ]
    assert [one.events_share for one in found.named] == [700 / 871, 101 / 871, 70 / 871]
    assert sum(one.rows_share for one in found.named) == pytest.approx(1.0)
    assert [(one.type, one.rows) for one in found.unknown] == [(f"{HOSTILE} 2", 41), ("hover", 29)]
    assert (found.null_rows, found.unknown_rest_rows) == (17, 2)


def test_types_of_explicit_negatives_come_after_the_others() -> None:
    settings = config(event_weights={"view": 1.0}, pairs={"negative_events": ["skip", "hide"]})
    assert [(one.type, one.rows) for one in made(settings=settings).types.named] == [
        ("view", 1_001),
        ("skip", 111),
        ("hide", 33),
    ]


def test_events_of_a_log_without_types_have_one_name() -> None:
    bare = config(logs=[{"uri": "unused"}], event_weights={})
    found = made(rows(types=(1_234,), unknown={}), kept(types=(871,)), settings=bare).types
    assert [(one.type, one.rows, one.events) for one in found.named] == [(NO_TYPE, 1_234, 871)]


def test_curves_have_heads_and_tails() -> None:
    users = made().users
    assert (users.number, users.total, users.mean, users.most) == (4, 871, 217.75, 500)
    assert (users.top_1_percent, users.top_10_percent) == (500 / 871, 500 / 871)
    assert users.octaves[0] == Octave(first=1, last=1, number=1, number_share=0.25, total=1, total_share=1 / 871)
    assert users.octaves[-1].total_share == 800 / 871 - users.octaves[-2].total_share
    assert users.at_least[0] == (1, 4)


def test_parts_have_users_pairs_times_and_histories() -> None:
    train, val, test = made().parts
    assert (train.part, train.users, train.pairs, train.pairs_share) == ("train", 4, 611, 611 / 616)
    assert (val.first, val.last) == (datetime(2023, 12, 10, 1, tzinfo=UTC), datetime(2023, 12, 10, 2, tzinfo=UTC))
    assert (test.first, test.last) == (None, None)
    assert (train.history.most, train.history.median, train.history.p90) == (40, 1, 40)


@pytest.mark.parametrize(("max_history", "share"), [(8, 300 / 611), (9, 100 / 611), (39, 100 / 611), (40, 0.0)])
def test_histories_that_are_cut_are_those_longer_than_may_be(max_history: int, share: float) -> None:
    found = made(settings=config(pairs={"max_history": max_history}))
    assert (found.max_history, found.parts[0].cut_share) == (max_history, share)


def test_cold_items_are_those_without_events_in_training() -> None:
    found = made().cold
    assert (found.items, found.cold_items, found.cold_share) == (4, 2, 0.5)
    assert (found.val_targets, found.val_cold_targets, found.val_cold_share) == (3, 1, 1 / 3)
    assert (found.test_targets, found.test_cold_targets, found.test_cold_share) == (2, 2, 1.0)


def test_a_log_of_nothing_has_shares_of_zero() -> None:
    empty = {part: histogram([]) for part in ("train", "val", "test")}
    nothing = made(Rows(types=(0, 0, 0)), Kept(types=(0, 0, 0), history=empty), vocabulary({}), dropped={})
    assert nothing.users.gini == nothing.cold.test_cold_share == nothing.types.named[0].rows_share == 0.0
    assert (nothing.users.octaves, nothing.users.median, nothing.days.counts) == ((), 0, ())


def test_json_comes_back_and_may_hold_more_fields() -> None:
    found = made()
    plain = json.loads(found.model_dump_json())
    assert plain["format"] == 1
    assert Report.model_validate_json(json.dumps(plain | {"added_later": 1})) == found


def test_a_report_of_another_format_is_refused() -> None:
    with pytest.raises(ValidationError, match="format"):
        Report.model_validate(made().model_dump() | {"format": 2})


def test_every_part_of_the_report_says_what_it_is() -> None:
    parts = Report.model_json_schema()["$defs"]
    assert {"Days", "Part", "Drift", "Cold", "Curve"} <= parts.keys()
    assert all(part["description"] for part in parts.values())

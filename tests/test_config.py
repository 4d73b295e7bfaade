"""The config refuses what cannot work before anything starts, and says what to change."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from raycl import config as config_module
from raycl import (
    config_encode,
    config_evaluation,
    config_file,
    config_loss,
    config_search,
    config_serving,
    config_validation,
)
from raycl.config import Config, TableSource
from raycl.config_values import Section
from raycl.errors import ConfigError

SMALLEST: dict[str, Any] = {"workspace": "w", "logs": [{"uri": "log"}]}
NO_TIME = {"uri": "log", "columns": {"time": None, "split": "part"}}
SECTIONS: set[type[Section]] = {
    kind
    for module in (
        config_module,
        config_encode,
        config_evaluation,
        config_loss,
        config_search,
        config_serving,
        config_validation,
    )
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, Section)
}


def tree(changes: dict[str, Any]) -> dict[str, Any]:
    """The smallest config with each dotted path changed."""
    changed = copy.deepcopy(SMALLEST)
    for path, value in changes.items():
        *folders, last = path.split(".")
        place = changed
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    return changed


def refusal(changes: dict[str, Any]) -> str:
    """The message for the smallest config with these changes."""
    with pytest.raises(ConfigError) as caught:
        config_file.check(tree(changes))
    return str(caught.value)


def test_a_workspace_and_a_log_are_enough() -> None:
    config = config_file.check(SMALLEST)
    assert config == Config(workspace="w", logs=(config_module.LogSource(uri="log"),))
    assert config.pairs.split == config_module.LeaveLastOut(kind="leave_last_out")


@pytest.mark.parametrize("field", SMALLEST)
def test_workspace_and_logs_are_required(field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_file.check({key: value for key, value in SMALLEST.items() if key != field})
    assert str(caught.value) == f"{field}: required and not set; add it to the config"


TYPED = {"uri": "log", "columns": {"event": "kind"}}
CARRYING = {"uri": "log", "columns": {"context": ["device", "country"]}}
TWICE = [{"column": "category"}, {"column": "price", "kind": "numeric"}, {"column": "category", "kind": "text"}]

BUCKETLESS: dict[str, dict[str, Any]] = {
    "numeric": {"kind": "numeric", "transform": "log"},
    "categorical": {"kind": "categorical"},
    "vector": {"kind": "vector", "length": 3},
}

# Each with a change that the message names as a remedy.
IMPOSSIBLE: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "a batch that workers cannot share": (
        {"train.global_batch_size": 1000, "train.num_workers": 3},
        "train.global_batch_size=1000 must divide evenly by train.num_workers=3, with at least two pairs a worker:"
        " use 999 or 1002",
        {"train.global_batch_size": 1002},
    ),
    "a batch that some number of workers cannot share": (
        {"train.num_workers": {"min": 2, "max": 4}},
        "train.global_batch_size=2048 must divide evenly by each of train.num_workers=2 to 4, with at least two pairs a"
        " worker: use 2040 or 2052, or a narrower range",
        {"train.global_batch_size": 2052},
    ),
    "fewer workers at most than at least": (
        {"train.num_workers": {"min": 4, "max": 2}},
        "train.num_workers.min=4 is above train.num_workers.max=2: raise the second or lower the first",
        {"train.num_workers": {"min": 2, "max": 2}},
    ),
    "a batch of one pair a worker": (
        {"train.global_batch_size": 4, "train.num_workers": 4},
        "train.global_batch_size=4 must divide evenly by train.num_workers=4, with at least two pairs a worker: use 8",
        {"train.global_batch_size": 8},
    ),
    "a split by a column that no log has": (
        {"pairs.split": {"kind": "column"}},
        "pairs.split.kind=column needs logs.0.columns.split, which is null: name the column or choose another split",
        {"logs": [{"uri": "log", "columns": {"split": "part"}}]},
    ),
    "a split by time without time": (
        {"pairs.split": {"kind": "time"}, "logs": [{"uri": "log"}, NO_TIME]},
        "pairs.split.kind=time needs logs.1.columns.time, which is null: name the column or choose another split",
        {"logs": [{"uri": "log"}, {"uri": "log", "columns": {"time": "when"}}]},
    ),
    "the last event without time": (
        {"logs": [NO_TIME]},
        "pairs.split.kind=leave_last_out needs logs.0.columns.time, which is null: name the column or choose another"
        " split",
        {"pairs.split": {"kind": "column"}, "pairs.history": "others"},
    ),
    "the events before the target without time": (
        {"logs": [NO_TIME], "pairs.split": {"kind": "column"}},
        "pairs.history=before needs logs.0.columns.time, which is null: name the column or set pairs.history=others",
        {"pairs.history": "others"},
    ),
    "a history that looks past the target": (
        {"pairs.history": "others", "pairs.split": {"kind": "time"}},
        "pairs.history=others looks past the target, so pairs.split.kind=time would leak: use column",
        {"pairs.split": {"kind": "column"}, "logs": [NO_TIME]},
    ),
    "item pairs of any reach": (
        {"pairs.kind": "item_to_item", "pairs.max_history": 1},
        "pairs.kind=item_to_item pairs any two events of a user: set pairs.within_s or pairs.session_gap_s",
        {"pairs.session_gap_s": 1800},
    ),
    "item pairs of a long history": (
        {"pairs.kind": "item_to_item", "pairs.within_s": 60},
        "pairs.kind=item_to_item has one earlier item, and pairs.max_history=20: set it to 1",
        {"pairs.max_history": 1},
    ),
    "item pairs without order": (
        {"pairs.kind": "item_to_item", "pairs.history": "others", "logs": [NO_TIME], "pairs.split": {"kind": "column"}},
        "pairs.kind=item_to_item needs an order of events, and pairs.history=others: set it to before",
        {"pairs.kind": "next_item"},
    ),
    "a reach without item pairs": (
        {"pairs.session_gap_s": 60},
        "pairs.session_gap_s=60 is of pairs.kind=item_to_item: set that, or leave it out",
        {"pairs.kind": "item_to_item", "pairs.max_history": 1},
    ),
    "cold items without time": (
        {"pairs.split": {"kind": "cold_items"}, "logs": [NO_TIME]},
        "pairs.split.kind=cold_items needs logs.0.columns.time, which is null: name the column or choose another split",
        {"pairs.split": {"kind": "column"}, "pairs.history": "others"},
    ),
    **{
        f"pairs.{name} without time": (
            {f"pairs.{name}": value, "logs": [NO_TIME], "pairs.split": {"kind": "column"}, "pairs.history": "others"},
            f"pairs.{name} needs logs.0.columns.time, which is null: name the column or set pairs.{name}={off}",
            {f"pairs.{name}": None if off == "null" else 0},
        )
        for name, value, off in [
            ("max_user_rate", {"events": 9, "window_s": 1}, "null"),
            ("repeat_window_s", 60, "0"),
            ("keep_user_events", 9, "null"),
        ]
    },
    "event types without weights": (
        {"logs": [{"uri": "log", "columns": {"event": "kind"}}]},
        "logs.0.columns.event=kind but event_weights is empty, so every row would be quarantined: name the event"
        " types, for example event_weights.view=1",
        {"event_weights.view": 1},
    ),
    "more event types than a byte can tell apart": (
        {"event_weights": {f"type{number}": 1.0 for number in range(257)}},
        "event_weights=257 event types: at most 256 can be told apart; give types that weigh the same one name in the"
        " log",
        {"event_weights": {f"type{number}": 1.0 for number in range(256)}},
    ),
    "more event types with the negatives": (
        {"event_weights": {f"type{n}": 1.0 for n in range(256)}, "pairs.negative_events": ["skip"], "logs": [TYPED]},
        "event_weights=256 and pairs.negative_events=1 event types: at most 256 can be told apart; give types that"
        " weigh the same one name in the log",
        {"event_weights": {f"type{n}": 1.0 for n in range(255)}},
    ),
    "a negative with a weight": (
        {"event_weights": {"view": 1.0, "skip": 1.0}, "pairs.negative_events": ["skip"], "logs": [TYPED]},
        "pairs.negative_events.0=skip has a weight in event_weights, and is a negative or not: take it out of one"
        " of them",
        {"event_weights": {"view": 1.0}},
    ),
    "a negative twice": (
        {"event_weights": {"view": 1.0}, "pairs.negative_events": ["skip", "skip"], "logs": [TYPED]},
        "pairs.negative_events.1=skip is there twice: take one of them out",
        {"pairs.negative_events": ["skip"]},
    ),
    "negatives of no type": (
        {"pairs.negative_events": ["skip"]},
        "pairs.negative_events.0=skip needs logs.0.columns.event, which is null: name the column, or leave"
        " negative_events out",
        {"logs": [{"uri": "log"}, TYPED], "event_weights": {"view": 1.0}},
    ),
    "negatives of no weight": (
        {"pairs.negative_below": 2.5},
        "pairs.negative_below=2.5 needs logs.0.columns.weight, which is null: name the column, or name event types in"
        " pairs.negative_events",
        {"logs": [{"uri": "log"}, {"uri": "log", "columns": {"weight": "stars"}}]},
    ),
    "other context in another log": (
        {"logs": [CARRYING, {"uri": "log", "columns": {"context": ["country"]}}]},
        "logs.1.columns.context=['country'] and logs.0.columns.context=['device', 'country']: every event carries the"
        " same columns, so name the same in both; what a log lacks its defaults may fill",
        {"logs": [CARRYING, {"uri": "log", "columns": {"context": ["country", "device"]}}]},
    ),
    "context twice": (
        {"logs": [{"uri": "log", "columns": {"context": ["device", "device"]}}]},
        "logs.0.columns.context.1=device is there twice: take one of them out",
        {"logs": [CARRYING]},
    ),
    "context of the quarantine": (
        {"logs": [{"uri": "log", "columns": {"context": "reason"}}]},
        "logs.0.columns.context.0=reason is a column that the quarantine has of its own: rename the column in the log",
        {"logs": [{"uri": "log", "columns": {"context": "why"}}]},
    ),
    "two item features on one column": (
        {"items": {"uri": "items", "features": TWICE}},
        "items.features.2.column=category is items.features.0 already: remove one of them, or copy the column under"
        " another name in the table",
        {"items": {"uri": "items", "features": TWICE[:2]}},
    ),
    "context that no log has": (
        {"context": [{"column": "device"}]},
        "context.0.column=device is not carried by the pairs, since logs.0.columns.context is empty: name the"
        " column there",
        {"logs": [{"uri": "log", "columns": {"context": "device"}}], "context": [{"column": "device"}]},
    ),
    "context of another name": (
        {"logs": [CARRYING], "context": [{"column": "device"}, {"column": "town"}]},
        "context.1.column=town is not carried by the pairs, since logs.0.columns.context has device, country:"
        " name the column there",
        {"logs": [CARRYING], "context": [{"column": "device"}, {"column": "country"}]},
    ),
    "a feature of the context twice": (
        {"logs": [CARRYING], "context": [{"column": "country"}, {"column": "country", "kind": "numeric"}]},
        "context.1.column=country is context.0 already: remove one of them, or copy the column under another name"
        " in the table",
        {"logs": [CARRYING], "context": [{"column": "country", "kind": "numeric"}]},
    ),
    "vectors as context": (
        {"logs": [CARRYING], "context": [{"column": "country", "kind": "vector", "length": 3}]},
        "context.0.kind=vector: a log's context holds single values; use another kind",
        {"logs": [CARRYING], "context": [{"column": "country", "kind": "text", "ngrams": 3}]},
    ),
    "context with a setting of another kind": (
        {"logs": [CARRYING], "context": [{"column": "country", "ngrams": 3}]},
        "context.0.ngrams=3 is of kind=text, and the kind is categorical: set that or leave it out",
        {"logs": [CARRYING], "context": [{"column": "country"}]},
    ),
    "two user features on one column": (
        {"users": {"uri": "users", "features": TWICE}},
        "users.features.2.column=category is users.features.0 already: remove one of them, or copy the column under"
        " another name in the table",
        {"users": {"uri": "users", "features": TWICE[1:]}},
    ),
    **{
        f"a feature with {setting} of another kind": (
            {"items": {"uri": "items", "features": [{"column": "a"}, {"column": "b", "kind": kind, setting: value}]}},
            f"items.features.1.{setting}={value} is of kind={rightful}, and the kind is {kind}: set that or leave it"
            " out",
            {
                "items": {
                    "uri": "items",
                    "features": [{"column": "b", "kind": rightful, "length": length, setting: value}],
                }
            },
        )
        for setting, value, kind, rightful, length in (
            ("num_hashes", 3, "text", "hashed", None),
            ("transform", "log", "categorical", "numeric", None),
            ("ngrams", 3, "multi", "text", None),
            ("length", 3, "numeric", "vector", 3),
        )
    },
    **{
        f"buckets for a {name} feature": (
            {"users": {"uri": "users", "features": [{"column": "a", "num_buckets": 9, **settings}]}},
            "users.features.0.num_buckets=9 is of kind=hashed, kind=text and transform=buckets, and the kind is"
            f" {settings['kind']}: leave it out",
            {"users": {"uri": "users", "features": [{"column": "a", **settings}]}},
        )
        for name, settings in BUCKETLESS.items()
    },
    "a vector of no length": (
        {"items": {"uri": "items", "features": [{"column": "cover", "kind": "vector"}]}},
        "items.features.0.length is not set: say how many numbers a vector of 'cover' has",
        {"items": {"uri": "items", "features": [{"column": "cover", "kind": "vector", "length": 3}]}},
    ),
    "heads that do not divide the state": (
        {"model": {"pooling": "transformer", "dim": 60, "history_heads": 8}},
        "model.history_heads=8 must divide model.dim=60: use 6 or 10",
        {"model": {"pooling": "transformer", "dim": 60, "history_heads": 6}},
    ),
    "the title among the displayed columns": (
        {"items": {"uri": "items", "title_column": None, "display": ["price", "title"]}},
        "items.display.1=title is a column that a release has of its own: name it in items.title_column",
        {"items": {"uri": "items", "title_column": "title", "display": ["price"]}},
    ),
    **{
        f"a displayed column named {name}": (
            {"items": {"uri": "items", "display": [name]}},
            f"items.display.0={name} is a column that a release has of its own: rename the column in the table",
            {"items": {"uri": "items", "display": [f"{name}_of_mine"]}},
        )
        for name in ("item", "train_count", "train_targets")
    },
    "items without anything to tell them apart": (
        {"model.item_id": False, "items": {"uri": "items"}},
        "model.item_id=false with no items.features leaves nothing to tell items apart: name features or set it true",
        {"items": {"uri": "items", "features": [{"column": "category"}]}},
    ),
    "a start of embeddings that items have not": (
        {
            "model.item_id": False,
            "items": {"uri": "items", "features": [{"column": "category"}]},
            "train.item_start": "spectral",
        },
        "train.item_start=spectral is of items' own embeddings, which model.item_id=false does without: leave one of"
        " them out",
        {"train.item_start": "random"},
    ),
    "a gate that measures by chance": (
        {"index.kind": "ivf_flat", "gate.num_queries": 99},
        "gate.num_queries=99 cannot tell a recall of 0.95 from chance: use at least 100",
        {"gate.num_queries": 100},
    ),
    "a graph that measures by chance": (
        {"index.kind": "hnsw", "gate.num_queries": 99},
        "gate.num_queries=99 cannot tell a recall of 0.95 from chance: use at least 100",
        {"gate.num_queries": 100},
    ),
    "product codes that do not divide a vector": (
        {"index.pq_bytes": 12, "model.dim": 64},
        "index.pq_bytes=12 must divide model.dim=64: use 8 or 16",
        {"index.pq_bytes": 16},
    ),
    "exact scores that are to be re-ranked": (
        {"index.kind": "hnsw", "index.rerank": "always"},
        "index.rerank=always is of no use with index.kind=hnsw, whose scores are exact already: leave it out, or choose"
        " one of sq8, ivf_sq8, ivf_pq",
        {"index.kind": "ivf_sq8"},
    ),
    "lists of an index that has none": (
        {"index.kind": "sq8", "index.num_lists": 10},
        "index.num_lists=10 with index.kind=sq8, which has none: leave it out",
        {"index.num_lists": None},
    ),
    "fewer replicas at most than at least": (
        {"serving.min_replicas": 3},
        "serving.min_replicas=3 is above serving.max_replicas=2: raise the second or lower the first",
        {"serving.max_replicas": 3},
    ),
    "a filter by a column that is not displayed": (
        {"serving.filters": {"columns": ["price", "colour"]}, "items": {"uri": "items", "display": ["price"]}},
        "serving.filters.columns.1=colour is no column that a release has: name it in items.display too",
        {"items": {"uri": "items", "display": ["price", "colour"]}},
    ),
    "availability without a catalogue": (
        {"serving.filters.available": "stock"},
        "serving.filters.available=stock is no column that a release has: name it in items.display too",
        {"items": {"uri": "items", "display": ["stock"]}},
    ),
    "a split that leaves nothing to train on": (
        {"pairs.split": {"kind": "time", "val_share": 0.5, "test_share": 0.5}},
        "pairs.split={'kind': 'time', 'val_share': 0.5, 'test_share': 0.5}: val_share + test_share = 1 leaves nothing"
        " to train on: keep it under 1",
        {"pairs.split": {"kind": "time", "val_share": 0.5, "test_share": 0.4}},
    ),
    **{
        f"{kind} that are all users or items": (
            {"pairs.split": {"kind": kind, "val_share": 0.5, "test_share": 0.5}},
            f"pairs.split={{'kind': '{kind}', 'val_share': 0.5, 'test_share': 0.5}}: val_share + test_share = 1 leaves"
            " nothing to train on: keep it under 1",
            {"pairs.split": {"kind": kind, "val_share": 0.5, "test_share": 0.4}},
        )
        for kind in ("cold_users", "cold_items")
    },
    "a split that leaves the last none out": (
        {"pairs.split": {"kind": "leave_last_n", "num_val": 0, "num_test": 0}},
        "pairs.split={'kind': 'leave_last_n', 'num_val': 0, 'num_test': 0}: nothing is held out with num_val=0 and"
        " num_test=0: set one of them to 1 or more",
        {"pairs.split": {"kind": "leave_last_n", "num_val": 0, "num_test": 1}},
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_work_together_is_refused_with_its_remedy(name: str) -> None:
    changes, message, _ = IMPOSSIBLE[name]
    assert refusal(changes) == message


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_the_remedy_works(name: str) -> None:
    changes, _, remedy = IMPOSSIBLE[name]
    config_file.check(tree(changes | remedy))


def test_items_and_users_may_have_a_feature_of_the_same_column() -> None:
    tables = {name: {"uri": name, "features": [{"column": "city"}]} for name in ("items", "users")}
    config_file.check(tree(tables))


def test_without_the_item_table_the_items_own_embedding_cannot_be_off() -> None:
    assert refusal({"model.item_id": False}).startswith("model.item_id=false with no items.features")


def test_few_queries_are_enough_where_nothing_is_measured() -> None:
    config_file.check(tree({"index.kind": "ivf_flat", "gate.num_queries": 1, "gate.min_index_recall": 0.0}))
    config_file.check(tree({"index.kind": "flat", "gate.num_queries": 1}))


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.integers(1, 400), st.integers(1, 40))
def test_a_batch_is_refused_when_workers_cannot_share_it_and_every_size_offered_is_taken(
    batch: int, workers: int
) -> None:
    changes = {"train.global_batch_size": batch, "train.num_workers": workers}
    if any(batch == pairs * workers for pairs in range(2, batch + 1)):
        assert config_file.check(tree(changes)).train.global_batch_size == batch
        return
    offered = [int(size) for size in re.findall(r"\d+", refusal(changes).rpartition("use ")[2])]
    assert offered
    for size in offered:
        config_file.check(tree(changes | {"train.global_batch_size": size}))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.integers(1, 400), st.integers(1, 6), st.integers(0, 3))
def test_a_batch_that_a_range_of_workers_takes_is_taken_by_every_number_of_it(
    batch: int, fewest: int, more: int
) -> None:
    def taken(workers: Any) -> bool:
        try:
            config_file.check(tree({"train.global_batch_size": batch, "train.num_workers": workers}))
        except ConfigError:
            return False
        return True

    each = [taken(workers) for workers in range(fewest, fewest + more + 1)]
    assert taken({"min": fewest, "max": fewest + more}) is all(each)


def test_a_number_of_workers_is_a_range_of_one_and_is_written_as_a_number() -> None:
    for written in (2, {"min": 2, "max": 2}):
        config = config_file.check(tree({"train.num_workers": written}))
        assert config.train.num_workers == config_module.Workers(min=2, max=2)
        assert config.model_dump(mode="json")["train"]["num_workers"] == 2
    config = config_file.check(tree({"train.global_batch_size": 12, "train.num_workers": {"min": 2, "max": 4}}))
    assert config.model_dump(mode="json")["train"]["num_workers"] == {"min": 2, "max": 4}
    assert config_file.check(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "two", [2, 4], None])
def test_workers_of_a_wrong_form_are_told_the_right_one(value: Any) -> None:
    expected = f"train.num_workers={value}: write a number of 1 or more, or a range such as {{min: 2, max: 4}}"
    assert refusal({"train.num_workers": value}) == expected


# One value past each kind of bound.
OUT_OF_BOUNDS = {
    "seed": -1,
    "workspace": "",
    "logs": [],
    "event_weights.view": 0.0,
    "pairs.min_history": -1,
    "pairs.num_buckets": 0,
    "pairs.core_rounds": -1,
    "pairs.keep_user_events": 0,
    "pairs.negative_below": 0.0,
    "pairs.max_negatives": 0,
    "pairs.repeat_window_s": 10**10 + 1,
    "pairs.history": "after",
    "model.dropout": 1.0,
    "model.id_dropout": 1.1,
    "model.hidden": [64, 0],
    "loss.temperature": 0.0,
    "loss.log_q": True,
    "loss.terms": [],
    "loss.negatives.uniform": -1,
    "loss.sketch.rate": 0.0,
    "train.epochs": "three",
    "train.learning_rate": 0,
    "train.num_workers": 0,
    "train.use_gpu": "maybe",
    "evaluation.ks": [10, 0],
    "gate.min_recall": 1.5,
    "serving.port": 65536,
    "serving.poll_s": 0,
    "serving.guard.requests_per_s": 0.0,
    "serving.guard.max_history": 10_001,
    "serving.sessions.ttl_s": 0.0,
    "serving.filters.max_size": 0,
    "ray.object_store_bytes": 1,
}


@pytest.mark.parametrize("path", OUT_OF_BOUNDS)
def test_a_value_out_of_bounds_is_named_with_its_field(path: str) -> None:
    message = refusal({path: OUT_OF_BOUNDS[path]})
    assert "\n" not in message
    assert re.match(rf"{path}(\.1)?=", message), message


@pytest.mark.parametrize(("events", "window_s"), [(0, 1), (1, 0), (1, 10**10 + 1)])
def test_a_rate_has_events_and_a_window(events: int, window_s: int) -> None:
    message = refusal({"pairs.max_user_rate": {"events": events, "window_s": window_s}})
    assert re.match(r"pairs\.max_user_rate\.(events|window_s)=(0|10000000001): ", message), message


@pytest.mark.parametrize("section", sorted(SECTIONS, key=str))
def test_every_section_is_closed_and_frozen(section: type[Section]) -> None:
    assert section.model_config["extra"] == "forbid"
    assert section.model_config["frozen"] is True


def test_a_config_cannot_be_changed() -> None:
    config = config_file.check(SMALLEST)
    with pytest.raises(ValidationError, match="frozen"):
        config.train.epochs = 3


def test_the_json_schema_lists_every_section_and_field() -> None:
    schema = Config.model_json_schema()
    described = schema["$defs"] | {"Config": schema}
    # What answers.diversity may be is what a request may ask, whose contract is the service's.
    assert set(described) - {"Diversity"} == {section.__name__ for section in SECTIONS} - {"Section", "TableSource"}
    for section in SECTIONS:
        if section not in (Section, TableSource):
            assert set(described[section.__name__]["properties"]) == set(section.model_fields)
            assert described[section.__name__]["additionalProperties"] is False
    assert schema["required"] == ["workspace", "logs"]


def test_the_json_schema_carries_the_words_of_the_fields() -> None:
    schema = Config.model_json_schema()
    assert schema["properties"]["workspace"]["description"].startswith("Folder or ``s3://`` prefix")
    assert schema["$defs"]["ServingConfig"]["properties"]["port"]["description"] == "0 takes a free port."

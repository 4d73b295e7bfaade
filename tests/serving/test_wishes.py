"""What a query may wish besides near items: filters, diversity, reasons, and answers where little is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raycl.config import ServingConfig
from raycl.config_serving import FilterConfig
from raycl.data.features import Encoder, Encoders
from raycl.errors import InputError
from raycl.index.selection import Mask, Selection
from raycl.index.selective import SelectiveIndex
from raycl.serving.api import Answer, Query
from raycl.serving.retriever import Retriever
from raycl.serving.sessions import Fresh
from tests.index.builders import of_plan, plan_of, unit_vectors
from tests.serving import builders
from tests.serving.builders import IDS, Ids, Vectors, retriever

KINDS = ["tea", "tea", "rope", "rope", "lamp", None]
TEA = {"op": "eq", "column": "kind", "value": "tea"}


def table(counts: list[int] | None = None) -> pa.Table:
    """Items 101, 102, 103, 104, 107 and 110, whose prices are 0, 10, ... 50."""
    shown = builders.catalogue().append_column("kind", pa.array(KINDS))
    return shown.set_column(3, "train_count", pa.array(counts or [5, 1, 9, 1, 7, 0]))


def ask(body: dict[str, Any], whole: Retriever | None = None, fresh: Sequence[int | str] = ()) -> Answer:
    used = whole or retriever(table=table())
    (answer,) = used.answer([used.check(Query.model_validate(body), [Fresh(item, 0.0) for item in fresh])])
    return answer


def ids(answer: Answer) -> list[int | str]:
    return [item.item_id for item in answer.items]


def test_a_filter_keeps_its_items_and_their_order() -> None:
    whole = ids(ask({"history": [103], "k": 6, "exclude_history": False}))
    kept = ask({"history": [103], "k": 6, "exclude_history": False, "filter": {"op": "not", "of": TEA}})
    assert ids(kept) == [one for one in whole if one not in (101, 102)]
    assert (kept.short, kept.matched) == (True, 4)


def test_a_short_answer_says_how_many_items_matched() -> None:
    answer = ask({"history": [101], "exclude": [110], "k": 3, "filter": TEA})
    assert (ids(answer), answer.short, answer.matched) == ([102], True, 1)
    answer = ask({"history": [101], "exclude": [110], "k": 3})
    assert (len(answer.items), answer.short, answer.matched) == (3, False, 4)
    answer = ask({"history": [101], "filter": {"op": "items", "ids": ["999"]}})
    assert (ids(answer), answer.short, answer.matched) == ([], True, 0)


def test_queries_of_different_filters_in_one_batch_answer_as_alone() -> None:
    filters = [None, TEA, {"op": "range", "column": "price", "min": 20}, TEA, {"op": "items", "ids": [104]}]
    bodies = [{"history": [104, 101], "k": k, "filter": one} for k, one in enumerate(filters, 1)]
    whole = retriever(table=table())
    assert whole.retrieve([Query.model_validate(body) for body in bodies]) == [ask(body) for body in bodies]


def test_the_outcome_of_a_filter_is_remembered_and_one_and_true_are_two_filters() -> None:
    whole = retriever(table=table())
    asked = [Query.model_validate({"filter": {"op": "eq", "column": "price", "value": value}}) for value in (10, 10.0)]
    first, again = (whole.check(asked[0]).among for _ in range(2))
    assert first is again
    assert whole.check(asked[1]).among is not first
    with pytest.raises(InputError, match="not a number"):
        whole.check(Query.model_validate({"filter": {"op": "eq", "column": "price", "value": True}}))
    forgetful = retriever(table=table(), config=ServingConfig(filters=FilterConfig(num_cached=0)))
    assert forgetful.check(asked[0]).among is not forgetful.check(asked[0]).among


def test_a_filter_that_is_too_large_is_refused() -> None:
    small = retriever(table=table(), config=ServingConfig(filters=FilterConfig(max_size=3)))
    wanted = {"op": "in", "column": "kind", "values": ["a", "b", "c"]}
    with pytest.raises(InputError, match=r"4 nodes and values are above serving\.filters\.max_size=3"):
        ask({"filter": wanted}, small)


def test_only_named_columns_are_filtered_by() -> None:
    closed = retriever(table=table(), config=ServingConfig(filters=FilterConfig(columns=("price",))))
    with pytest.raises(InputError, match="'kind' cannot be filtered by; these can: price"):
        ask({"filter": TEA}, closed)


def test_caps_reach_beyond_the_first_candidates() -> None:
    """Of one candidate the cap would leave one item; there are items of two other kinds, and one of none."""
    wish = {"max_per": {"kind": 1}, "candidates": 1}
    answer = ask({"history": [101, 102], "k": 4, "exclude_history": False, "diversity": wish})
    kinds = [item.display["kind"] for item in answer.items]
    assert (len(kinds), len(set(kinds)), answer.short) == (4, 4, False)
    answer = ask({"history": [101, 102], "k": 6, "exclude_history": False, "diversity": wish})
    assert (len(answer.items), answer.short, answer.matched) == (4, True, 6)


def test_a_cap_on_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"diversity\.max_per\.size: column='size' cannot be filtered by"):
        ask({"history": [101], "diversity": {"max_per": {"size": 1}}})


def test_a_popularity_discount_prefers_the_tail_and_leaves_scores_as_they_are() -> None:
    body: dict[str, Any] = {"user": {"age": 30}, "k": 6}
    plain, tail = ask(body), ask({**body, "diversity": {"popularity_discount": 5.0}})
    assert ids(tail)[0] == 110
    assert {item.item_id: item.score for item in tail.items} == {item.item_id: item.score for item in plain.items}


def test_exploration_is_repeated_by_its_seed_and_marked() -> None:
    body: dict[str, Any] = {"user": {"age": 30}, "k": 3, "diversity": {"explore": 0.5, "seed": 3}}
    first = ask(body)
    assert first == ask(body)
    assert sum(item.explored for item in first.items) == 2
    assert not first.items[0].explored
    others = [ask({**body, "diversity": {"explore": 0.5, "seed": seed}}) for seed in range(20)]
    assert len({tuple(ids(one)) for one in others}) > 3


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_diversity_that_runs_out_of_time_says_so_and_answers_by_score(method: str) -> None:
    seconds = iter(range(10**6))
    slow = retriever(table=table(), ticks=lambda: float(next(seconds)))
    body: dict[str, Any] = {"history": [101], "k": 3}
    answer = ask({**body, "diversity": {"method": method}}, slow)
    assert answer.degraded == ["diversity"]
    assert ids(answer) == ids(ask(body))
    in_time = retriever(table=table(), ticks=lambda: 0.0)
    assert ask({**body, "diversity": {"method": method}}, in_time).degraded == []


@pytest.mark.parametrize("history", [[103], [101, 104, 103], [104, 999, 101], []])
def test_reasons_add_up_to_the_score_less_that_of_the_empty_history(history: list[int]) -> None:
    user = {"age": 30}
    answer = ask({"history": history, "user": user, "k": 6, "explain": True, "exclude_history": False})
    empty = ask({"user": user, "k": 6})
    base = {item.item_id: item.score for item in empty.items}
    for item in answer.items:
        assert item.reasons is not None
        assert item.reasons.empty_history == pytest.approx(base[item.item_id], abs=1e-6)
        values = [event.value for event in item.reasons.events]
        assert values == sorted(values, reverse=True)
        assert item.reasons.empty_history + sum(values) == pytest.approx(item.score, abs=1e-6)
        assert sorted(event.item_id for event in item.reasons.events) == sorted(set(history) - {999})


def test_reasons_are_of_events_that_keep_their_ages_and_of_the_request() -> None:
    """The encoder's numbers are larger for a younger event, and depend on what is said of the request."""

    def aged(history: builders.Histories, features: pa.Table, age_s: Vectors, context: pa.Table) -> Vectors:
        vectors = builders.encode(history, features, age_s, context) + (context["hour"].to_numpy() / 50)[:, None]
        for vector, rows, ages in zip(vectors, history, age_s, strict=True):
            vector[rows[rows >= 0]] += 1 / ages[rows >= 0]
        return np.asarray(vectors, dtype=np.float32)

    hour = Encoders((Encoder("hour", "numeric", "", 0),))
    whole = retriever(encode=aged, context=hour, table=table())
    body = {"history": [101, 104, 103], "times": [9, 5, 7], "time": 10, "context": {"hour": 7}, "k": 6}
    body |= {"explain": True, "exclude_history": False}
    for item in ask(body, whole).items:
        assert item.reasons is not None
        values = {event.item_id: event.value for event in item.reasons.events}
        assert item.reasons.empty_history + sum(values.values()) == pytest.approx(item.score, abs=1e-6)
        if item.item_id == 104:
            assert values[104] == pytest.approx((0.5 + 0.25) / 2 + 1 / 5, abs=1e-6), "newest in half of all orders"
            assert item.reasons.empty_history == pytest.approx(7 / 50, abs=0.02)


def test_reasons_of_distances_add_up() -> None:
    vectors = unit_vectors(6, 6)
    shards = of_plan(plan_of("flat", 6, 6, metric="l2"), vectors, np.arange(6) % 2, 2)
    whole = Retriever("r1", table(), builders.encoders(), 3, builders.encode, SelectiveIndex(shards, 6))
    for item in ask({"history": [101, 104], "k": 6, "exclude_history": False, "explain": True}, whole).items:
        assert item.reasons is not None
        values = [event.value for event in item.reasons.events]
        assert item.score <= 0
        assert item.reasons.empty_history + sum(values) == pytest.approx(item.score, abs=1e-6)


def test_the_event_that_is_the_item_carries_it() -> None:
    answer = ask({"history": [101, 104, 103], "k": 1, "explain": True, "exclude_history": False})
    reasons = answer.items[0].reasons
    assert reasons is not None
    assert (answer.items[0].item_id, reasons.events[0].item_id) == (103, 103)


def test_only_events_that_the_tower_reads_are_reasons() -> None:
    (item,) = ask({"history": [101, 102, 103, 104, 107], "k": 1, "explain": True}).items
    assert item.reasons is not None
    assert sorted(event.item_id for event in item.reasons.events) == [103, 104, 107]


def test_a_user_of_whom_nothing_is_known_is_given_what_is_popular() -> None:
    answer = ask({"k": 6})
    assert answer.basis == "popularity"
    assert ids(answer) == [103, 107, 101, 102, 104, 110]
    assert [item.score for item in answer.items] == pytest.approx([1.0, 7 / 9, 5 / 9, 1 / 9, 1 / 9, 0.0])
    filtered = ask({"k": 2, "filter": {"op": "range", "column": "price", "min": 30}, "exclude": [107], "explain": True})
    assert (ids(filtered), filtered.matched, filtered.short) == ([104, 110], 2, False)
    assert [item.reasons for item in filtered.items] == [None, None]
    assert ask({"history": ["x", 999], "user": {"age": None}}).basis == "popularity"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_is_answered_by_popularity(number: float) -> None:
    def broken(history: builders.Histories, features: pa.Table, age_s: Vectors, context: pa.Table) -> Vectors:
        vectors = builders.encode(history, features, age_s, context)
        vectors[0, 2] = number
        return vectors

    whole = retriever(table=table(), encode=broken)
    bad, good = whole.retrieve([Query(history=[101], k=2, explain=True), Query(history=[104], k=2)])
    assert (bad.basis, ids(bad), good.basis) == ("popularity", [103, 107], "history")


def test_a_catalogue_without_training_events_is_popular_in_its_order() -> None:
    answer = ask({"k": 2}, retriever(table=table([0] * 6)))
    assert [(item.item_id, item.score) for item in answer.items] == [(101, 0.0), (102, 0.0)]


def test_the_popular_are_gone_through_until_enough_pass() -> None:
    """Of 3,000 items those pass that are the least popular, and the first of them are left out."""
    rows = 3_000
    shown = pa.table(
        {"item": np.arange(rows), "train_count": rows - np.arange(rows), "kind": ["a"] * 2_990 + ["b"] * 10}
    )

    class Every(builders.PlainIndex):
        def selection(self, kept: Mask) -> Selection:
            return Selection(kept)

    whole = Retriever("r1", shown, Encoders(), 3, builders.encode, Every())
    wanted = {"k": 5, "exclude": [2_990, 2_992], "filter": {"op": "eq", "column": "kind", "value": "b"}}
    answer, none = whole.retrieve([Query.model_validate(wanted), Query(k=3, filter=None, exclude=[0, 1])])
    assert ids(answer) == [2_991, 2_993, 2_994, 2_995, 2_996]
    assert ids(none) == [2, 3, 4]


def test_a_user_with_features_and_no_event_is_answered_by_the_tower() -> None:
    assert ask({"user": {"age": 30}}).basis == "features"
    assert ask({"user": {"age": 30}, "history": [101]}).basis == "history"


def test_an_unknown_item_stands_for_the_likest_known_one() -> None:
    """Two are of its kind; the price tells them apart."""
    body: dict[str, Any] = {"history": ["new"], "k": 6, "exclude_history": False}
    told = ask({**body, "new_items": {"new": {"kind": "rope", "price": 29, "size": 3}}})
    assert (told.items[0].item_id, told.basis, told.unknown_history) == (104, "history", 0)
    assert ask(body).unknown_history == 1
    met = ask({"history": ["new"], "k": 6, "new_items": {"new": {"kind": "rope", "price": 29}}})
    assert 104 in ids(met), "the item that stands for another was not met itself"
    untold = ask({**body, "new_items": {"new": {"size": 3}, "other": {"kind": "rope"}}})
    assert (untold.basis, untold.unknown_history) == ("popularity", 1)


@pytest.mark.parametrize("value", [None, [], {}, "x" * 99, 1e300, float("inf"), True, ["rope", None], -5])
def test_features_of_an_unknown_item_may_be_anything(value: Any) -> None:
    ask({"history": ["new"], "new_items": {"new": {"kind": value, "price": value}}})


def test_fresh_events_follow_the_history_once() -> None:
    seen: list[list[int]] = []

    def listen(history: builders.Histories, features: pa.Table, age_s: Vectors, context: pa.Table) -> Vectors:
        seen.extend(history.tolist())
        return builders.encode(history, features, age_s, context)

    answer = ask({"history": [101, 102]}, retriever(encode=listen), [103, "102", 104])
    assert seen == [[3, 2, 1]]
    assert not {103, 104} & set(ids(answer))


def similar(item: int | str, features: dict[str, Any] | None = None, **query: Any) -> Answer:
    whole = retriever(table=table())
    (answer,) = whole.answer([whole.check_similar(item, features or {}, Query.model_validate(query))])
    return answer


def test_similar_items_are_the_nearest_to_its_vector_without_itself() -> None:
    def near(vectors: Vectors, k: Ids) -> tuple[Ids, Any]:
        assert vectors.tolist() == [[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]]
        return builders.search((vectors + np.arange(6) / 100).astype(np.float32), k)

    whole = retriever(table=table(), search=near)
    (answer,) = whole.answer([whole.check_similar("103", {}, Query(k=3))])
    assert (ids(answer), answer.basis) == ([110, 107, 104], "item")


def test_items_like_an_unknown_one_are_those_like_its_features_or_popular() -> None:
    by_kind = similar("new", {"kind": "rope"}, k=6)
    assert by_kind.basis == "features"
    assert set(ids(by_kind)[:2]) == {103, 104}
    assert (similar("new", {"size": 1}).basis, ids(similar("new"))[0]) == ("popularity", 103)


def test_a_release_is_warmed_by_an_answer_of_each_basis() -> None:
    seen: list[list[int]] = []

    def listen(history: builders.Histories, features: pa.Table, age_s: Vectors, context: pa.Table) -> Vectors:
        seen.extend(history.tolist())
        return builders.encode(history, features, age_s, context)

    retriever(encode=listen, table=table()).warm()
    assert seen == [[4, 2, -1]]


def test_phases_are_timed() -> None:
    whole = retriever(table=table())
    told: dict[str, float] = {}
    whole.answer([whole.check(Query(history=[IDS[0]]))], told.__setitem__)
    assert list(told) == ["encode", "search", "rerank", "explain", "describe"]
    assert all(seconds >= 0 for seconds in told.values())

"""Queries to answers, with an encoder and a search in plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.data.features import Encoder, Encoders
from raycl.data.id_map import IdMap
from raycl.errors import InputError
from raycl.index.nearest import exact
from raycl.index.search import ShardedIndex
from raycl.index.selective import SelectiveIndex
from raycl.serving import shown
from raycl.serving.api import Answer, Query
from raycl.serving.retriever import Retriever
from tests.index.builders import clustered, sharded
from tests.serving import builders
from tests.serving.builders import IDS, Ids, Vectors, retriever, seen_histories

USERS: list[dict[str, Any]] = [
    {},
    {"country": "pe"},
    {"country": "atlantis", "age": 33},
    {"tags": "tea|rope"},
    {"tags": ["tea", "rope"]},
    {"tags": ["lamp"], "bio": "Likes TEA"},
    {"tags": None, "age": None, "country": None, "bio": None},
]


def ids(answer: Answer) -> list[int | str]:
    return [item.item_id for item in answer.items]


def ask(query: Query) -> Answer:
    (answer,) = retriever().retrieve([query])
    return answer


def test_an_answer_is_described_by_the_catalogue() -> None:
    answer = ask(Query(history=[104], k=1, exclude_history=False))
    assert answer.release == "r1"
    (item,) = answer.items
    assert (item.item_id, item.title, item.display) == (104, "Item 104", {"price": 30.0})
    assert item.score == pytest.approx(0.5, abs=0.02)
    assert shown.rows(answer) == [{"item_id": 104, "title": "Item 104", "score": item.score, "price": 30.0}]


def test_a_catalogue_without_titles_answers_without() -> None:
    plain = builders.catalogue().select(["item", "train_count"])
    bare = Retriever("r1", plain, builders.encoders(), 3, builders.encode, builders.PlainIndex())
    (item,) = bare.retrieve([Query(k=1)])[0].items
    assert item.title is None
    assert item.display == {}


def test_the_best_come_first_and_scores_fall() -> None:
    answer = ask(Query(history=[101, 107, 103], exclude_history=False))
    assert ids(answer)[:3] == [103, 107, 101]
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)


def test_the_history_is_left_out_unless_asked_for() -> None:
    met: list[int | str] = [101, 107, 103]
    assert sorted(ids(ask(Query(history=met)))) == [102, 104, 110]
    assert sorted(ids(ask(Query(history=met, exclude_history=False)))) == IDS


def test_older_events_than_the_tower_reads_are_left_out_too() -> None:
    met: list[int | str] = [102, 101, 107, 103, 104]
    assert len(met) > builders.MAX_HISTORY
    assert ids(ask(Query(history=met))) == [110]


def test_other_items_are_left_out_beside_the_history() -> None:
    assert sorted(ids(ask(Query(history=[101], exclude=[110, "104", 999])))) == [102, 103, 107]
    assert 101 in ids(ask(Query(history=[101], exclude=[110], exclude_history=False)))


def test_what_is_left_out_costs_the_answer_no_place() -> None:
    """The three best are met, and still two items come."""
    answer = ask(Query(history=[101, 107, 103], k=2))
    assert len(answer.items) == 2
    assert not answer.short


def test_a_repeated_event_is_left_out_once() -> None:
    assert sorted(ids(ask(Query(history=[101, 101, 101], k=5)))) == IDS[1:]


def test_the_encoder_reads_the_newest_first_and_no_more_than_it_has_places() -> None:
    assert seen_histories(Query(history=[101, 102])) == [[1, 0, -1]]
    assert seen_histories(Query(history=[101, 102, 103, 104, 107])) == [[4, 3, 2]]
    assert seen_histories(Query(user={"age": 30})) == [[-1, -1, -1]]


def test_unknown_ids_are_counted_and_take_no_place() -> None:
    query = Query(history=[101, 999, "tea", 102, 2**70, "", 104, -1])
    assert seen_histories(query) == [[3, 1, 0]]
    answer = ask(query)
    assert answer.unknown_history == 5
    assert sorted(ids(answer)) == [103, 107, 110]


def test_integers_may_come_as_text() -> None:
    assert ask(Query(history=["101", "103"], exclude=["107"])) == ask(Query(history=[101, 103], exclude=[107]))


def test_text_ids_may_come_as_integers_and_keep_their_zeros() -> None:
    texts = retriever(ids=["007", "101", "7", "a", "b", "c"])
    (answer,) = texts.retrieve([Query(history=[7, 101], k=6)])
    assert answer.unknown_history == 0
    assert set(ids(answer)) == {"007", "a", "b", "c"}
    (answer,) = texts.retrieve([Query.model_validate({"history": ["007"], "k": 6})])
    assert "007" not in ids(answer)
    assert "7" in ids(answer)


@given(
    known=st.sets(st.text(max_size=3), min_size=1, max_size=12),
    asked=st.lists(st.one_of(st.text(max_size=3), st.integers(-3, 3)), max_size=12),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_text_ids_of_any_script_are_found_where_the_map_has_them(known: set[str], asked: list[int | str]) -> None:
    ordered = pa.array(sorted(known, key=str.encode), pa.large_string())
    table = pa.table({"item": ordered, "train_count": [1] * len(ordered)})
    texts = Retriever("r1", table, builders.encoders(), 3, builders.encode, builders.PlainIndex())
    expected = IdMap(ordered).rows(pa.array([str(one) for one in asked], pa.large_string()))
    assert texts.catalogue.rows(asked).tolist() == expected.tolist()


def test_an_answer_is_short_where_the_catalogue_ends() -> None:
    assert not ask(Query(k=6)).short
    short = ask(Query(history=[101], k=6))
    assert (len(short.items), short.short) == (5, True)
    nothing = ask(Query(exclude=list(IDS)))
    assert (nothing.items, nothing.short) == ([], True)


def test_no_more_neighbours_are_no_items() -> None:
    def few(vectors: Vectors, k: Ids) -> tuple[Ids, npt.NDArray[np.float32]]:
        rows, scores = builders.search(vectors, k)
        rows[:, 2:], scores[:, 2:] = -1, -np.inf
        return rows, scores

    (answer,) = retriever(search=few).retrieve([Query(k=4, user={"country": "pe"})])
    assert (len(answer.items), answer.short) == (2, True)


def test_a_search_is_told_what_each_query_wants() -> None:
    """Its items and what is left out of them, and never more than there are."""
    told: list[list[int]] = []

    def listen(vectors: Vectors, k: Ids) -> tuple[Ids, npt.NDArray[np.float32]]:
        told.append(k.tolist())
        return builders.search(vectors, k)

    asked = [
        Query(k=1, history=[999, 101], exclude_history=False),
        Query(k=2, history=[101, 102], exclude=[110, 102]),
        Query(k=2, history=[101, 102], exclude_history=False),
        Query(k=500, user={"age": 30}),
    ]
    retriever(search=listen).retrieve(asked)
    assert told == [[1, 5, 2, 6]]


def over_lists(index: ShardedIndex) -> Retriever:
    """A retriever whose users are vectors of three numbers, named in their features."""
    rows = len(index)
    features = Encoders(tuple(Encoder(name, "numeric", "", 0) for name in ("x", "y", "z")))
    table = pa.table({"item": pa.array(np.arange(rows)), "train_count": pa.array(np.ones(rows, np.int64))})

    def read(history: npt.NDArray[np.int32], described: pa.Table, age_s: Vectors, context: pa.Table) -> Vectors:
        return np.stack([described[name].to_numpy() for name in ("x", "y", "z")], axis=1).astype(np.float32)

    return Retriever("r1", table, features, 3, read, SelectiveIndex(index, rows))


def test_answers_from_inverted_lists_are_whole_however_much_is_left_out() -> None:
    """One list of 40 is the depth that was chosen; all lists together are the truth."""
    vectors = clustered(3_000, 3, 40)
    index = sharded(vectors, np.arange(3_000) % 2, 2, 40, 1)
    best = exact(vectors, vectors[:6], 3_000)[0]
    asked = []
    for row, (k, num_left_out) in enumerate([(10, 0), (500, 0), (10, 1_500), (500, 2_400), (600, 2_400), (601, 2_400)]):
        user = dict(zip(("x", "y", "z"), vectors[row].tolist(), strict=True))
        asked.append(Query(k=k, user=user, exclude=best[row, :num_left_out].tolist()))
    answers = over_lists(index).retrieve(asked)
    for query, answer, order in zip(asked, answers, best, strict=True):
        expected = order[~np.isin(order, query.exclude)][: query.k]
        assert len(answer.items) == len(expected)
        assert answer.short is (query.k == 601)
        assert np.isin(expected, ids(answer)).mean() > 0.5
        assert not set(ids(answer)) & set(query.exclude)
    assert ids(answers[5]) == best[5, 2_400:].tolist()


@st.composite
def queries(draw: st.DrawFn) -> Query:
    known: list[int | str] = [*IDS, "101", "110", 999, "tea"]
    items = st.lists(st.sampled_from(known), max_size=7)
    return Query(
        history=draw(items),
        user=draw(st.sampled_from(USERS)),
        k=draw(st.integers(1, 8)),
        exclude_history=draw(st.booleans()),
        exclude=draw(items),
    )


@given(st.lists(queries(), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_batch_answers_as_single_calls_do(asked: list[Query]) -> None:
    whole = retriever()
    for query in asked:
        whole.check(query)
    assert whole.retrieve(asked) == [ask(query) for query in asked]


@given(queries())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_an_answer_is_the_sorted_catalogue_without_what_is_left_out(query: Query) -> None:
    whole = ask(Query(history=query.history, user=query.user, exclude_history=False, k=len(IDS)))
    met = {int(one) for one in query.history if str(one).isdigit()} if query.exclude_history else set()
    left_out = met | {int(one) for one in query.exclude if str(one).isdigit()}
    expected = [item for item in whole.items if item.item_id not in left_out][: query.k]
    answer = ask(query)
    assert answer.items == expected
    assert answer.short == (len(expected) < query.k)
    assert answer.unknown_history == sum(str(one) in ("999", "tea") for one in query.history)


@pytest.mark.parametrize("user", USERS)
def test_known_features_pass_whatever_their_values(user: dict[str, Any]) -> None:
    retriever().check(Query(user=user))


def test_a_query_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``check`` made of the user is what is answered from."""
    whole, asked = retriever(), [Query(user=user) for user in USERS]
    expected = whole.retrieve(asked)
    checked = [whole.check(query) for query in asked]

    def again(*_: object) -> pa.Table:
        pytest.fail("a user is encoded twice")

    monkeypatch.setattr(Encoders, "encode_rows", again)
    assert whole.answer(checked) == expected


def test_a_list_and_a_separated_text_say_the_same() -> None:
    assert ask(Query(user={"tags": "tea|rope"})) == ask(Query(user={"tags": ["tea", "rope"]}))
    assert ask(Query(user={"tags": "tea|rope"})) != ask(Query(user={"tags": "tea"}))


def test_an_unknown_feature_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"user\.city='lima': .* no such feature; it knows country, tags, age, bio"):
        retriever().check(Query(user={"country": "pe", "city": "lima"}))


def test_ages_come_in_the_places_of_their_events() -> None:
    """Of an item that the release does not know neither event nor age is told, and a time may be unknown."""
    seen: list[list[float]] = []

    def listen(history: npt.NDArray[np.int32], features: pa.Table, age_s: Vectors, context: pa.Table) -> Vectors:
        seen.extend(age_s.tolist())
        return builders.encode(history, features, age_s, context)

    clocked = retriever(encode=listen, clock=lambda: 1_000.0)
    clocked.retrieve(
        [
            Query(history=[101, 999, 102, 103], times=[100, 200, None, 900.5]),
            Query(history=[101, 999, 102, 103], times=[100, 200, 300, 400], time=500),
            Query(history=[101, 102, 103, 104, 107], times=[1, 2, 3, 4, 5]),
            Query(history=[101]),
            Query(history=[101], time=500),
        ]
    )
    unknown = math.nan
    assert np.array(seen) == pytest.approx(
        np.array(
            [
                [99.5, unknown, 900],
                [100, 200, 400],
                [995, 996, 997],
                [unknown, unknown, unknown],
                [unknown, unknown, unknown],
            ]
        ),
        nan_ok=True,
    )


def test_times_of_other_events_than_those_of_the_history_are_refused() -> None:
    with pytest.raises(InputError, match="times has 1 values and history 2: give the time of each event, null where"):
        retriever().check(Query(history=[101, 102], times=[5.0]))


def test_context_is_encoded_and_checked_as_the_user_is() -> None:
    seen: list[dict[str, Any]] = []

    def listen(history: npt.NDArray[np.int32], features: pa.Table, age_s: Vectors, context: pa.Table) -> Vectors:
        seen.extend(context.to_pylist())
        return builders.encode(history, features, age_s, context)

    requests = Encoders((Encoder("device", "categorical", "", 0, ("phone", "desk")), Encoder("hour", "numeric", "", 0)))
    told = retriever(encode=listen, context=requests)
    told.retrieve(
        [Query(context={"device": "desk", "hour": 3}), Query(history=[101]), Query(context={"device": "car"})]
    )
    nothing = {"device": [1], "hour": None}
    assert seen == [{"device": [3], "hour": 3.0}, nothing, nothing]
    with pytest.raises(InputError, match=r"context\.city='lima': .* no such feature; it knows device, hour"):
        told.check(Query(context={"city": "lima"}))
    with pytest.raises(InputError, match=r"context\.hour: 'late' is not a numeric value"):
        told.check(Query(context={"hour": "late"}))
    with pytest.raises(InputError, match=r"context\.hour=3: .* it knows none"):
        retriever().check(Query(context={"hour": 3}))


def test_a_release_without_user_features_says_so() -> None:
    bare = Retriever("r1", builders.catalogue(), Encoders(), 3, builders.encode, builders.PlainIndex())
    bare.check(Query())
    with pytest.raises(InputError, match=r"user\.age=3: .*it knows none"):
        bare.check(Query(user={"age": 3}))


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("age", "old", "numeric"),
        ("age", [30], "numeric"),
        ("age", {"years": 30}, "numeric"),
        ("age", 10**400, "numeric"),
        ("country", ["pe"], "categorical"),
        ("country", {"name": "pe"}, "categorical"),
        ("country", 10**30, "categorical"),
        ("tags", [{"name": "tea"}], "multi"),
        ("bio", ["likes", "tea"], "text"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_by_name(name: str, value: Any, kind: str) -> None:
    with pytest.raises(InputError, match=rf"user\.{name}: .* is not a {kind} value"):
        retriever().check(Query(user={name: value}))


def test_the_users_of_a_batch_are_encoded_together_and_one_that_cannot_be_is_told_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, calls = retriever(), []
    encode_rows = Encoders.encode_rows

    def listen(encoders: Encoders, rows: Any, *rest: Any) -> pa.Table:
        calls.append(len(rows))
        return encode_rows(encoders, rows, *rest)

    monkeypatch.setattr(Encoders, "encode_rows", listen)
    good = whole.check_all([(Query(user=user), ()) for user in USERS])
    assert calls == [len(USERS) - 1], "nothing is known of the first"
    alone = [whole.check(Query(user=user)) for user in USERS]
    assert [one.features.to_pylist() for one in good if not isinstance(one, InputError)] == [
        one.features.to_pylist() for one in alone
    ]
    bad = {"age": "old"}
    found = whole.check_all([(Query(user=user), ()) for user in (USERS[1], bad, USERS[2], {"city": "lima"})])
    assert [isinstance(one, InputError) for one in found] == [False, True, False, True]
    assert "user.age: 'old'" in str(found[1])
    assert "user.city='lima'" in str(found[3])

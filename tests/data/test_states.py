"""States before held-out targets, beside the pairs that the reader makes of the same targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raycl.config import PairRules
from raycl.data import reader, states
from raycl.data.packed import Sequences
from raycl.data.states import States
from tests.data.builders import part_table
from tests.data.reference import Packed

RULES = PairRules.model_validate({"max_history": 3, "split": {"kind": "leave_last_n", "num_test": 2}})
ROWS = [
    Packed(1, 0, 2, (5, 6, 7, 8), (1.0,) * 4, (1_000, 4_000, 9_500, 9_600), (("a",), ("b",), ("c",), (None,))),
    Packed(2, -1, 4, (1, 2, 3, 4, 5), (1.0,) * 5, (0, 10, 20, 20, 20), (("a",), ("a",), ("a",), ("a",), ("d",))),
    Packed(3, 1, 0, (9,), (1.0,), (77_000,), (("e",),)),
]


def sequences(rows: list[Packed] = ROWS) -> Sequences:
    return Sequences.from_table(part_table(rows, "test", context={"device": pa.large_string()}), "test")


def test_a_state_is_what_the_reader_makes_of_the_first_target() -> None:
    packed = sequences()
    found = states.before_targets(packed, RULES, "test")
    batch = reader.batch(packed, packed.spans("test", RULES).first, RULES, with_ages=True)
    assert found.history.tolist() == batch.history.tolist() == [[6, 5, -1], [2, 1, -1], [-1, -1, -1]]
    assert found.user_row.tolist() == batch.user_row.tolist() == [0, -1, 1]
    assert found.context["device"].to_pylist() == batch.context["device"].to_pylist() == ["c", "d", "e"]
    assert found.age_s is not None
    assert batch.history_age_s is not None
    known = found.history >= 0
    assert found.age_s[known].tolist() == pytest.approx(batch.history_age_s[known].tolist())
    assert found.age_s[known].tolist() == pytest.approx([5.5, 8.5, 0.01, 0.02])


def test_no_age_is_known_where_events_have_no_order() -> None:
    rules = PairRules.model_validate({"max_history": 3, "history": "others", "split": {"kind": "column"}})
    assert states.before_targets(sequences(), rules, "test").age_s is None


def test_later_targets_of_cold_items_are_asked_with_training_alone() -> None:
    rules = PairRules.model_validate({"max_history": 3, "split": {"kind": "cold_items"}})
    found = states.before_targets(sequences(), rules, "test")
    assert found.history.tolist() == sequences().states(rules, "test").tolist()
    assert found.age_s is not None
    assert (found.age_s[found.history >= 0] > 0).all()


def test_states_are_taken_and_put_together_by_rows() -> None:
    whole = states.before_targets(sequences(), RULES, "test")
    parts = [whole.take(np.array([2, 0])), whole.take(np.array([1])), whole.take(np.zeros(0, dtype=np.int64))]
    again = States.concat(parts).take(np.array([1, 2, 0]))

    def plain(one: States) -> list[Any]:
        assert one.age_s is not None
        return [one.history.tolist(), one.user_row.tolist(), one.age_s.tolist(), one.context["device"].to_pylist()]

    assert plain(again) == plain(whole)
    assert len(again) == 3


def test_nobody_is_asked_for_where_nobody_has_a_target() -> None:
    assert len(states.before_targets(sequences([]), RULES, "test")) == 0

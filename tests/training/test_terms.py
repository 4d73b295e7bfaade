"""From a term to its loss: what each of them is given."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.training import terms

histories = st.lists(st.lists(st.integers(-1, 4), min_size=3, max_size=3), min_size=1, max_size=6)


@settings(deadline=None, max_examples=80, derandomize=True)
@given(histories, st.lists(st.integers(0, 5), min_size=1, max_size=7))
def test_an_item_is_found_in_the_histories_that_hold_it(history: list[list[int]], items: list[int]) -> None:
    found = terms.in_history(torch.tensor(history), torch.tensor(items))
    assert found.tolist() == [[item in row for item in items] for row in history]


@settings(deadline=None, max_examples=80, derandomize=True)
@given(histories)
def test_histories_have_the_same_fingerprint_only_if_they_are_the_same(history: list[list[int]]) -> None:
    found = terms._fingerprints(torch.tensor(history)).tolist()
    for row, one in zip(history, found, strict=True):
        assert [other == one for other in found] == [other == row for other in history]


def test_fingerprints_of_many_long_histories_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    history = torch.randint(-1, 3, (50_000, 20), generator=generator)
    assert len(set(terms._fingerprints(history).tolist())) == len(set(map(tuple, history.tolist())))

"""What a step draws: by seed and number alone, and about as often as it should."""

from __future__ import annotations

import numpy as np
import pytest

from raycl.config_loss import ViewContrast
from raycl.training import draws

VIEWS = ViewContrast(kind="views")


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_about_the_given_share_of_items_is_hidden_alike_in_every_process(share: float) -> None:
    items = np.arange(10_000, dtype=np.int32)
    hidden = draws.hidden(3, 7, items, share)
    assert hidden.mean() == pytest.approx(share, abs=0.02)
    assert draws.hidden(3, 7, items[2_500:5_000].astype(np.int64), share).tolist() == hidden[2_500:5_000].tolist()
    if share == 0.25:
        for other in (draws.hidden(3, 8, items, share), draws.hidden(4, 7, items, share)):
            assert other.tolist() != hidden.tolist()


def test_every_item_is_drawn_evenly() -> None:
    found = np.bincount(np.concatenate([draws.uniform(1, number, 500, 20) for number in range(100)]), minlength=20)
    assert found.sum() == 50_000
    assert found / 2_500 == pytest.approx(np.ones(20), abs=0.08)


def test_columns_are_put_in_an_order() -> None:
    assert sorted(draws.order(3, 4, 17).tolist()) == list(range(17))


def test_views_keep_to_the_items_of_their_history() -> None:
    history = np.array([[3, 4, 5, 6, 7, 8, 9, 1], [2, 1, -1, -1, -1, -1, -1, -1], [-1] * 8], dtype=np.int32)
    for view in draws.two_views(0, 1, history, VIEWS):
        for row, changed in zip(history, view, strict=True):
            assert set(changed.tolist()) <= {*row.tolist(), -1}


def test_a_view_may_put_a_neighbour_in_the_place_of_an_item() -> None:
    history, neighbours = np.tile(np.arange(8, dtype=np.int32), (50, 1)), np.arange(8, dtype=np.int32) + 100
    how = ViewContrast(kind="views", crop=None, mask=None, reorder=None, substitute=0.5)
    for view in draws.two_views(0, 1, history, how, neighbours):
        assert ((view == history) | (view == history + 100)).all()
        assert (view > 99).sum(1).tolist() == [4] * 50


@pytest.mark.parametrize("seed", [0, 10**30])
def test_a_draw_depends_on_seed_and_number_and_nothing_else(seed: int) -> None:
    history = np.arange(400, dtype=np.int32).reshape(20, 20)

    def drawn(seed: int, number: int) -> list[list[int]]:
        np.random.default_rng().random()
        view, other = draws.two_views(seed, number, history, VIEWS)
        features = draws.feature_generator(seed, number).integers(0, 2**40, 1)
        return [
            draws.uniform(seed, number, 9, 10**6).tolist(),
            draws.order(seed, number, 50).tolist(),
            view.ravel().tolist(),
            other.ravel().tolist(),
            features.tolist(),
            draws.forgotten(seed, number, 20, 20, 0.5).tolist(),
        ]

    first = drawn(seed, 5)
    assert drawn(seed, 5) == first
    for other in (drawn(seed, 6), drawn(seed + 1, 5)):
        assert all(one != two for one, two in zip(other, first, strict=True))


def test_events_are_forgotten_at_about_the_share_each_alone() -> None:
    found = draws.forgotten(3, 4, 500, 40, 0.3)
    assert found.shape == (500, 40)
    assert found.mean() == pytest.approx(0.3, abs=0.02)
    assert abs(np.corrcoef(found[:, 0], found[:, 1])[0, 1]) < 0.15
    assert not draws.forgotten(3, 4, 5, 5, 0.0).any()

"""The part of PromQL that tests evaluate, against values reckoned by hand."""

from __future__ import annotations

import pytest

from tests.alerts.promql import Data, Value, evaluate, firing

DATA = Data.of(
    {
        'c_total{a="x", b="1"}': "0+60x20",
        'c_total{a="x", b="2"}': "0+120x20",
        'c_total{a="y", b="1"}': "0+30x20",
        'g{a="x"}': "7x20",
        'g{a="y"}': "9x3 stale",
        'h_bucket{le="1"}': "0+10x20",
        'h_bucket{le="2"}': "0+30x20",
        'h_bucket{le="+Inf"}': "0+40x20",
    }
)


def v(**values: float) -> dict[frozenset[tuple[str, str]], float]:
    """A vector by the label ``a``."""
    return {frozenset({("a", name)}): value for name, value in values.items()}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 * 3 + 4 / 8 - 1", 5.5),
        ("time() - 60", 540.0),
        ("g", v(x=7.0)),
        ('g{a="y"}', {}),
        ('g{a!="x"}', {}),
        ("sum by (a) (rate(c_total[5m]))", v(x=3.0, y=0.5)),
        ('sum by (a) (rate(c_total{b=~"[13]"}[5m]))', v(x=1.0, y=0.5)),
        ("max(rate(c_total[5m]))", {frozenset(): 2.0}),
        ("min(rate(c_total[5m])) * 4", {frozenset(): 2.0}),
        ("sum by (a) (rate(c_total[5m])) / g", v(x=3.0 / 7.0)),
        ("sum by (a) (rate(c_total[5m])) > 1", v(x=3.0)),
        ("0 < g < 8", v(x=7.0)),
        ("0 < g < 7", {}),
        ("sum by (a) (rate(c_total[5m])) and on (a) g > 6", v(x=3.0)),
        ("absent(g)", {}),
        ("absent(gone)", {frozenset(): 1.0}),
        ("histogram_quantile(0.5, sum by (le) (rate(h_bucket[5m])))", {frozenset(): 1.5}),
        ("histogram_quantile(0.9, sum by (le) (rate(h_bucket[5m])))", {frozenset(): 2.0}),
    ],
)
def test_an_expression_has_the_value_that_it_has_by_hand(expression: str, value: Value) -> None:
    assert evaluate(expression, DATA, 600) == pytest.approx(value)


@pytest.mark.parametrize("expression", ["avg(g)", "g unless g", "increase(c_total[5m])", "g offset 5m", "g ?"])
def test_what_it_does_not_know_is_an_error(expression: str) -> None:
    with pytest.raises(AssertionError):
        evaluate(expression, DATA, 600)


def test_an_alert_fires_once_it_has_held_and_no_more_when_it_did_not() -> None:
    data = Data.of({'g{a="x"}': "0x4 1x20", 'g{a="y"}': "1x4 0x1 1x20"})
    fired = frozenset({("a", "x")})
    assert firing("g > 0", "5m", data, 9) == set()
    assert firing("g > 0", "5m", data, 10) == {fired}
    assert firing("g > 0", "5m", data, 12) == {fired, frozenset({("a", "y")})}

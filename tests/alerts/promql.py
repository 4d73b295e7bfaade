"""The part of PromQL that the alerts are written in, and when an alert fires; for where promtool is not at hand.

Selectors, ``rate`` (without extrapolation to the edges of the range), ``histogram_quantile``, ``absent``, ``time``,
``sum``, ``min`` and ``max`` with ``by``, arithmetic, comparisons that filter, and ``and on``. What else stands in an
expression is an error. `test_promql.py` holds it to values reckoned by hand; promtool decides the same cases.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Value = float | Vector

_LOOK_BACK_S = 300
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TOKEN = re.compile(r'\s*(?:(\d+(?:\.\d+)?)|([a-zA-Z_]\w*)|("[^"]*")|(\[\d+[smhd]\])|(=~|!=|>=|<=|==|[-+*/<>=(){},]))')
_ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_COMPARISONS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
_AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {"sum": sum, "min": min, "max": max}


@dataclass(frozen=True)
class Data:
    """Samples a minute of every series, None where there is none."""

    series: Mapping[tuple[str, Labels], list[float | None]]

    @classmethod
    def of(cls, written: Mapping[str, str]) -> Data:
        """From names with labels, and values in the notation of ``promtool test rules``."""
        found: dict[tuple[str, Labels], list[float | None]] = {}
        for selector, values in written.items():
            name, _, labels = selector.partition("{")
            found[name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))] = _values(values)
        return cls(found)

    def at(self, series: tuple[str, Labels], time_s: int) -> float | None:
        """The newest value within five minutes, unless the series has ended since."""
        values = self.series[series]
        for minute in range(time_s // 60, max(time_s - _LOOK_BACK_S, -1) // 60, -1):
            if minute < len(values):
                return values[minute]
        return None

    def within(self, series: tuple[str, Labels], time_s: int, range_s: int) -> list[tuple[int, float]]:
        """The samples of the last ``range_s`` seconds, with their times."""
        found = [(minute * 60, value) for minute, value in enumerate(self.series[series]) if value is not None]
        return [(at, value) for at, value in found if time_s - range_s <= at <= time_s]


def _values(written: str) -> list[float | None]:
    found: list[float | None] = []
    for part in written.split():
        if part in ("_", "stale"):
            found.append(None)
            continue
        match = re.fullmatch(r"(-?[\d.]+)(?:([+-][\d.]+))?(?:x(\d+))?", part)
        assert match, f"no values: {part}"
        step, times = float(match[2] or 0), int(match[3] or 0)
        found += [float(match[1]) + step * number for number in range(times + 1)]
    return found


def evaluate(expression: str, data: Data, time_s: int) -> Value:
    """The value of the expression at this time, a number or a vector."""
    tokens: list[str] = []
    place = 0
    while expression[place:].strip():
        match = _TOKEN.match(expression, place)
        assert match, f"not understood: {expression[place:]}"
        tokens.append(match[0].strip())
        place = match.end()
    parser = _Parser(tokens, data, time_s)
    value = parser.conjunction()
    assert not parser.tokens, f"left over: {parser.tokens}"
    return value


class _Parser:
    """Evaluates as it reads, the loosest operator first."""

    def __init__(self, tokens: list[str], data: Data, time_s: int) -> None:
        self.tokens, self.data, self.time_s = tokens, data, time_s

    def next(self, *expected: str) -> str:
        """Take the next token, one of these if any are given."""
        token = self.tokens.pop(0)
        assert not expected or token in expected, f"{token} in place of {expected}"
        return token

    def comes(self, *tokens: str) -> bool:
        """Whether the next token is one of these."""
        return bool(self.tokens) and self.tokens[0] in tokens

    def conjunction(self) -> Value:
        left = self.comparison()
        while self.comes("and"):
            self.next("and")
            self.next("on")
            names = self.names()
            right = self.comparison()
            assert isinstance(left, dict)
            assert isinstance(right, dict)
            kept = {_only(labels, names) for labels in right}
            left = {labels: value for labels, value in left.items() if _only(labels, names) in kept}
        return left

    def comparison(self) -> Value:
        left = self.sum()
        while self.comes(*_COMPARISONS):
            holds = _COMPARISONS[self.next()]
            right = self.sum()
            if isinstance(left, dict):
                assert isinstance(right, float)
                left = {labels: value for labels, value in left.items() if holds(value, right)}
            else:
                assert isinstance(right, dict)
                left = {labels: value for labels, value in right.items() if holds(left, value)}
        return left

    def sum(self) -> Value:
        return self.chain(("+", "-"), self.product)

    def product(self) -> Value:
        return self.chain(("*", "/"), self.term)

    def chain(self, operators: tuple[str, ...], part: Callable[[], Value]) -> Value:
        left = part()
        while self.comes(*operators):
            left = _combined(_ARITHMETIC[self.next()], left, part())
        return left

    def term(self) -> Value:
        token = self.next()
        if token == "(":
            value = self.conjunction()
            self.next(")")
            return value
        if re.fullmatch(r"\d+(\.\d+)?", token):
            return float(token)
        if token in _AGGREGATIONS:
            return self.aggregation(_AGGREGATIONS[token])
        if not self.comes("("):
            return self.selected(*self.selector(token))
        return self.function(token)

    def function(self, name: str) -> Value:
        self.next("(")
        if name == "time":
            value: Value = float(self.time_s)
        elif name == "rate":
            value = self.rate(*self.selector(self.next()))
        elif name == "absent":
            value = {} if self.conjunction() else {frozenset(): 1.0}
        else:
            assert name == "histogram_quantile", f"no function {name} here"
            share = self.sum()
            self.next(",")
            buckets = self.conjunction()
            assert isinstance(share, float)
            assert isinstance(buckets, dict)
            value = _quantiles(share, buckets)
        self.next(")")
        return value

    def aggregation(self, together: Callable[[list[float]], float]) -> Value:
        names = self.names() if self.comes("by") and self.next("by") else frozenset()
        self.next("(")
        value = self.conjunction()
        self.next(")")
        assert isinstance(value, dict)
        groups: dict[Labels, list[float]] = {}
        for labels, one in value.items():
            groups.setdefault(_only(labels, names), []).append(one)
        return {labels: together(members) for labels, members in groups.items()}

    def names(self) -> frozenset[str]:
        self.next("(")
        found = []
        while not self.comes(")"):
            found.append(self.next())
            if self.comes(","):
                self.next()
        self.next(")")
        return frozenset(found)

    def selector(self, name: str) -> tuple[str, Callable[[Labels], bool]]:
        matchers: list[tuple[str, str, str]] = []
        if self.comes("{"):
            self.next()
            while not self.comes("}"):
                matchers.append((self.next(), self.next("=", "!=", "=~"), self.next()[1:-1]))
                if self.comes(","):
                    self.next()
            self.next("}")

        def fits(labels: Labels) -> bool:
            found = dict(labels)
            return all(_fits(found.get(label, ""), how, wanted) for label, how, wanted in matchers)

        return name, fits

    def selected(self, name: str, fits: Callable[[Labels], bool]) -> Vector:
        found = {one[1]: self.data.at(one, self.time_s) for one in self.data.series if one[0] == name and fits(one[1])}
        return {labels: value for labels, value in found.items() if value is not None}

    def rate(self, name: str, fits: Callable[[Labels], bool]) -> Vector:
        window = self.next()[1:-1]
        range_s = int(window[:-1]) * _UNITS[window[-1]]
        made = {}
        for one in self.data.series:
            samples = self.data.within(one, self.time_s, range_s) if one[0] == name and fits(one[1]) else []
            if len(samples) > 1:
                (first_s, first), (last_s, last) = samples[0], samples[-1]
                made[one[1]] = (last - first) / (last_s - first_s)
        return made


def _fits(value: str, how: str, wanted: str) -> bool:
    if how == "=~":
        return re.fullmatch(wanted, value) is not None
    return (value == wanted) == (how == "=")


def _only(labels: Labels, names: frozenset[str]) -> Labels:
    return frozenset(one for one in labels if one[0] in names)


def _combined(how: Callable[[float, float], float], left: Value, right: Value) -> Value:
    if isinstance(left, dict) and isinstance(right, dict):
        return {labels: how(value, right[labels]) for labels, value in left.items() if labels in right}
    if isinstance(left, dict):
        assert isinstance(right, float)
        return {labels: how(value, right) for labels, value in left.items()}
    if isinstance(right, dict):
        return {labels: how(left, value) for labels, value in right.items()}
    return how(left, right)


def _quantiles(share: float, buckets: Vector) -> Vector:
    """Within the bucket in which it lies, by a straight line."""
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"].replace("+Inf", "inf"))
        groups.setdefault(frozenset(one for one in labels if one[0] != "le"), []).append((bound, count))
    made = {}
    for labels, found in groups.items():
        found.sort()
        wanted, below, before = share * found[-1][1], 0.0, 0.0
        for bound, count in found:
            if count >= wanted:
                inside = bound == float("inf") or count == before
                made[labels] = below if inside else below + (bound - below) * (wanted - before) / (count - before)
                break
            below, before = bound, count
    return made


def firing(expression: str, held: str, data: Data, after_m: int) -> set[Labels]:
    """Labels with which an alert fires after so many minutes, having held for ``held``; evaluated every minute."""
    needed = int(held[:-1]) * _UNITS[held[-1]] // 60
    since: dict[Labels, int] = {}
    for minute in range(after_m + 1):
        value = evaluate(expression, data, minute * 60)
        assert isinstance(value, dict)
        since = {labels: since.get(labels, minute) for labels in value}
    return {labels for labels, minute in since.items() if after_m - minute >= needed}

"""Names of metrics: those that an expression asks for, and those that a running system was seen to have.

``seen.txt`` is what `tests/cluster/test_operations.py` found at the metrics ports of a cluster that ran every stage and
answered queries; that test fails where an alert or a panel names what is not there.
"""

from __future__ import annotations

import re
from pathlib import Path

_SEEN = Path(__file__).parent / "seen.txt"
_NAME = re.compile(r"\b((?:ray|kube|process)_[a-zA-Z0-9_]+)\b(?!\s*=)")


def named(expression: str) -> set[str]:
    """The metrics that a PromQL expression asks for; labels and what is in quotes or in a `by` are none."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", bare)
    return set(_NAME.findall(bare))


def seen() -> set[str]:
    """The metrics of a running system."""
    return set(_SEEN.read_text(encoding="utf-8").split())


def scraped(text: str) -> set[str]:
    """The metrics of one scrape, a histogram by its series."""
    found = re.findall(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{| )", text, re.MULTILINE)
    return set(found)

"""Files of one folder that are numbered from 1 on: each is created once, so that two writers never take one number."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = re.compile(r"(\d{6,})\.json")


def name_of(number: int) -> str:
    """The name of the file with this number."""
    return f"{number:06d}.json"


def numbers(names: Iterable[str]) -> list[int]:
    """The numbers among the ``names`` of a folder, ascending; other files may lie beside."""
    return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))

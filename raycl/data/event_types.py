"""Which event types of the logs a config gives no weight, before a run puts their rows into quarantine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from raycl.config import Config
from raycl.data import sources
from raycl.data.columns import whole
from raycl.data.sources import Inputs
from raycl.errors import InputError

_ROWS_AT_ONCE = 2_000_000
_MOST_ROWS = 20_000_000
"""Rows that are looked at, so that a config for a lake is checked in seconds too."""
_MOST_NAMED = 10


@dataclass(frozen=True)
class Unweighted:
    """Rows of each event type without a weight, the most first, among ``num_read`` of ``num_rows`` rows."""

    rows: dict[str, int]
    num_read: int
    num_rows: int

    def lines(self) -> list[str]:
        """What to tell a person: a line for each type and what to do about it."""
        of = "" if self.num_read == self.num_rows else f" of the {self.num_read:,} that were looked at"
        said = [
            f"event type {name!r} has no weight, and its {count:,} rows{of} would be quarantined as unknown_event: name"
            f" it in event_weights, or in pairs.negative_events where it speaks against an item"
            for name, count in list(self.rows.items())[:_MOST_NAMED]
        ]
        more = len(self.rows) - len(said)
        return said + ([f"and {more:,} more event types without a weight"] if more else [])


def unweighted(config: Config, inputs: Inputs, most_rows: int = _MOST_ROWS) -> Unweighted:
    """Read the event column of the logs, evenly spread parts of it where they have more than ``most_rows`` rows.

    InputError for a column that is neither text nor whole numbers, as the pairs stage raises it, and where no row would
    be left: all were read, each log has types, and none of them has a weight.
    """
    known = {*config.event_weights, *config.pairs.negative_events}
    named = [position for position, log in enumerate(config.logs) if log.columns.event is not None]
    num_rows = sum(inputs.logs[position].num_rows for position in named)
    found: Counter[str] = Counter()
    num_read = known_rows = 0
    parts = [one for one in sources.fragments(inputs.logs, min(_ROWS_AT_ONCE, most_rows)) if one.log in named]
    step = max(1, -(-num_rows // most_rows))
    for part in parts[::step]:
        column = config.logs[part.log].columns.event
        words = whole(part.read([str(column)])[str(column)])
        try:
            words = words.cast(pa.large_string())
        except pa.ArrowException as error:
            raise InputError(
                f"logs.{part.log}.columns.event={column} is of type {words.type}: use strings or integers ({error})"
            ) from error
        num_read += part.num_rows
        for one in pc.value_counts(words).to_pylist():
            if one["values"] in config.event_weights:
                known_rows += one["counts"]
            elif one["values"] is not None and one["values"] not in known:
                found[one["values"]] += one["counts"]
    if not known_rows and num_read == num_rows and len(named) == len(config.logs):
        raise InputError(none_weighted(found))
    return Unweighted(dict(found.most_common()), num_read, num_rows)


def none_weighted(rows: Counter[str]) -> str:
    """What is wrong with a config that gives no event type a weight, by the rows of each that it could name."""
    named = ", ".join(name for name, _ in rows.most_common(_MOST_NAMED)) or "null everywhere"
    return f"event_weights names none of the log's event types, which are {named}: name those to train on"

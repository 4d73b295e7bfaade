"""Which Arrow types a column may have for what it is used as, told from a file's footer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from raycl import schema


def _same_id(first: pa.DataType, second: pa.DataType) -> bool:
    return bool(schema.id_type(first) == schema.id_type(second))


def _same_context(first: pa.DataType, second: pa.DataType) -> bool:
    return bool(schema.context_type(first) == schema.context_type(second))


def _each_alone(_first: pa.DataType, _second: pa.DataType) -> bool:
    return True


def _same_words(first: pa.DataType, second: pa.DataType) -> bool:
    """Whether equal values are written alike: text as it is, whole numbers by their digits, any other type its own."""
    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in (first, second)]
    return bool(kinds[0] == kinds[1] or all(_is_text(kind) or pa.types.is_integer(kind) for kind in kinds))


def _one_table(first: pa.DataType, second: pa.DataType) -> bool:
    parts = [plain(pa.table({"column": pa.nulls(0, kind)})) for kind in (first, second)]
    try:
        pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException:
        return False
    return True


@dataclass(frozen=True)
class Use:
    """What a column is read as.

    ``remedy`` ends the error for a type that it does not accept; ``mixes`` says whether two files of one source may
    have these types, neither of them null.
    """

    accepts: Callable[[pa.DataType], bool]
    remedy: str
    mixes: Callable[[pa.DataType, pa.DataType], bool] = _one_table


def plain(table: pa.Table, words: Sequence[str] = ()) -> pa.Table:
    """The table with all its text as large_string and its dictionaries of numbers as numbers.

    Other text, or other numbers, can be appended to such columns. Dictionaries of text stay in the columns of
    ``words``.
    """
    for position, field in enumerate(table.schema):
        stays = field.name in words and pa.types.is_dictionary(field.type) and _is_text(field.type)
        if not stays and (kind := plain_type(field.type)) != field.type:
            table = table.set_column(position, field.name, table[position].cast(kind))
    return table


def plain_type(found: pa.DataType) -> pa.DataType:
    """The type that ``plain`` gives a column of type ``found``."""
    if _is_text(found):
        return pa.large_string()
    return found.value_type if pa.types.is_dictionary(found) and _is_number(found.value_type) else found


def _is_number(found: pa.DataType) -> bool:
    """Integers and floats of any width."""
    return bool(pa.types.is_integer(found) or pa.types.is_floating(found))


def _is_text(found: pa.DataType) -> bool:
    """Strings, plain or as a dictionary."""
    if pa.types.is_dictionary(found):
        return _is_text(found.value_type) and not pa.types.is_string_view(found.value_type)  # Arrow has no such cast
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found))


def _is_list(found: pa.DataType) -> bool:
    """Lists whose values can be written as text."""
    return bool((pa.types.is_list(found) or pa.types.is_large_list(found)) and _is_word(found.value_type))


def _is_vector(found: pa.DataType) -> bool:
    """Lists of numbers, of one length or of any."""
    fixed = pa.types.is_fixed_size_list(found)
    return bool(pa.types.is_null(found) or ((fixed or _is_list(found)) and _is_number(found.value_type)))


def _is_id(found: pa.DataType) -> bool:
    return bool(_is_number(found) or _is_text(found) or pa.types.is_null(found))


def _is_time(found: pa.DataType) -> bool:
    return bool(_is_number(found) or _is_moment(found) or pa.types.is_null(found))


def _is_moment(found: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(found) or pa.types.is_date(found))


def _is_quantity(found: pa.DataType) -> bool:
    boolean_or_decimal = pa.types.is_boolean(found) or pa.types.is_decimal(found)
    return bool(_is_number(found) or boolean_or_decimal or pa.types.is_null(found))


def _is_context(found: pa.DataType) -> bool:
    if pa.types.is_dictionary(found) and not _is_text(found):
        return _is_number(found.value_type)
    return bool(_is_number(found) or pa.types.is_boolean(found) or _is_text(found) or pa.types.is_null(found))


def _is_word(found: pa.DataType) -> bool:
    """What Arrow writes as text one value at a time."""
    if pa.types.is_dictionary(found):
        return _is_text(found) or _is_number(found.value_type)
    return bool(_is_text(found) or _is_quantity(found) or _is_moment(found))


ID = Use(_is_id, "ids are integers or strings; convert the column", _same_id)
TITLE = Use(_is_word, "use a string")
SHOWN = Use(lambda _: True, "")
EVENT = Use(_is_word, "use strings or integers", _same_words)
TIME = Use(_is_time, "use a timestamp, a date, an integer or a float", _each_alone)
CONTEXT = Use(_is_context, "use whole numbers, floats, truth values or strings", _same_context)
WEIGHT = Use(_is_quantity, "use a number", _each_alone)
FEATURES = {
    "categorical": Use(_is_word, "use strings or numbers, and kind: multi for lists of them"),
    "hashed": Use(_is_word, "use strings or numbers"),
    "multi": Use(lambda found: _is_word(found) or _is_list(found), "use strings, numbers or lists of them"),
    "numeric": Use(lambda found: _is_quantity(found) or _is_text(found), "use a number"),
    "text": Use(_is_word, "use a string"),
    "vector": Use(_is_vector, "use a list of numbers"),
}
"""By the kind of the feature; a numeric one may be written as text."""

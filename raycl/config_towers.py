"""What of the config makes the towers: the features that they read, and their networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raycl.config_values import Name, Positive, Section, Share


class Feature(Section):
    """One column that a tower reads; what is null, blank or unseen takes a learned embedding of the unknown.

    ``categorical`` one value a row, such as a colour; ``hashed`` one value a row of very many, such as an id, that
    share rows of one table; ``multi`` a list, or a string cut at ``separator``; ``numeric`` a number; ``text`` words
    hashed into one table; ``vector`` a list of ``length`` numbers from another model, of a text, an image or a sound.
    """

    column: Name
    kind: Literal["categorical", "hashed", "multi", "numeric", "text", "vector"] = "categorical"
    separator: Name = "|"
    num_buckets: Annotated[int, Field(ge=1, le=2**30)] | None = None
    """Rows of the table that hashed values (by default 100,000) or words (4,096) share, or the number of buckets of
    ``transform: buckets`` (32)."""
    num_hashes: Annotated[int, Field(ge=1, le=8)] = 2
    """Rows that a hashed value is the mean of: two values are mistaken for each other only where all are the same."""
    max_values: Positive = 100_000
    """Values kept of a categorical or multi feature, the most frequent first; the rest share "unknown"."""
    transform: Literal["standard", "log", "buckets"] = "standard"
    """Of a number: mean 0 and deviation 1; the same of its logarithm, ``sign(x) log(1 + |x|)``; or one embedding for
    each of ``num_buckets`` ranges that hold equally many rows."""
    ngrams: Annotated[int, Field(ge=2, le=8)] | None = None
    """Of text: read this many characters in a row too, so that a word that is new shares parts with known ones."""
    length: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Numbers in a vector. One that is null, of another length or not finite is missing, and counted."""
    max_tokens: Annotated[int, Field(ge=1, le=1024)] = 32
    """Values, words and n-grams that a row keeps; the first ones win, and words come before n-grams."""

    @property
    def buckets(self) -> int:
        """``num_buckets``, or what stands for it; 0 for a kind that has none."""
        return 0 if (usual := self._usual_buckets) is None else self.num_buckets or usual

    @property
    def _usual_buckets(self) -> int | None:
        if self.kind == "numeric":
            return 32 if self.transform == "buckets" else None
        return {"hashed": 100_000, "text": 4_096}.get(self.kind)


class EnsembleConfig(Section):
    """Finished towers that are put together in place of training."""

    towers: Annotated[tuple[Name, ...], Field(min_length=2)]
    """Names of versions of towers in the workspace, all of the pairs of this config, as ``raycl ensemble`` writes them.
    """
    combine: Literal["concatenate", "average"] = "concatenate"
    """``concatenate``: vectors side by side, so that the score of an item is the mean of theirs; ``average``: the mean
    of vectors that were turned to agree on the items, all of one length, which is no more to search than one of them.
    """


class ModelConfig(Section):
    """The two towers."""

    dim: Positive = 64
    """Length of the vectors that are compared."""
    hidden: tuple[Positive, ...] = (128,)
    pooling: Literal["mean", "recency", "attention", "transformer"] = "mean"
    """How the history becomes one vector: ``recency`` learns one weight a position, ``attention`` weighs each event by
    what it is, where and when; ``transformer`` lets each event see the earlier ones first."""
    history_layers: Positive = 2
    """Layers of the transformer."""
    history_heads: Positive = 2
    """Heads of each of its layers; they divide ``dim``."""
    history_summary: Literal["last", "mean"] = "last"
    """What stands for the user: the state of the newest event, or the mean of all."""
    share_items: bool = False
    """Read the events of a history as the item tower reads items, their features included, so that an item that
    training has not seen tells something of the user too."""
    item_id: bool = True
    """Give each item that training has seen an embedding of its own, besides its features."""
    id_dropout: Share = 0.1
    """Share of items whose own embedding is hidden in a training step, so that features learn to carry new items."""
    fusion: Literal["sum", "gates"] = "sum"
    """How the features of one row become one vector: ``gates`` learn how much each counts, and leave out what the row
    lacks."""
    feature_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of feature values that are hidden in a training step, so that what stands for the unknown is learned where
    little is unknown in training. Every worker draws its own."""
    history_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the events of a history that are hidden in a training step, each drawn alone, so that the tower does not
    learn by heart which few items come together (denoising, as in Liang et al., WWW 2018)."""
    request_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of pairs whose times are hidden in a training step, and of those whose context is, each drawn alone: what a
    request may leave out, so that one that does is answered by what was learned for it."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0

    @property
    def reads_times(self) -> bool:
        """Whether the pooling tells events apart by their age."""
        return self.pooling in ("attention", "transformer")

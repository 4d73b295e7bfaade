"""What tuning an encoder is made of: the pairs of a training part, the words of their items, and the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raycl.config import ItemTable
from raycl.config_encode import EncoderTuning, Encoding
from raycl.data import sources, vocabulary
from raycl.data.columns import whole
from raycl.data.handoff import Pairs
from raycl.data.id_map import IdMap
from raycl.data.packed import Sequences
from raycl.errors import InputError
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import Version
from raycl.text import encoders, successions, tuned, tuning
from raycl.text.halves import Halves
from raycl.text.tasks import left_out, texts
from raycl.text.tuning import Places


@dataclass(frozen=True)
class Work:
    """One encoder that is to be tuned."""

    items: ItemTable
    place: int
    """Of the encoding in ``items.encode``."""
    pairs: Version
    seed: int
    store_uri: str
    """Of the version that is made."""

    @property
    def chosen(self) -> Encoding:
        """What of the config it is."""
        return self.items.encode[self.place]

    @property
    def how(self) -> EncoderTuning:
        """How it is tuned."""
        assert self.chosen.fine_tune is not None
        return self.chosen.fine_tune

    @property
    def field(self) -> str:
        """Its place in the config."""
        return f"items.encode.{self.place}"


def tune(work: Work, device: str) -> dict[str, Any]:
    """Tune the encoder and leave its layers; the record says on what, and how its loss went.

    InputError where the training part has no pair of items with words, or the model cannot be tuned so.
    """
    words, pairs = read(work)
    if not len(pairs):
        raise InputError(
            f"{work.field}.fine_tune: in training no user met two items with different words one after the other;"
            f" leave it out, or check {work.field}.of={list(work.chosen.of)}"
        )
    root = encoders.folder(work.chosen.model, work.field)
    bottom, top = (encoders.opened(root, work.chosen.max_tokens, device) for _ in range(2))
    halves = Halves(bottom, top, work.how.layers, work.field)
    losses = tuning.fit(halves, words, pairs, work.how, work.seed)
    tuned.save(Store(work.store_uri), halves.weights())
    return {"pairs": len(pairs), "texts": len(words), "losses": losses, "device": device}


def read(work: Work) -> tuple[list[str], Places]:
    """The distinct texts of the drawn pairs, and the pairs as places in them, (pairs, 2), in the order of the draw.

    Items without a word, and those that are to have no vector, make no pair; nor do two items of the same words.
    """
    pairs = Pairs.of(work.pairs)
    drawn = successions.together((_of_file(work, path) for path, _ in pairs.files("train")), work.how.max_pairs)
    rows, column = np.unique(drawn.items, return_inverse=True)
    said = _words(work, pairs, rows)
    distinct = list(dict.fromkeys(said))
    place = {text: number for number, text in enumerate(distinct)}
    places = np.array([place[text] for text in said], dtype=np.int64)[column.reshape(drawn.items.shape)]
    has_words = np.array([bool(text) and not left_out(text, work.chosen) for text in distinct], dtype=np.bool_)
    kept = (places[:, 0] != places[:, 1]) & has_words[places].all(axis=1)
    used, column = np.unique(places[kept], return_inverse=True)
    return [distinct[number] for number in used], column.reshape(-1, 2).astype(np.int64)


def _of_file(work: Work, path: str) -> successions.Successions:
    table = tables.read(work.pairs.verified(path).store, path)
    return successions.of(Sequences.from_table(table), table["user"], work.seed)


def _words(work: Work, pairs: Pairs, rows: successions.Rows) -> list[str]:
    """What the item table says of the items of these rows of the vocabulary, ascending; "" for one that it lacks."""
    ids = whole(pairs.vocabulary()["item"]).take(pa.array(rows))
    source = sources.open_words(work.items)
    read = source.read(list(dict.fromkeys([work.items.id_column, *work.chosen.of])))
    table, _, _ = vocabulary.first_of_each(read, work.items.id_column, ids.type)
    found = [*texts(table, work.chosen.of), ""]
    return [found[place] for place in IdMap(whole(table[work.items.id_column])).rows(ids)]

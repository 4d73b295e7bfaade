"""The new release beside the one that is current: how far both answer the same users alike."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.data.features import Encoders
from raycl.data.handoff import Pairs
from raycl.data.id_map import IdMap
from raycl.data.packed import Rows
from raycl.data.states import States
from raycl.evaluation.tasks import user_features
from raycl.index import questions, release, search
from raycl.index.gate import Previous
from raycl.index.search import Ids, Vectors
from raycl.index.work import Job
from raycl.model import embed, inputs
from raycl.model.inputs import FeatureRows
from raycl.model.users import UserSide
from raycl.storage import tables
from raycl.storage.versions import Version


def compare(job: Job, before: Version, found: Ids) -> Previous:
    """How many of the answers of ``before`` are among ``found`` (num_queries, k), which are rows of this vocabulary.

    The same held-out users ask it, by its own user tower and with the items that it knows; what is known of the users
    goes along where both encode it alike. One shard is in memory at a time.
    """
    how = release.search_of(before.store)
    pairs = Pairs.of(job.pairs)
    ours = pairs.vocabulary()["item"].combine_chunks()
    theirs = tables.read(before.store, release.CATALOGUE_FILE, ["item"])["item"].combine_chunks()
    if ours.type != theirs.type:
        return Previous(before.name, before.manifest.counts["vectors"], 0.0)
    queries = _queries(job, pairs, before, IdMap(theirs).rows(ours))
    k = found.shape[1]
    answers = (release.load_shard(before.store, how, shard).search(queries, k) for shard in range(how.num_shards))
    ids, _ = search.merge_in_turn(answers, k)
    to_ours = np.append(IdMap(ours).rows(theirs), np.int32(-2))  # what is unknown here is no item, and no gap either
    old = np.where(ids < 0, -2, to_ours[ids])
    return Previous(before.name, before.manifest.counts["vectors"], search.hits(found, old) / max((ids >= 0).sum(), 1))


def _queries(job: Job, pairs: Pairs, before: Version, to_theirs: Rows) -> Vectors:
    """The queries' users by the user side of ``before``; ``to_theirs`` is its row of each of our items, or -1.

    Of their requests it is told what it knows of, where these pairs carry all of that.
    """
    side = UserSide.load(before.store.under(release.USER_TOWER))
    carried = set(side.columns) <= set(UserSide.load(job.towers.store).columns)
    asked = questions.drawn(job, side.columns if carried else ()).states
    theirs = np.where(asked.history < 0, -1, to_theirs[asked.history])
    width = side.tower.max_history
    order = np.argsort(theirs < 0, axis=1, kind="stable")[:, :width]  # known ones first, in the order that they have
    history = _filled_up(np.take_along_axis(theirs, order, axis=1), width, np.int32(-1))
    ages = None
    if asked.age_s is not None:
        ages = _filled_up(np.take_along_axis(asked.age_s, order, axis=1), width, np.float32(-1))
    features, user_row = _features(pairs, before, asked.user_row)
    known = States(history, user_row, ages, asked.context)
    return side.vectors(known, features) if carried else embed.users(side.tower, history, user_row, features, ages)


def _filled_up(values: npt.NDArray[Any], width: int, filling: np.generic) -> npt.NDArray[Any]:
    """(rows, width), with ``filling`` behind ``values``."""
    filled = np.full((len(values), width), filling)
    filled[:, : values.shape[1]] = values
    return filled


def _features(pairs: Pairs, before: Version, user_row: Rows) -> tuple[FeatureRows, Rows]:
    """What is known of the users, as ``before`` encodes it; of nobody anything where that is another encoding."""
    encoders = Encoders.from_json(json.loads(before.store.read(release.FEATURES_FILE)))
    if encoders == pairs.encoders("users"):
        return user_features(pairs), user_row
    nothing: pa.Table = encoders.encode_rows([{}])
    return inputs.from_table(nothing, encoders, 1), np.zeros_like(user_row)

"""A release beside another one: how far both answer the same users alike."""

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
from raycl.index import nearest, questions, release
from raycl.index.gate import Previous
from raycl.index.nearest import Ids, Vectors
from raycl.index.work import Asking
from raycl.model import embed, inputs
from raycl.model.inputs import FeatureRows
from raycl.model.users import UserSide
from raycl.storage import tables
from raycl.storage.versions import Version


def compare(job: Asking, before: Version, found: Ids) -> Previous:
    """How many of the answers of ``before`` are among ``found`` (num_queries, k), which are rows of this vocabulary."""
    old, given = answers(job, before, found.shape[1])
    return Previous(before.name, before.manifest.counts["vectors"], nearest.hits(found, old) / max(given, 1))


def answers(job: Asking, of: Version, k: int) -> tuple[Ids, int]:
    """What the release ``of`` answers, (num_queries, k), as rows of the job's vocabulary, and how many items that are.

    The job's held-out users ask it, by its own user tower and with the items that it knows; what is known of the users
    goes along where both encode it alike. -2 stands for no item, and for one that the vocabulary does not know. One
    shard is in memory at a time. No answers, (0, k), where ids are of another type there.
    """
    how = release.search_of(of.store)
    pairs = Pairs.of(job.pairs)
    ours = pairs.vocabulary()["item"].combine_chunks()
    theirs = tables.read(of.store, release.CATALOGUE_FILE, ["item"])["item"].combine_chunks()
    if ours.type != theirs.type:
        return np.zeros((0, k), dtype=np.int64), 0
    queries = _queries(job, pairs, of, IdMap(theirs).rows(ours))
    found = (release.load_shard(of.store, how, shard).search(queries, k) for shard in range(how.num_shards))
    ids, _ = nearest.merge_in_turn(found, k)
    to_ours = IdMap(ours).rows(theirs).astype(np.int64)
    to_ours = np.append(np.where(to_ours < 0, -2, to_ours), -2)  # what is unknown here is no item, and no gap either
    return np.where(ids < 0, -2, to_ours[ids]), int((ids >= 0).sum())


def _queries(job: Asking, pairs: Pairs, before: Version, to_theirs: Rows) -> Vectors:
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

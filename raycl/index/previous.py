"""The new release beside the one that is current: how far both answer the same users alike."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.data.features import Encoders
from raycl.data.handoff import Pairs
from raycl.data.id_map import IdMap
from raycl.data.packed import Rows, Sequences
from raycl.data.reader import read
from raycl.evaluation.tasks import user_features
from raycl.index import release, search
from raycl.index.gate import Previous
from raycl.index.search import Ids, Vectors
from raycl.index.work import Job
from raycl.model import embed, inputs, weights
from raycl.model.inputs import FeatureRows
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


def drawn_sequences(job: Job, pairs: Pairs) -> Iterator[tuple[Sequences, npt.NDArray[np.int64]]]:
    """Held-out sequences of each file, and which users of it are the gate's queries: as ``draw_queries`` draws them."""
    files = [path for path, num_pairs in pairs.files("test") if num_pairs]
    generator = np.random.default_rng([job.config.seed, 2])
    for path in files:
        sequences = read(pairs.store, [path], "test")
        yield sequences, generator.permutation(len(sequences))[: -(-job.config.gate.num_queries // len(files))]


def _queries(job: Job, pairs: Pairs, before: Version, to_theirs: Rows) -> Vectors:
    """The queries' users by the user tower of ``before``; ``to_theirs`` is its row of each of our items, or -1."""
    side = before.store.under(release.USER_TOWER)
    tower = weights.load_user(side)
    histories, user_rows = [], []
    for sequences, drawn in drawn_sequences(job, pairs):
        histories.append(sequences.states(pairs.rules, "test")[drawn])
        user_rows.append(sequences.user_row[drawn])
    wanted = job.config.gate.num_queries
    ours, user_row = np.concatenate(histories)[:wanted], np.concatenate(user_rows)[:wanted]
    theirs = np.where(ours < 0, -1, to_theirs[ours])
    known_first = np.take_along_axis(theirs, np.argsort(theirs < 0, axis=1, kind="stable"), axis=1)
    history = np.full((len(ours), tower.max_history), -1, dtype=np.int32)
    width = min(tower.max_history, known_first.shape[1])
    history[:, :width] = known_first[:, :width]
    features, user_row = _features(pairs, before, user_row)
    return embed.users(tower, history, user_row, features)


def _features(pairs: Pairs, before: Version, user_row: Rows) -> tuple[FeatureRows, Rows]:
    """What is known of the users, as ``before`` encodes it; of nobody anything where that is another encoding."""
    encoders = Encoders.from_json(json.loads(before.store.read(release.FEATURES_FILE)))
    if encoders == pairs.encoders("users"):
        return user_features(pairs), user_row
    nothing: pa.Table = encoders.encode_rows([{}])
    return inputs.from_table(nothing, encoders, 1), np.zeros_like(user_row)

"""From a finished pairs version to a training run."""

from __future__ import annotations

import numpy as np
import torch

from raycl.config import Config
from raycl.data import states
from raycl.data.handoff import Pairs
from raycl.data.reader import Limits, PairStream
from raycl.errors import InputError
from raycl.model import inputs
from raycl.model.spec import FeatureSizes, TowerSpec
from raycl.storage.store import Store
from raycl.training import context, mining, start, substitutes
from raycl.training.job import Inputs, Job
from raycl.training.watch import require_held_out


def prepare(config: Config, pairs: Pairs, store: Store) -> Job:
    """The run that ``config`` describes on ``pairs``, with its checkpoints under ``store``.

    Raises InputError where the pairs do not fill one global batch, or have no validation part and the config needs one.
    """
    requests = context.encoders(config.context, pairs, store)
    item_encoders, user_encoders = pairs.encoders("items"), pairs.encoders("users")
    num_items = pairs.num_items
    encoded_users = pairs.encoded("users")
    num_users = encoded_users.num_rows if encoded_users is not None else 0
    stream = PairStream(
        pairs.store,
        pairs.files("train"),
        pairs.rules,
        config.train.global_batch_size,
        config.train.shuffle_pairs,
        config.seed,
        with_ages=config.model.reads_times and states.has_ages(pairs.rules),
        with_negatives=bool(config.loss.negatives.explicit),
        context=tuple(feature.column for feature in requests.features),
        encoders=requests,
        limits=Limits(num_items, num_users if user_encoders.features else None),
        user_balance=config.loss.user_balance,
    )
    if stream.steps == 0:
        total = sum(count for _, count in stream.files)
        raise InputError(
            f"train.global_batch_size={config.train.global_batch_size} is more than the {total} training pairs:"
            f" lower it"
        )
    require_held_out(config.train, sum(count for _, count in pairs.files("val")))
    id_row, retired = pairs.embedding_rows(), pairs.retired()
    return Job(
        TowerSpec(
            num_items,
            pairs.rules.max_history,
            FeatureSizes.of(item_encoders),
            FeatureSizes.of(user_encoders),
            config.model,
            int(id_row.max()) + 1 if id_row is not None else None,
            FeatureSizes.of(requests),
        ),
        config.train,
        config.loss,
        stream,
        Inputs(
            inputs.from_table(pairs.encoded("items"), item_encoders, num_items),
            inputs.from_table(encoded_users, user_encoders, num_users, unknown_row=True),
            torch.from_numpy(pairs.train_counts().copy()),
            torch.from_numpy(pairs.train_targets().copy()),
            torch.from_numpy(id_row) if id_row is not None else None,
            np.flatnonzero(~retired) if retired.any() else None,
            substitutes.neighbours(config.loss, pairs, store),
            mining.load(store),
        ),
        store,
        config.seed,
        pairs.files("val"),
        start.load(store),
    )

"""What training begins with besides chance: the weights of finished towers, or item vectors from who met what.

Of finished towers each row of a table goes to that of the same item or value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch as st
import torch
from torch import Tensor

from raycl.config import Config
from raycl.data.columns import whole
from raycl.data.features import UNKNOWN, Encoder, Encoders
from raycl.data.handoff import Pairs
from raycl.data.id_map import IdMap
from raycl.errors import InputError
from raycl.model import weights
from raycl.model.towers import TwoTower
from raycl.model.users import load_context
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft, Version, Workspace
from raycl.training import context, sample, spectral

FILE = f"{WORK}/start.safetensors"
_ROWS = "#rows"
_OF_THE_ITEMS = ("known", "id_row")
"""What a tower knows of each item's history in training: these pairs say it anew."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Before:
    """Finished towers, and the pairs that they were trained on."""

    towers: Version
    pairs: Version

    @classmethod
    def named(cls, workspace: Workspace, name: str) -> Before:
        """The towers of this name; InputError where they or their pairs are gone."""
        towers = workspace.open("towers", name)
        return cls(towers, workspace.open("pairs", towers.manifest.inputs["pairs"]))


def why_not(before: Before, config: Config, pairs: Version) -> str | None:
    """Why training on ``pairs`` cannot begin with these towers; None where it can."""
    name, spec = before.towers.name, weights.load_spec(before.towers.store)
    if len(weights.load_shape(before.towers.store).members) > 1:
        return f"towers {name} are an ensemble, and training makes one pair of towers"
    theirs, ours = Pairs.of(before.pairs), Pairs.of(pairs)
    if spec.model != config.model:
        return f"towers {name} were made with another 'model' section"
    if spec.max_history != ours.rules.max_history:
        return f"towers {name} read histories of {spec.max_history}, these have {ours.rules.max_history}"
    if _sharing(theirs) != _sharing(ours):
        return f"towers {name} were made with other pairs.rare_items or pairs.rare_buckets"
    if _ids(theirs).type != _ids(ours).type:
        return f"items were {_ids(theirs).type} in the pairs of towers {name}, and are {_ids(ours).type}"
    for side in ("items", "users"):
        if _kinds(theirs.encoders(side)) != _kinds(ours.encoders(side)):
            return f"towers {name} were made with other features of {side}"
    if before.towers.manifest.config["context"] != config.model_dump(mode="json", include={"context"})["context"]:
        return f"towers {name} were made with other features of requests"
    return None


def leave(workspace: Workspace, config: Config, pairs: Version, draft: Draft) -> str | None:
    """Leave in the draft what towers begin with, once; returns the name of the towers that it is of, None without any.

    InputError where ``train.start_from`` names towers that are gone or do not fit.
    """
    name = config.train.start_from
    if draft.store.exists(FILE):
        return name
    if name is not None:
        draft.store.write(FILE, st.save(_of_towers(workspace, name, config, pairs, draft)))
    elif config.train.item_start == "spectral":
        draft.store.write(FILE, st.save(_spectral(config, Pairs.of(pairs))))
    return name


def _of_towers(workspace: Workspace, name: str, config: Config, pairs: Version, draft: Draft) -> dict[str, Tensor]:
    """As ``fill`` takes them, the weights of the finished towers of this name."""
    before = Before.named(workspace, name)
    before.towers.verified(weights.USER_FILE, weights.ITEM_FILE, weights.CONFIG_FILE)
    before.pairs.verified("vocab")
    if problem := why_not(before, config, pairs):
        raise InputError(f"train.start_from={name}: {problem}; set it to null to train from the start")
    rows = _row_maps(before, config, pairs, draft.store)
    kept: dict[str, Tensor] = {}
    for side, path in (("user", weights.USER_FILE), ("item", weights.ITEM_FILE)):
        for key, value in st.load(before.towers.store.read(path)).items():
            if key in _OF_THE_ITEMS:
                continue
            known = f"{side}.{key}"
            if known in rows:
                into, of = rows[known]
                kept[known + _ROWS], value = torch.tensor(into), value[torch.from_numpy(of)]
            kept[known] = value.contiguous()
    return kept


def _spectral(config: Config, pairs: Pairs) -> dict[str, Tensor]:
    """As ``fill`` takes them, ``spectral.vectors`` of the items' own embeddings and of what their events say.

    Items without an event in the sample begin as they would without it.
    """
    parts, row_of = sample.of(pairs), pairs.embedding_rows()
    num_users = sum(map(len, parts))
    user = np.repeat(np.arange(num_users), np.concatenate([np.diff(part.offsets) for part in parts]))
    item = np.concatenate([part.items for part in parts]).astype(np.int64)
    row = item if row_of is None else row_of[item]
    num_rows = pairs.num_items if row_of is None else int(row_of.max()) + 1
    found = spectral.vectors(user, row, num_users, num_rows, config.model.dim, config.seed)
    met = np.unique(row)
    kept = {}
    for table in ("item.ids.weight", *(() if config.model.share_items else ("user.history.weight",))):
        kept[table], kept[table + _ROWS] = torch.from_numpy(found[met]), torch.from_numpy(met + 1)
    return kept


def load(store: Store) -> dict[str, Tensor] | None:
    """What ``leave`` left in the draft whose root is ``store``; None where that is nothing."""
    return dict(st.load(store.read(FILE))) if store.exists(FILE) else None


def fill(towers: TwoTower, kept: dict[str, Tensor]) -> None:
    """Give untrained towers the weights that are ``kept``; rows that are new stay as they are."""
    state = towers.state_dict()
    with torch.no_grad():
        for key, value in kept.items():
            if key.endswith(_ROWS) or key not in state:  # the events' table of towers that share it is made of others
                continue
            if key + _ROWS in kept:
                state[key][kept[key + _ROWS]] = value
            else:
                state[key].copy_(value)


def _row_maps(before: Before, config: Config, pairs: Version, store: Store) -> dict[str, tuple[Rows, Rows]]:
    """By table: rows of the new one, and the rows of the old one that they begin with."""
    theirs, ours = Pairs.of(before.pairs), Pairs.of(pairs)
    ids = _item_rows(theirs, ours)
    found = {"item.ids.weight": ids}
    if not config.model.share_items:
        found["user.history.weight"] = ids
    for block, old, new in (
        ("item.features", theirs.encoders("items"), ours.encoders("items")),
        ("user.features", theirs.encoders("users"), ours.encoders("users")),
        ("user.context", load_context(before.towers.store), context.encoders(config.context, ours, store)),
    ):
        for place, (one, other) in enumerate(zip(old.bags, new.bags, strict=True)):
            found[f"{block}.bags.{place}.weight"] = _token_rows(one, other)
    return found


def _item_rows(theirs: Pairs, ours: Pairs) -> tuple[Rows, Rows]:
    """Rows of the items' own embeddings, of which row 0 stands for no item or an unknown one."""
    old = IdMap(_ids(theirs)).rows(_ids(ours)).astype(np.int64)
    new = np.flatnonzero(old >= 0)
    into, of = new, old[new]
    shared = np.arange(0)
    if (row_now := ours.embedding_rows()) is not None and (row_then := theirs.embedding_rows()) is not None:
        into, of = row_now[into], row_then[of]
        shared = np.arange(ours.rules.rare_buckets)
        own = into >= ours.rules.rare_buckets  # what items share is taken over as a whole
        into, of = into[own], of[own]
    first = np.zeros(1, dtype=np.int64)
    return np.concatenate([first, shared + 1, into + 1]), np.concatenate([first, shared + 1, of + 1])


def _token_rows(old: Encoder, new: Encoder) -> tuple[Rows, Rows]:
    """Rows of a feature's tokens: those of a value go with the value, all others with their number."""
    if not (old.values or new.values):
        same = np.arange(min(old.num_tokens, new.num_tokens))
        return same, same
    first = UNKNOWN + 1
    then = {value: place + first for place, value in enumerate(old.values)}
    into = [place + first for place, value in enumerate(new.values) if value in then]
    of = [then[value] for value in new.values if value in then]
    both = np.arange(first)
    return np.concatenate([both, np.array(into, np.int64)]), np.concatenate([both, np.array(of, np.int64)])


def _ids(pairs: Pairs) -> Any:
    return whole(pairs.vocabulary()["item"])


def _sharing(pairs: Pairs) -> int:
    return pairs.rules.rare_buckets if pairs.rules.rare_items == "hash" else 0


def _kinds(encoders: Encoders) -> list[tuple[object, ...]]:
    """What of each feature fixes which weights there are, and what they stand for."""
    return [
        (
            *(one.column, one.kind, one.transform, one.num_buckets, one.num_hashes, one.ngrams, one.length),
            one.separator,
        )
        for one in encoders.features
    ]

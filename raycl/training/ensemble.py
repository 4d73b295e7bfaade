"""The towers stage of a config that names finished towers to put together, in place of training some."""

from __future__ import annotations

import json
from collections.abc import Sequence

import safetensors.torch as st
import torch
from torch import Tensor

from raycl import config_file, lineage
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.errors import ConfigError, InputError
from raycl.model import embed, ensemble, inputs, users, weights
from raycl.model.ensemble import Shape
from raycl.storage.store import Store, absolute
from raycl.storage.versions import Version, Workspace

STAGE = "towers"


def config_of(members: Sequence[Config], combine: str = "concatenate") -> Config:
    """The first config, with the finished towers of all in place of training.

    ConfigError where there are fewer than two, ``combine`` is no word of the config, or they work in other workspaces;
    InputError where one has no finished towers.
    """
    for member in members:
        if member.workspace != members[0].workspace:
            raise ConfigError(
                f"workspace={member.workspace} and workspace={members[0].workspace}: an ensemble is of one workspace"
            )
    towers = [lineage.towers(member, Workspace(Store(absolute(member.workspace)))).name for member in members]
    tree = members[0].model_dump(mode="json", exclude={"search"})
    return config_file.check({**tree, "ensemble": {"towers": towers, "combine": combine}})


def run(config: Config, workspace: Workspace, pairs: Version, *, force: bool = False) -> tuple[Version, bool]:
    """Put ``config.ensemble.towers`` together; the second value is False where that was done.

    InputError where they were not trained on ``pairs``, read other features of requests, are an ensemble themselves, or
    are to be averaged and differ in length; CorruptRelease where their files were altered.
    """
    assert config.ensemble is not None, "the caller has looked"
    digest = lineage.digest(config, STAGE, pairs.name)
    if not force and (done := workspace.find(STAGE, digest)):
        return done, False
    members = [_member(workspace, name, pairs) for name in config.ensemble.towers]
    contexts = [member.store.read(users.CONTEXT_FILE) for member in members]
    for member, context in zip(members, contexts, strict=True):
        if context != contexts[0]:
            raise InputError(
                f"ensemble.towers: {member.name} and {members[0].name} read other features of a request: put towers of"
                f" one config.context together"
            )
    shape = _shape(config, members)
    workspace.store.require_writable()
    draft = workspace.draft(STAGE, digest, fresh=force)
    draft.store.write(weights.CONFIG_FILE, shape.to_json())
    draft.store.write(users.CONTEXT_FILE, contexts[0])
    turned = _rotations(members, pairs) if shape.averaged else None
    parameters = 0
    for path in (weights.USER_FILE, weights.ITEM_FILE):
        found = ensemble.together([st.load(member.store.read(path)) for member in members], turned)
        parameters += sum(tensor.numel() for tensor in found.values() if tensor.is_floating_point())
        draft.store.write(path, st.save(found))
    _require_loadable(draft.store)
    names = [member.name for member in members]
    facts = {"losses": [], "pairs_per_s": [], "validation": [], "kept_step": 0}
    told = {
        **facts,
        "kept": f"the vectors of {' and '.join(names)}, {'averaged' if shape.averaged else 'side by side'}",
    }
    draft.store.write("metrics.json", json.dumps(told).encode())
    version = draft.commit(
        inputs={"pairs": pairs.name, **{f"member_{place}": name for place, name in enumerate(names)}},
        config=lineage.part(config, STAGE),
        counts={"members": len(members), "dimensions": shape.dim, "parameters": parameters},
        facts={**told, "pairs_fingerprint": pairs.manifest.fingerprint, "mined": None},
    )
    return version, True


def _member(workspace: Workspace, name: str, pairs: Version) -> Version:
    member = workspace.open(STAGE, name)
    made_from = member.manifest.inputs["pairs"]
    if made_from != pairs.name:
        raise InputError(
            f"ensemble.towers: {name} was trained on pairs {made_from}, and those of this config are {pairs.name}: put"
            f" towers of the same pairs together"
        )
    member.verified(weights.USER_FILE, weights.ITEM_FILE, weights.CONFIG_FILE, users.CONTEXT_FILE)
    if len(weights.load_shape(member.store).members) > 1:
        raise InputError(f"ensemble.towers: {name} is an ensemble itself: name its members")
    return member


def _shape(config: Config, members: Sequence[Version]) -> Shape:
    specs = tuple(weights.load_spec(member.store) for member in members)
    assert config.ensemble is not None
    shape, pq_bytes = Shape(specs, config.ensemble.combine == "average"), config.index.pq_bytes
    dims = [spec.model.dim for spec in specs]
    if shape.averaged and len(set(dims)) > 1:
        raise InputError(
            f"ensemble.combine=average needs vectors of one length, and ensemble.towers have {dims}: use concatenate"
        )
    if pq_bytes is not None and shape.dim % pq_bytes:
        raise ConfigError(
            f"index.pq_bytes={pq_bytes} must divide the {shape.dim} dimensions of ensemble.towers: choose another"
        )
    return shape


def _rotations(members: Sequence[Version], pairs: Version) -> Tensor:
    found = Pairs.of(pairs)
    features = inputs.from_table(found.encoded("items"), found.encoders("items"), found.num_items)
    return ensemble.rotations(
        [torch.from_numpy(embed.items(weights.load_item(member.store), features)) for member in members]
    )


def _require_loadable(store: Store) -> None:
    weights.load_user(store)
    weights.load_item(store)

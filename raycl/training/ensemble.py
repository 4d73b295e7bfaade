"""The towers stage of a config that names finished towers to put together, in place of training some."""

from __future__ import annotations

import json
from collections.abc import Sequence

import safetensors.torch as st

from raycl import config_file, lineage
from raycl.config import Config
from raycl.errors import ConfigError, InputError
from raycl.model import ensemble, users, weights
from raycl.storage.store import Store, absolute
from raycl.storage.versions import Version, Workspace

STAGE = "towers"


def config_of(members: Sequence[Config]) -> Config:
    """The first config, with the finished towers of all in place of training.

    ConfigError where there are fewer than two, or they work in other workspaces; InputError where one has no finished
    towers.
    """
    for member in members:
        if member.workspace != members[0].workspace:
            raise ConfigError(
                f"workspace={member.workspace} and workspace={members[0].workspace}: an ensemble is of one workspace"
            )
    towers = [lineage.towers(member, Workspace(Store(absolute(member.workspace)))).name for member in members]
    tree = members[0].model_dump(mode="json", exclude={"search"})
    return config_file.check({**tree, "ensemble": {"towers": towers}})


def run(config: Config, workspace: Workspace, pairs: Version, *, force: bool = False) -> tuple[Version, bool]:
    """Put ``config.ensemble.towers`` together; the second value is False where that was done.

    InputError where they were not trained on ``pairs``, read other features of requests, or are an ensemble themselves,
    CorruptRelease where their files were altered.
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
    specs = [weights.load_spec(member.store) for member in members]
    dim, pq_bytes = sum(spec.model.dim for spec in specs), config.index.pq_bytes
    if pq_bytes is not None and dim % pq_bytes:
        raise ConfigError(
            f"index.pq_bytes={pq_bytes} must divide the {dim} dimensions of ensemble.towers: choose another"
        )
    workspace.store.require_writable()
    draft = workspace.draft(STAGE, digest, fresh=force)
    draft.store.write(weights.CONFIG_FILE, ensemble.to_json(specs))
    draft.store.write(users.CONTEXT_FILE, contexts[0])
    parameters = 0
    for path in (weights.USER_FILE, weights.ITEM_FILE):
        found = ensemble.together([st.load(member.store.read(path)) for member in members])
        parameters += sum(tensor.numel() for tensor in found.values() if tensor.is_floating_point())
        draft.store.write(path, st.save(found))
    _require_loadable(draft.store)
    names = [member.name for member in members]
    facts = {"losses": [], "pairs_per_s": [], "validation": [], "kept_step": 0}
    told = {**facts, "kept": f"the vectors of {' and '.join(names)}, side by side"}
    draft.store.write("metrics.json", json.dumps(told).encode())
    version = draft.commit(
        inputs={"pairs": pairs.name, **{f"member_{place}": name for place, name in enumerate(names)}},
        config=lineage.part(config, STAGE),
        counts={"members": len(members), "dimensions": dim, "parameters": parameters},
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
    if len(ensemble.members_of(member.store.read(weights.CONFIG_FILE))) > 1:
        raise InputError(f"ensemble.towers: {name} is an ensemble itself: name its members")
    return member


def _require_loadable(store: Store) -> None:
    weights.load_user(store)
    weights.load_item(store)

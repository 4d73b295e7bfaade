"""The releases of a workspace: which there are, which was current when, back to an older one, and fewer of them."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from raycl.errors import InputError, RayclError
from raycl.index import deltas, publish, release
from raycl.storage import pointer
from raycl.storage.manifest import FILE
from raycl.storage.pointer import Pointer, Publication
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Version, Workspace

STAGE = "releases"
_CANDIDATES = 5
"""Names that an error lists, the newest first."""


def named(workspace: Workspace, name: str | None) -> Version:
    """The release of this name, or whose name alone begins so, or the current one; InputError where there is none."""
    if name is not None:
        return workspace.open(STAGE, full_name(workspace, name))
    published = pointer.current(workspace.store)
    if published is None:
        raise InputError(f"workspace={workspace.store.uri} has no published release: name one of 'raycl release list'")
    return workspace.open(STAGE, published.release)


def full_name(workspace: Workspace, beginning: str) -> str:
    """The one finished release whose name is or begins so; InputError, with the candidates, for none or several."""
    names = workspace.finished(STAGE)[::-1]
    found = [name for name in names if name.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    said = f"is the beginning of {len(found)} releases" if found else "is no release, nor the beginning of one"
    candidates = found or names
    few = ", ".join(candidates[:_CANDIDATES]) + (", ..." if len(candidates) > _CANDIDATES else "")
    there = f"name one of {few}" if candidates else "there is none; 'raycl run' makes the first"
    raise InputError(f"release {beginning!r} {said} in workspace={workspace.store.uri}: {there}")


def listed(workspace: Workspace) -> list[dict[str, Any]]:
    """Every finished release, the newest first, with what the gate found and when it was current."""
    history = pointer.history(workspace.store)
    current = history[-1].pointer.release if history else None
    rows = []
    for version in workspace.readable(STAGE):
        facts, counts = version.manifest.facts, version.manifest.counts
        publications = [one for one in history if one.pointer.release == version.name]
        rows.append(
            {
                "release": version.name,
                "state": _state(version.name == current, bool(publications), facts["publish"]),
                "published": ", ".join(f"{one.pointer.number} ({moment(one.at_s)})" for one in publications),
                "items": counts["vectors"],
                "index_bytes": counts["index_bytes"],
                "index_recall": facts["index_recall"],
                "gate": "passed" if facts["publish"] else f"refused: {facts['reason']}",
            }
        )
    return rows


def described(workspace: Workspace, version: Version) -> dict[str, Any]:
    """All that a release says of itself."""
    store, manifest = version.store, version.manifest
    history = pointer.history(workspace.store)
    return {
        "release": version.name,
        "uri": store.uri,
        "current": bool(history) and history[-1].pointer.release == version.name,
        "published": [
            {"number": one.pointer.number, "at": moment(one.at_s)}
            for one in history
            if one.pointer.release == version.name
        ],
        "lineage": asdict(release.lineage_of(store)),
        "search": asdict(release.search_of(store)),
        "gate": json.loads(store.read(release.GATE_FILE)),
        "counts": manifest.counts,
        "config": manifest.config,
        "raycl": manifest.raycl,
        "libraries": manifest.libraries,
        "files": {path: {"bytes": manifest.sizes[path], "sha256": manifest.checksums[path]} for path in manifest.sizes},
    }


def verified(versions: Sequence[Version]) -> dict[str, str]:
    """By name of each release: what is wrong with it, or nothing. Every byte is read."""
    found = {}
    for version in versions:
        try:
            release.verify(version.store)
            found[version.name] = ""
        except RayclError as error:
            found[version.name] = str(error)
    return found


def rollback(workspace: Workspace, to: str | None = None) -> Pointer:
    """Publish an older release anew, once it is verified: ``to``, or the one that came before the current one.

    "Before" is by first publication, so that a second rollback goes one further back, and never to what the first one
    left. Those that were pruned are passed over. InputError where there is nothing to go back to, or ``to`` was never
    published.
    """
    order = list(dict.fromkeys(one.pointer.release for one in pointer.history(workspace.store)))
    current = pointer.current(workspace.store)
    if to is None:
        earlier = order[: order.index(current.release)] if current else []
        there = set(workspace.finished(STAGE))
        to = next((name for name in reversed(earlier) if name in there), None)
        if to is None:
            raise InputError(
                f"workspace={workspace.store.uri} has no release that was published before"
                f" {current.release if current else 'any other'}: see 'raycl release list'"
            )
    elif (to := full_name(workspace, to)) not in order:
        raise InputError(f"release {to} was never published: use 'raycl release promote' to publish it")
    return publish.publish(workspace, workspace.open(STAGE, to))


@dataclass(frozen=True)
class Kept:
    """What stays and what goes: by name, why a release is kept; and the names of those that nothing keeps."""

    reasons: dict[str, str]
    removed: tuple[str, ...]


def chosen(
    names: Sequence[str], history: Sequence[Publication], now_s: float, keep: int, grace_s: float, pins: Collection[str]
) -> Kept:
    """Which of the releases ``names``, oldest first, are kept.

    The current one; the ``keep`` that were current last; those that were so within ``grace_s``, since a server that
    polls may be loading one still; ``pins``; and those that were never published and are newer than the oldest of
    these ``keep``: the last build that the gate refused, or one to be published next.
    """
    reasons: dict[str, str] = {}
    last = list(dict.fromkeys(one.pointer.release for one in reversed(history)))
    there = [name for name in last if name in set(names)]
    for name in there[:keep]:
        reasons[name] = "current" if name == last[0] else f"one of the {keep} that were current last"
    for one, after in itertools.pairwise(history):
        ended_s = now_s - after.at_s
        if ended_s < grace_s:
            reasons.setdefault(one.pointer.release, f"was current {ended_s:.0f} s ago, and a server may still load it")
    for name in pins:
        reasons.setdefault(name, "pinned")
    oldest = min(there[:keep], default="")
    for name in names:
        if name not in last and name > oldest:
            reasons.setdefault(name, "never published, and newer than the oldest that is kept")
    reasons = {name: reasons[name] for name in names if name in reasons}
    return Kept(reasons, tuple(name for name in names if name not in reasons))


def prune(
    workspace: Workspace, keep: int, grace_s: float, pins: Collection[str] = (), *, dry_run: bool = False
) -> Kept:
    """Remove the releases that ``chosen`` does not keep, with their deltas; with ``dry_run`` only say which.

    A server holds its release in memory, so it answers on from one that is removed; it is while loading that a release
    must not go. A prune that was killed is brought to its end by the next one.
    """
    store = workspace.store
    names = workspace.finished(STAGE)
    unknown = set(pins) - set(names)
    if unknown:
        raise InputError(f"--pin {sorted(unknown)[0]}: no such finished release: see 'raycl release list'")
    found = chosen(names, pointer.history(store), time.time(), keep, grace_s, pins)
    if dry_run:
        return found
    store.require_writable()
    for name in [path.removesuffix(".json") for path in store.names(publish.PRUNED)]:
        _remove(store, name)
    gone = []
    for name in found.removed:
        store.write(publish.mark(name), json.dumps({"release": name}).encode())
        if _remove(store, name):
            gone.append(name)
    republished = {name: "published meanwhile" for name in found.removed if name not in gone}
    return Kept(found.reasons | republished, tuple(gone))


def _remove(store: Store, name: str) -> bool:
    """Remove a release that is marked, the manifest first, and then the mark; False where it is current by now.

    Where it is being built anew, only the mark goes.
    """
    published = pointer.current(store)
    is_current = published is not None and published.release == name
    folder = f"{STAGE}/{name}"
    finished = store.exists(f"{folder}/{FILE}")
    if not is_current and (finished or not store.exists(f"{folder}/{WORK}/lease")):
        if finished:
            store.delete_folder(f"{folder}/{WORK}")  # what a killed commit left would look like a build
            store.delete(f"{folder}/{FILE}")
        store.delete_folder(folder)
        store.delete_folder(f"{deltas.FOLDER}/{name}")
    store.delete(publish.mark(name))
    return not is_current


def moment(at_s: float) -> str:
    """A time in UTC, to the second."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S}"


def _state(is_current: bool, was_published: bool, passed: bool) -> str:
    if is_current:
        return "current"
    return "published" if was_published else "ready" if passed else "refused"

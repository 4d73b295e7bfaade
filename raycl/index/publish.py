"""Publishing: the last check of a release, and the one write that makes it current."""

from __future__ import annotations

import json

from raycl.errors import GateRefused, InputError, RayclError
from raycl.index import carry, release
from raycl.storage import pointer
from raycl.storage.pointer import Pointer
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace

PRUNED = "releases/pruned"
"""A mark here says that the release of its name is being removed."""


def publish(workspace: Workspace, version: Version) -> Pointer:
    """Make a release current, after loading it as a server would and asking the gate's verdict; again does nothing.

    What was handed in to the release before is carried over, also where that comes while this one is published.

    Raises GateRefused with the gate's reason, CorruptRelease where a file is not what was built or cannot be read,
    InputError where the release is being pruned, and StoreUnavailable: then what was current stays so. RayclError,
    which says so, where the release is current and not all that was handed in meanwhile is carried over.
    """
    store = workspace.store
    store.require_writable()
    _require_kept(store, version.name)
    release.load(version.store)
    verdict = json.loads(version.store.read(release.GATE_FILE))["verdict"]
    if not verdict["publish"]:
        raise GateRefused(f"release {version.name} is not published: {verdict['reason']}")
    before, source = pointer.current(store), carry.before(store, version.name)
    carry.over(workspace, source, version)
    made = pointer.publish(store, version.name)
    try:
        # Whoever prunes marks first and looks at the pointer then; here it is the other way round, so one of both sees
        # the other, whichever is first.
        _require_kept(store, version.name)
    except InputError:
        if before is not None and pointer.current(store) == made:
            pointer.publish(store, before.release)
        raise
    # Whoever hands in looks at the pointer after it; here it is the other way round, so one of both sees the other.
    try:
        carry.over(workspace, source, version)
    except (RayclError, OSError) as error:
        raise RayclError(
            f"release {version.name} is current, but what was handed in to {source} while it was published is not all"
            f" carried over ({error}): publish {version.name} again, which brings that to its end"
        ) from error
    return made


def mark(name: str) -> str:
    """Path of the mark that a release of this name is being removed."""
    return f"{PRUNED}/{name}.json"


def _require_kept(store: Store, name: str) -> None:
    if store.exists(mark(name)):
        raise InputError(
            f"release {name} is being pruned ({store.uri}/{mark(name)}): publish another one, or build it again"
        )

"""Publishing: the last check of a release, and the one write that makes it current."""

from __future__ import annotations

import json

from raycl.errors import GateRefused
from raycl.index import release
from raycl.storage import pointer
from raycl.storage.pointer import Pointer
from raycl.storage.versions import Version, Workspace


def publish(workspace: Workspace, version: Version) -> Pointer:
    """Make a release current, after loading it as a server would and asking the gate's verdict; again does nothing.

    Raises GateRefused with the gate's reason, and CorruptRelease where a file is not what was built or cannot be read.
    """
    workspace.store.require_writable()
    release.load(version.store)
    verdict = json.loads(version.store.read(release.GATE_FILE))["verdict"]
    if not verdict["publish"]:
        raise GateRefused(f"release {version.name} is not published: {verdict['reason']}")
    return pointer.publish(workspace.store, version.name)

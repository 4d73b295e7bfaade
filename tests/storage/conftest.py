"""An empty store to test on: a folder of this machine, and a bucket of an S3 server on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycl.storage.store import Store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "local":
        return Store(str(tmp_path / "team" / "workspace"))
    found: Store = request.getfixturevalue("s3_store")
    return found

"""The finished workspace that these tests read."""

from __future__ import annotations

import pytest

from raycl.config import Config
from tests.tiny import finished


@pytest.fixture(scope="session")
def tiny(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a tiny finished and published workspace; a test that changes files copies it first."""
    return finished(tmp_path_factory.getbasetemp())

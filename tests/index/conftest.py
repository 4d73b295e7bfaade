"""The finished workspace that these tests read."""

from __future__ import annotations

import pytest

from raycl.config import Config
from tests.tiny import copied, finished, retrained


@pytest.fixture(scope="session")
def tiny(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a tiny finished and published workspace; a test that changes files copies it first."""
    return finished(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def pair_of_releases(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Config]:
    """Two configs of one workspace, each with a release of its own towers; the first is published."""
    first = copied(tiny, tmp_path_factory.mktemp("pair"))
    return first, retrained(first)

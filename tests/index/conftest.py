"""The finished workspace that these tests read."""

from __future__ import annotations

import pytest

from raycl import journey
from raycl.config import Config
from tests.tiny import changed, copied, finished, retrained


@pytest.fixture(scope="session")
def tiny(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a tiny finished and published workspace; a test that changes files copies it first."""
    return finished(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def compressed(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The same with a release of compressed vectors, re-ranked by stored ones; it is not published."""
    config = changed(copied(tiny, tmp_path_factory.mktemp("compressed")), "index", kind="sq8", rerank="always")
    journey.index(config)
    return config


@pytest.fixture(scope="session")
def pair_of_releases(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Config]:
    """Two configs of one workspace, each with a release of its own towers; the first is published."""
    first = copied(tiny, tmp_path_factory.mktemp("pair"))
    return first, retrained(first)

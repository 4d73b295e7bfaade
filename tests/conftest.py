"""What tests ask for by name: an embedded Ray, an S3 server, the data that lies beside the checkout."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Ray reads these when it is imported, so they stand before any test does that.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # Ray reads it in this spelling
for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
    os.environ.pop(name, None)

pytest_plugins = ["tests.s3"]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """An embedded Ray of two CPUs for the whole session, started by the first test that asks for it."""
    import ray

    # A socket's path has at most 107 bytes, so the folder is not pytest's long one.
    folder = tempfile.mkdtemp(prefix="raycl-ray-")
    ray.init(address="local", num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, _temp_dir=folder)
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder for Ray's sessions; a socket's path has at most 107 bytes, so it is not pytest's long one."""
    folder = Path(tempfile.mkdtemp(prefix="rs-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def movielens() -> Path:
    """MovieLens-1M as Parquet; the test is skipped where it is absent."""
    folder = Path(os.environ.get("RAYCL_DATA", ROOT.parent / "shared" / "data")) / "ml-1m"
    if not (folder / "interactions.parquet").exists():
        pytest.skip(f"needs MovieLens-1M as Parquet in {folder}; name its parent folder in RAYCL_DATA")
    return folder

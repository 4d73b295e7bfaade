"""An S3 server on this machine, and an environment in which raycl works against it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3fs

from raycl import ports
from raycl.storage import store as store_module
from raycl.storage.store import Store
from tests import faulty_s3
from tests.faulty_s3 import FaultyS3

_START_S = 60.0


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of a moto server that this session starts and stops, or of the server that ``RAYCL_TEST_S3`` names."""
    if given := os.environ.get("RAYCL_TEST_S3"):
        yield given
        return
    (port,) = ports.free(1)
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_S
        while not _listens(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} does not answer: exit code {server.poll()}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3_environment(s3_endpoint: str) -> Iterator[None]:
    """The environment of a process that works against the S3 server; afterwards all is as before."""
    before = dict(os.environ)
    for name in before:
        if name.endswith("CA_BUNDLE") or name.lower().endswith("_proxy") or name.startswith("AWS_"):
            del os.environ[name]
    os.environ |= {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": before.get("RAYCL_TEST_S3_KEY", "test"),
        "AWS_SECRET_ACCESS_KEY": before.get("RAYCL_TEST_S3_SECRET", "test"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    _forget_connections()
    yield
    _forget_connections()
    os.environ.clear()
    os.environ |= before


@pytest.fixture
def s3_client(s3_environment: None) -> Any:
    """The S3 server as boto3 sees it, beside everything that raycl does."""
    return boto3.client("s3")


@pytest.fixture
def s3_store(s3_client: Any) -> Store:
    """A prefix in a bucket of its own."""
    bucket = f"bucket-{uuid.uuid4().hex}"
    s3_client.create_bucket(Bucket=bucket)
    return Store(f"s3://{bucket}/team/workspace")


@pytest.fixture
def faulty_store(s3_endpoint: str, s3_store: Store) -> Iterator[tuple[Store, FaultyS3]]:
    """A prefix in a bucket of its own, and the proxy through which it is reached, without faults at first."""
    with faulty_s3.before(s3_endpoint) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.url
        _forget_connections()
        yield s3_store, proxy


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _forget_connections() -> None:
    store_module._open_bucket.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()

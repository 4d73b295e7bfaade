"""What every test of training works under."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def small_and_fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, since more only wait for each other on towers this small; and no test outlives a power cut."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    yield
    torch.set_num_threads(threads)

"""The command ``raycl`` in this process, as the tests of what it says call it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from raycl import cli, environment, ray_runtime


class Ended(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Takes the command's words; it fails where it would start Ray."""

    def refuse(_: object) -> None:
        pytest.fail("the command starts Ray")

    def run(*words: object) -> Ended:
        with pytest.raises(SystemExit) as end:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, out, err)

    monkeypatch.setattr(ray_runtime, "connect", refuse)
    monkeypatch.setattr(environment, "prepare", lambda: None)
    return run


def told(ended: Ended) -> Any:
    """What ``--json`` printed of a command that ended well."""
    assert ended.code == 0, ended.err
    return json.loads(ended.out)

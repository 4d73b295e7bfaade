"""Where curves go: addresses of servers, which hold no secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycl import config_file, lineage
from raycl.errors import ConfigError
from tests.tiny import changed, tiny_config


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "https://mlflow.internal/tracking/"])
def test_an_address_is_kept_and_changes_no_version(tmp_path: Path, uri: str) -> None:
    config = tiny_config(tmp_path)
    tracked = changed(config, "tracking", mlflow_uri=uri, experiment="shop")
    assert tracked.tracking.mlflow_uri == uri.rstrip("/")
    for stage in ("pairs", "towers", "evaluations", "releases"):
        assert lineage.digest(tracked, stage) == lineage.digest(config, stage)


@pytest.mark.parametrize(
    "uri", ["http://me:sesame@host:5000", "https://sesame@host", "http://host/?token=sesame", "http://host/?a=1#sesame"]
)
def test_an_address_with_secrets_is_refused_and_not_repeated(tmp_path: Path, uri: str) -> None:
    tree = tiny_config(tmp_path).model_dump(mode="json") | {"tracking": {"mlflow_uri": uri}}
    with pytest.raises(ConfigError, match=r"^tracking\.mlflow_uri=.*set MLFLOW_TRACKING_USERNAME") as refused:
        config_file.check(tree)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    "uri", ["mlruns", "sqlite:///x", "http://", "databricks", "http://[::1", "http://me:se/sesame@host", ""]
)
def test_what_is_no_server_is_refused(tmp_path: Path, uri: str) -> None:
    tree = tiny_config(tmp_path).model_dump(mode="json") | {"tracking": {"mlflow_uri": uri}}
    with pytest.raises(ConfigError, match=r"^tracking\.mlflow_uri=.*address of an MLflow tracking server") as refused:
        config_file.check(tree)
    assert "sesame" not in str(refused.value)

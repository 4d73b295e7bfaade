"""What the Serve config files and the environment in `deploy/` say is what Serve, Ray and raycl understand."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from raycl import environment
from raycl.config import IndexConfig, ServingConfig
from raycl.errors import ConfigError
from raycl.index import plan
from raycl.serving import ray_app

ROOT = Path(__file__).resolve().parent.parent
SERVE = ROOT / "deploy" / "serve.yaml"
FILES = (SERVE, ROOT / "deploy" / "serve-laptop.yaml")
WORKSPACE = "s3://bucket/shop"


def read(path: Path) -> dict[str, Any]:
    """The one document of a YAML file."""
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def unknown_keys(value: Any, model: type[BaseModel], where: str = "") -> list[str]:
    """Keys that Serve would pass over in silence: its schemas are open, for configs of newer versions."""
    found = []
    for key, part in value.items():
        if key not in model.model_fields:
            found.append(f"{where}{key}")
            continue
        for inner in _models_in(model.model_fields[key].annotation):
            for one in part if isinstance(part, list) else [part]:
                found += unknown_keys(one, inner, f"{where}{key}.")
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)


def application(path: Path = SERVE) -> dict[str, Any]:
    """The one application of a Serve config."""
    (found,) = read(path)["applications"]
    return dict(found)


@pytest.fixture(autouse=True)
def workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment of a node says."""
    monkeypatch.setenv("RAYCL_WORKSPACE", WORKSPACE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_serve_knows_every_key_of_the_config(path: Path) -> None:
    ServeDeploySchema.model_validate(read(path))
    assert unknown_keys(read(path), ServeDeploySchema) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ((), "application"),
        (("http_options",), "timeout_s"),
        (("applications", 0), "route"),
        (("applications", 0, "deployments", 0), "max_queued"),
        (("applications", 0, "deployments", 0, "ray_actor_options"), "num_cpu"),
        (("applications", 0, "deployments", 0, "autoscaling_config"), "min_replica"),
    ],
)
def test_a_key_that_serve_passes_over_is_found(path: tuple[str | int, ...], name: str) -> None:
    tree = read(SERVE)
    tree["applications"][0]["deployments"][0]["autoscaling_config"] = {"min_replicas": 1}
    inner: Any = tree
    for step in path:
        inner = inner[step]
    inner[name] = 1
    ServeDeploySchema.model_validate(tree)
    assert unknown_keys(tree, ServeDeploySchema) == [
        ".".join([*(step for step in path if isinstance(step, str)), name])
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_raycl_builds_the_application_from_its_arguments(path: Path) -> None:
    found = application(path)
    assert found["import_path"] == f"{ray_app.__name__}:{ray_app.build.__name__}"
    assert found["name"] == ray_app.NAME
    built = ray_app.build(found["args"])._bound_deployment
    serving = ServingConfig.model_validate(found["args"]["serving"])
    assert list(built.init_args) == [WORKSPACE, serving.model_dump(mode="json")]
    with pytest.raises(ConfigError, match="surplus"):
        ray_app.build({**found["args"], "surplus": 1})


def test_a_node_that_does_not_say_where_the_workspace_is_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYCL_WORKSPACE")
    with pytest.raises(ConfigError, match="RAYCL_WORKSPACE is not set"):
        ray_app.build(application()["args"])


def test_shards_in_deployments_of_their_own_read_the_workspace_that_the_environment_names() -> None:
    args = application()["args"]
    assert "$" in args["workspace"]
    sharded = args | {"serving": args["serving"] | {"placement": "sharded", "shards": {"parts": 3}}}
    given: list[Any] = list(ray_app.build(sharded)._bound_deployment.init_args)
    workspace, _, *shards = given
    assert workspace == WORKSPACE
    assert [one._bound_deployment.init_args for one in shards] == [(WORKSPACE, part, 3) for part in range(3)]


def test_what_waits_is_bounded_and_what_is_turned_away_is_told_when_to_come_back() -> None:
    built = ray_app.build({"workspace": "w", "serving": {"guard": {"max_queued": 7}}})._bound_deployment
    assert built.max_queued_requests == 7
    assert (built.backpressure_config.status_code, built.backpressure_config.retry_after_s) == (503, 1)


def test_every_serving_setting_has_its_line_but_those_that_serve_itself_decides() -> None:
    assert set(application()["args"]["serving"]) == set(ServingConfig.model_fields) - {"host", "port"}


def test_the_overrides_meet_the_deployment_and_leave_alone_what_raycl_derives() -> None:
    (override,) = application()["deployments"]
    derived = {
        "num_replicas",
        "autoscaling_config",
        "max_ongoing_requests",
        "max_queued_requests",
        "backpressure_config",
    }
    assert override["name"] == ray_app.build(application()["args"])._bound_deployment.name
    assert not override.keys() & derived


def test_the_environment_of_nodes_is_that_of_an_embedded_ray_and_the_fast_path_of_serve() -> None:
    lines = (ROOT / "deploy" / "ray.env").read_text(encoding="utf-8").splitlines()
    found = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert found.items() >= environment._DEFAULTS.items()
    # The store sets it itself, in processes of raycl.
    assert found.keys() - environment._DEFAULTS.keys() == {"AWS_REQUEST_CHECKSUM_CALCULATION"}


def test_requests_under_way_end_before_a_replica_does() -> None:
    (override,) = application()["deployments"]
    assert override["graceful_shutdown_timeout_s"] > read(SERVE)["http_options"]["request_timeout_s"]


def test_the_guide_says_what_an_index_takes_by_raycls_own_plan() -> None:
    text = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    table = text.split("<!-- index:start -->")[1].split("<!-- index:end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    assert [row[0] for row in rows] == ["1 million", "10 million", "100 million"]
    for row in rows:
        num_items = int(row[0].split()[0]) * 1_000_000
        for kind, told in zip(("ivf_flat", "ivf_sq8", "ivf_pq"), row[1:], strict=True):
            rerank = "never" if kind == "ivf_pq" else "auto"
            config = IndexConfig.model_validate({"kind": kind, "rerank": rerank, "num_shards": 4})
            expected = plan.choose(config, num_items, 64, 0.95).index_bytes / 1e9
            assert float(told.removesuffix(" GB")) == pytest.approx(expected, rel=0.06)

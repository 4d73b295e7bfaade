"""A run on a real MLflow server on loopback: steps once, parameters, and the end; and servers that do not answer.

MLflow needs an older pyarrow than raycl is tested with, so its server runs in an environment of its own: name its
command in RAYCL_MLFLOW.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from raycl import config_file, journey, ports
from raycl.config_tracking import TrackingConfig
from raycl.errors import RayclError
from raycl.storage.store import Store
from raycl.tracking import events, sinks
from raycl.tracking.mlflow import Mlflow
from tests.data import whole
from tests.tracking.test_events import at, start

ABOUT = {"seed": 3, "model": {"dim": 8, "hidden": [16, 8]}, "loss": {"terms": [{"kind": "softmax"}]}}
TAGS = {"raycl.pairs": "20260101T000000000-000000000000"}
VALIDATION = {
    "kind": "validation",
    "step": 2,
    "time": 6.0,
    "epoch": 0,
    "k": 20,
    "recall": 0.25,
    "ndcg": 0.5,
    "users": 9,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a store of its own."""
    command = os.environ.get("RAYCL_MLFLOW") or shutil.which("mlflow")
    if command is None:
        pytest.skip("needs an MLflow server: pip install mlflow in another environment, its command in RAYCL_MLFLOW")
    folder, port = tmp_path_factory.mktemp("mlflow"), ports.free(1)[0]
    uri = f"http://127.0.0.1:{port}"
    ours = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    for name in ("PYTHONPATH", "PYTHONWARNINGS"):
        ours.pop(name, None)
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/store.db", "--artifacts-destination", str(folder / "files")]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen([command, *words], cwd=folder, env=ours, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{uri}/health").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
            assert running.poll() is None, (folder / "log").read_text()
        yield uri
    finally:
        running.terminate()
        running.wait(30)


def asked(uri: str, path: str, **words: str) -> Any:
    return httpx.get(f"{uri}/api/2.0/mlflow/{path}", params=words).raise_for_status().json()


def run_of(uri: str, store: Store) -> Any:
    return asked(uri, "runs/get", run_id=json.loads(store.read("work/mlflow.json"))["run"])["run"]


def history(uri: str, run: Any, key: str) -> list[tuple[int, float]]:
    found = asked(uri, "metrics/get-history", run_id=run["info"]["run_id"], metric_key=key)["metrics"]
    return [(int(metric["step"]), metric["value"]) for metric in found]


def test_a_run_is_there_with_its_curves_parameters_and_end(server: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "20260102T000000000-0123456789ab"))
    _, sink = sinks.of(TrackingConfig(mlflow_uri=server, experiment="shop"), store, ABOUT, TAGS)
    for event in (
        start(0),
        at(1, 1.5, epoch=0, gradient_norm=None),
        at(2, 0.5, epoch=0, gradient_norm=2.0),
        VALIDATION,
    ):
        sink.put(event)
    sink.close(finished=True)
    run = run_of(server, store)
    assert (run["info"]["run_name"], run["info"]["status"]) == ("20260102T000000000-0123456789ab", "FINISHED")
    assert {param["key"]: param["value"] for param in run["data"]["params"]} == {
        "seed": "3",
        "model.dim": "8",
        "model.hidden.0": "16",
        "model.hidden.1": "8",
        "loss.terms.0.kind": "softmax",
    }
    assert TAGS.items() <= {tag["key"]: tag["value"] for tag in run["data"]["tags"]}.items()
    assert history(server, run, "train/loss") == [(1, 1.5), (2, 0.5)]
    assert history(server, run, "train/gradient_norm") == [(2, 2.0)]
    assert history(server, run, "validation/recall_at_20") == [(2, 0.25)]
    (experiment,) = {run["info"]["experiment_id"]}
    found = asked(server, "experiments/get-by-name", experiment_name="shop")["experiment"]
    assert found["experiment_id"] == experiment


def test_a_resumed_run_goes_on_in_the_same_one_and_logs_a_step_once(server: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    first = Mlflow(server, "shop", "resumed", ABOUT, store, TAGS)
    for number in range(1, 4):
        first.put(at(number, float(number)))
    first.close(finished=False)
    run = run_of(server, store)
    assert run["info"]["status"] == "KILLED"
    second = Mlflow(server, "shop", "resumed", ABOUT, store, TAGS)
    assert run_of(server, store)["info"]["status"] == "RUNNING"
    for event in (start(1), *(at(number, float(number)) for number in range(2, 1_500))):
        second.put(event)
    second.close(finished=True)
    again = run_of(server, store)
    assert (again["info"]["run_id"], again["info"]["status"]) == (run["info"]["run_id"], "FINISHED")
    assert history(server, again, "train/loss") == [(number, float(number)) for number in range(1, 1_500)]


def test_training_by_workers_is_one_run_on_the_server(server: str, ray_local: None, tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    settings = {"epochs": 2, "global_batch_size": 32, "threads_per_worker": 1, "use_gpu": "never", "num_workers": 2}
    plain = whole.config(tmp_path, train=settings, model={"dim": 8, "hidden": [8]}).model_dump(mode="json")
    config = config_file.check(plain | {"tracking": {"mlflow_uri": server, "experiment": "journey"}})
    journey.pairs(config)
    version = journey.train(config, lambda _: None).version
    experiment = asked(server, "experiments/get-by-name", experiment_name="journey")["experiment"]["experiment_id"]
    found = httpx.post(f"{server}/api/2.0/mlflow/runs/search", json={"experiment_ids": [experiment]}).json()["runs"]
    (run,) = found
    assert (run["info"]["run_name"], run["info"]["status"]) == (version.name, "FINISHED")
    told = [event for event in events.from_lines(version.store.read("track.jsonl")) if event["kind"] == "step"]
    steps, losses = zip(*history(server, run, "train/loss"), strict=True)
    assert list(steps) == [event["step"] for event in told]
    assert list(losses) == pytest.approx([event["loss"] for event in told])
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["raycl.pairs"] == version.manifest.inputs["pairs"]
    assert {"key": "train.num_workers", "value": "2"} in run["data"]["params"]
    assert server not in json.dumps(version.manifest.model_dump(mode="json"))


def test_a_server_that_is_not_there_is_named_and_nothing_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "sesame")
    uri = f"http://127.0.0.1:{ports.free(1)[0]}"
    with pytest.raises(RayclError, match=rf"^{uri} is out of reach \(ConnectError\)$"):
        Mlflow(uri, "shop", "towers", ABOUT, Store(str(tmp_path)), TAGS)


def test_who_may_write_is_told_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str | None] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        heard.append(request.headers.get("authorization"))
        return httpx.Response(403, json={"error_code": "PERMISSION_DENIED", "message": "sesame"})

    class Client(httpx.Client):
        def __init__(self, **settings: Any) -> None:
            super().__init__(transport=httpx.MockTransport(refuse), **settings)

    monkeypatch.setattr(httpx, "Client", Client)
    for names in ({"USERNAME": "a", "PASSWORD": "b"}, {"TOKEN": "t"}):
        for name, value in names.items():
            monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
        with pytest.raises(RayclError, match=r"^http://h answers experiments/get-by-name with 403 PERMISSION_DENIED$"):
            Mlflow("http://h", "shop", "towers", ABOUT, Store(str(tmp_path)), TAGS)
    assert heard == ["Basic YTpi", "Bearer t"]

"""From a template to a run, and what KubeRay's status says of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from raycl.errors import InputError
from raycl.kubernetes import rayjob
from raycl.kubernetes.rayjob import Owner

NOW = datetime(2026, 11, 21, 2, 0, 30, tzinfo=UTC)
MINUTES = int(NOW.timestamp()) // 60


def template(**changed: Any) -> dict[str, Any]:
    """A template as the API server returns it."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": "raycl-nightly",
            "namespace": "raycl",
            "uid": "1",
            "resourceVersion": "2",
            "labels": {"team": "shop"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        },
        "spec": {"suspend": True, "entrypoint": "python jobs/nightly.py c.yaml", "rayClusterSpec": {}, **changed},
        "status": {"jobDeploymentStatus": "Suspended"},
    }


def test_every_try_of_one_night_has_the_name_of_the_time_it_was_scheduled_for() -> None:
    later = NOW + timedelta(hours=23)
    assert rayjob.run_name("raycl-nightly", later, f"raycl-nightly-{MINUTES}") == "raycl-nightly-20261121-0200"
    assert rayjob.run_name("raycl-nightly", later, "by-hand") == "raycl-nightly-20261122-0100"
    assert rayjob.run_name("raycl-nightly", later) == "raycl-nightly-20261122-0100"
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    assert rayjob.run_name("raycl-nightly", east) == "raycl-nightly-20261121-0200"


def test_a_name_that_kuberay_would_refuse_is_refused_before() -> None:
    assert len(rayjob.run_name("n" * 33, NOW)) == rayjob.NAME_LIMIT
    with pytest.raises(InputError, match="48 characters and KubeRay allows 47: give the template a name of 33"):
        rayjob.run_name("n" * 34, NOW)


def test_a_copy_runs_what_the_template_says_and_has_nothing_of_its_identity() -> None:
    source = template()
    made = rayjob.copy_of(source, "raycl-nightly-20261121-0200")
    assert made == {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": "raycl-nightly-20261121-0200",
            "namespace": "raycl",
            "labels": {"team": "shop", "raycl-template": "raycl-nightly"},
        },
        "spec": {"suspend": False, "entrypoint": "python jobs/nightly.py c.yaml", "rayClusterSpec": {}},
    }
    assert source == template()


def test_a_copy_in_a_queue_of_kueue_waits_there() -> None:
    source = template()
    source["metadata"]["annotations"][rayjob.QUEUE] = "team"
    made = rayjob.copy_of(source, "a")
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert made["spec"]["suspend"] is True


def test_a_copy_goes_with_the_job_that_launched_it() -> None:
    (owner,) = rayjob.copy_of(template(), "a", owner=Owner("cron-1", "u"))["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "batch/v1", "kind": "Job", "name": "cron-1", "uid": "u", "controller": False}


def test_overrides_are_words_of_the_command() -> None:
    made = rayjob.copy_of(template(), "a", overrides=["train.epochs=3", "workspace=s3://b/a b; rm -rf /"])
    assert made["spec"]["entrypoint"] == (
        "python jobs/nightly.py c.yaml --set train.epochs=3 --set 'workspace=s3://b/a b; rm -rf /'"
    )


def test_a_job_that_runs_is_no_template() -> None:
    for suspend in (False, None):
        with pytest.raises(InputError, match=r"raycl-nightly is no template: spec\.suspend"):
            rayjob.copy_of(template(suspend=suspend), "a")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (None, "running"),
        ({}, "running"),
        ({"jobDeploymentStatus": "Suspended"}, "running"),
        ({"jobDeploymentStatus": "Initializing"}, "running"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "running"),
        ({"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"}, "running"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "done"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "failed"),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}, "failed"),
        ({"jobDeploymentStatus": "ValidationFailed", "message": "no image"}, "failed"),
    ],
)
def test_how_far_a_run_is(status: dict[str, Any] | None, state: str) -> None:
    run = template() | {"status": status} if status is not None else {"metadata": {"name": "raycl-nightly"}}
    found = rayjob.progress(run)
    assert found.state == state
    for said in ("reason", "message"):
        assert (status or {}).get(said, "") in found.told

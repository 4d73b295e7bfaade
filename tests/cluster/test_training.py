"""Training workers that are killed or told to end, alone or with their job: the towers are those of a quiet run."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from os import kill, killpg
from pathlib import Path
from typing import Any

import psutil
import pytest

from raycl.config_file import load
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace
from tests.cluster import builders, nodes, processes
from tests.cluster.nodes import Cluster
from tests.cluster.outputs import contents, different
from tests.cluster.processes import Head

pytestmark = [pytest.mark.cluster, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, STEPS, BATCH = 3, 241, 32
RANGE = {"min": 1, "max": 2}
_WITHIN_S = 150
_STOPS_WITHIN_S = 30


@dataclass(frozen=True)
class Training:
    """``raycl train`` with two workers, in processes of its own."""

    config: Path
    scratch: Path

    @property
    def root(self) -> Path:
        """The folder of its workspace."""
        return Path(load(self.config).workspace)

    @property
    def steps(self) -> list[int]:
        """Of its complete checkpoints."""
        found = self.root.glob("towers/*/checkpoints/step-*/progress.json")
        return sorted(int(path.parent.name.rpartition("-")[2]) for path in found)

    @property
    def towers(self) -> Version:
        """The one version that it made."""
        (folder,) = (self.root / "towers").iterdir()
        return Workspace(Store(str(self.root))).open("towers", folder.name)

    def run(
        self, disturb: Callable[[subprocess.Popen[bytes]], None] | None = None, cluster: Cluster | None = None
    ) -> tuple[int, str]:
        """Run until it ends, on an embedded Ray or on ``cluster``, with ``disturb`` in between; its code and words."""
        log = self.log
        command = [sys.executable, "-m", "raycl", "train", str(self.config)]
        joined = {**cluster.env, "RAY_ADDRESS": cluster.address} if cluster else processes.as_a_user(self.scratch)
        leader = processes.start(command, joined, log)
        try:
            if disturb is not None:
                disturb(leader)
            return leader.wait(_WITHIN_S), log.read_text(encoding="utf-8")
        except (AssertionError, subprocess.TimeoutExpired) as error:
            raise AssertionError(log.read_text(encoding="utf-8")) from error
        finally:
            processes.kill(leader)

    @property
    def log(self) -> Path:
        """What it says."""
        return self.config.with_suffix(".log")

    def hear(self, words: str) -> None:
        """Wait until it says this."""
        deadline = time.monotonic() + _WITHIN_S
        while words not in self.log.read_text(encoding="utf-8"):
            assert time.monotonic() < deadline, f"it never said: {words}"
            time.sleep(0.05)

    def reach(self, step: int) -> None:
        """Wait for a checkpoint of this step or a later one."""
        deadline = time.monotonic() + _WITHIN_S
        while not any(found >= step for found in self.steps):
            assert time.monotonic() < deadline, f"no checkpoint of step {step}"
            time.sleep(0.005)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, scratch: Path) -> Path:
    """A folder with a log, and a workspace of finished pairs."""
    folder = tmp_path_factory.mktemp("made")
    builders.write_log(folder / "log", users=600, items=400, num_files=4)
    config = write_config(folder, folder)
    command = [sys.executable, "-m", "raycl", "pairs", str(config)]
    subprocess.run(command, env=processes.as_a_user(scratch), capture_output=True, check=True, timeout=_WITHIN_S)
    return folder


@pytest.fixture(scope="module")
def quiet(made: Path, scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A run that nothing disturbed."""
    run = training(made, scratch, tmp_path_factory.mktemp("quiet"))
    code, said = run.run()
    assert code == 0, said
    return run


@pytest.fixture
def disturbed(made: Path, scratch: Path, tmp_path: Path) -> Training:
    """A run of the same pairs that is not started yet."""
    return training(made, scratch, tmp_path)


def training(made: Path, scratch: Path, folder: Path) -> Training:
    shutil.copytree(made / "workspace", folder / "workspace")
    return Training(write_config(made, folder), scratch)


def write_config(made: Path, folder: Path, **settings: Any) -> Path:
    tree = builders.config_tree(made / "log", str(folder / "workspace"))
    tree["train"] |= {"epochs": EPOCHS, "global_batch_size": BATCH, "checkpoint_steps": 20, "num_workers": 2} | settings
    return builders.write_config(folder / "raycl.yaml", tree)


def assert_same(quiet: Training, disturbed: Training) -> None:
    """Both made the same towers, bit by bit, by the same losses."""
    expected, found = quiet.towers, disturbed.towers
    assert found.manifest.counts == expected.manifest.counts
    assert different(contents(expected), contents(found)) == []
    # Losses are summed in runs that end at a checkpoint or after some time, so the last digits may differ.
    assert found.manifest.facts["losses"] == pytest.approx(expected.manifest.facts["losses"], rel=1e-12)


def workers_of(leader: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The training workers among the descendants of a driver."""
    found = []
    for process in psutil.Process(leader.pid).children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_workers_killed_at_random_steps_leave_the_towers_of_a_quiet_run(quiet: Training, disturbed: Training) -> None:
    draw = random.Random(5)
    killed: list[int] = []

    def disturb(leader: subprocess.Popen[bytes]) -> None:
        for least in (1, STEPS, 2 * STEPS):
            disturbed.reach(least + draw.randrange(100))
            time.sleep(draw.random() * 0.5)
            victim = draw.choice(workers_of(leader))
            victim.kill()
            killed.append(victim.pid)

    code, said = disturbed.run(disturb)
    assert code == 0, said
    assert len(set(killed)) == 3
    assert [f"restart {number} of 3, from the newest checkpoint" in said for number in (1, 2, 3, 4)] == [True] * 3 + [
        False
    ]
    assert_same(quiet, disturbed)


def test_a_job_killed_whole_several_times_goes_on_to_the_towers_of_a_quiet_run(
    quiet: Training, disturbed: Training
) -> None:
    draw = random.Random(6)

    def disturb(leader: subprocess.Popen[bytes]) -> None:
        disturbed.reach(max(disturbed.steps, default=0) + 130 + draw.randrange(60))
        processes.kill(leader)

    for _ in range(3):
        disturbed.run(disturb)
        assert 0 < disturbed.steps[-1] < EPOCHS * STEPS
    code, said = disturbed.run()
    assert code == 0, said
    assert "epoch 1:" not in said
    assert_same(quiet, disturbed)


@pytest.mark.parametrize("signalled", [kill, killpg], ids=["driver", "process-group"])
def test_a_job_that_is_told_to_end_saves_first(
    made: Path, quiet: Training, disturbed: Training, signalled: Callable[[int, int], None]
) -> None:
    def disturb(leader: subprocess.Popen[bytes]) -> None:
        disturbed.reach(STEPS)
        signalled(leader.pid, number)
        leader.wait(_STOPS_WITHIN_S)

    number = signal.SIGTERM if signalled is killpg else signal.SIGINT
    write_config(made, disturbed.config.parent, checkpoint_steps=100_000)
    code, said = disturbed.run(disturb)
    assert code == 1, said
    assert said.splitlines()[-1] == "raycl: interrupted; run the same command again to go on"
    assert "the last checkpoint counts" not in said
    assert "epoch 2:" not in said
    assert STEPS < disturbed.steps[-1] <= 2 * STEPS
    code, said = disturbed.run()
    assert code == 0, said
    assert_same(quiet, disturbed)


def test_a_worker_that_is_told_to_end_saves_and_costs_no_restart(
    made: Path, quiet: Training, disturbed: Training
) -> None:
    def disturb(leader: subprocess.Popen[bytes]) -> None:
        disturbed.reach(STEPS)
        workers_of(leader)[-1].terminate()

    write_config(made, disturbed.config.parent, checkpoint_steps=100_000)
    code, said = disturbed.run(disturb)
    assert code == 0, said
    assert said.count("a training worker was told to end, and saved first") == 1, said
    assert "crashed" not in said
    assert_same(quiet, disturbed)


def test_crashes_beyond_those_allowed_end_the_run_with_a_remedy(made: Path, disturbed: Training) -> None:
    def disturb(leader: subprocess.Popen[bytes]) -> None:
        disturbed.reach(1)
        workers_of(leader)[0].kill()

    write_config(made, disturbed.config.parent, max_failures=0)
    code, said = disturbed.run(disturb)
    assert code == 1
    assert "raycl: training workers crashed more often than train.max_failures allows; the last time rank 0: " in said
    assert "The last checkpoint is intact: run the same command again to go on" in said
    assert disturbed.steps


def test_a_submitted_job_that_is_stopped_saves_first(head: Head, made: Path, disturbed: Training) -> None:
    def ray_job(*words: str) -> str:
        command = ["ray", "job", *words]
        ended = subprocess.run(command, env=head.env, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    runtime = json.dumps({"env_vars": {"PYTHONPATH": str(ROOT)}})
    train = ("python", "-m", "raycl", "train", str(disturbed.config))
    write_config(made, disturbed.config.parent, checkpoint_steps=100_000, epochs=100_000)
    ray_job("submit", "--no-wait", "--submission-id", "stopped", "--runtime-env-json", runtime, "--", *train)
    disturbed.reach(STEPS)
    ray_job("stop", "stopped")
    said = ray_job("logs", "stopped")
    assert "interrupted; run the same command again to go on" in said
    assert "the last checkpoint counts" not in said
    assert disturbed.steps[-1] % STEPS, disturbed.steps  # none that has a checkpoint anyway, but for once in 241


def test_a_range_of_workers_goes_on_with_fewer_when_a_node_is_lost(
    made: Path, quiet: Training, disturbed: Training
) -> None:
    with nodes.head() as cluster, cluster.node("w1") as node:
        cluster.wait_for(2)

        def disturb(_: subprocess.Popen[bytes]) -> None:
            disturbed.reach(1)
            processes.kill(node)

        write_config(made, disturbed.config.parent, num_workers=RANGE)
        code, said = disturbed.run(disturb, cluster)
    assert code == 0, said
    assert [said.count(f"training worker group of size {size}:") for size in (1, 2)] == [1, 1], said
    assert "restart 1 of 3" in said
    assert disturbed.towers.manifest.facts["losses"] == pytest.approx(quiet.towers.manifest.facts["losses"], rel=1e-4)


def test_a_range_of_workers_saves_when_a_node_is_drained_and_goes_on_with_fewer(
    made: Path, disturbed: Training
) -> None:
    with nodes.head() as cluster, cluster.node("w1") as node:
        cluster.wait_for(2)

        def disturb(leader: subprocess.Popen[bytes]) -> None:
            disturbed.reach(STEPS)
            cluster.drain(60)
            disturbed.hear("was told to end, and saved first")
            processes.kill(node)
            disturbed.hear("training worker group of size 1:")
            disturbed.reach(disturbed.steps[-1] + 1)
            leader.terminate()

        write_config(made, disturbed.config.parent, num_workers=RANGE, checkpoint_steps=100_000, epochs=100_000)
        code, said = disturbed.run(disturb, cluster)
    assert code == 1, said
    assert said.splitlines()[-1] == "raycl: interrupted; run the same command again to go on"
    assert "restart 1 of 3" not in said

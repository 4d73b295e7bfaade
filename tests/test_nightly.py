"""The nightly job: one at a time, told beforehand, and never a release that cannot be served, wherever it dies."""

from __future__ import annotations

import json
import random
import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from threadpoolctl import threadpool_limits

from raycl import config_file, journey, nightly, ray_runtime
from raycl.config import Config
from raycl.errors import GateRefused, InputError, RayclError
from raycl.index import deltas, release
from raycl.index.delta_items import Handed
from raycl.journey import Outcome
from raycl.storage import lease, pointer
from raycl.storage.store import Store
from tests import tiny as builders
from tests.storage.builders import Killed

STAGES = ["pairs", "train", "evaluate", "index", "publish"]
CHANGES = ("write", "create", "delete", "delete_folder", "open_output")


@dataclass
class Deaths:
    """Stands for the end of the process at one of its changes of the store: from then on nothing is changed."""

    after: int | None = None
    done: list[str] = field(default_factory=list)

    def check(self, path: str) -> None:
        if threading.current_thread().name == "raycl-lease":  # a heart beats by the clock
            return
        if self.after is not None and len(self.done) >= self.after:
            raise Killed(path)
        self.done.append(path)


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> Deaths:
    found = Deaths()
    for name in CHANGES:
        monkeypatch.setattr(Store, name, _mortal(getattr(Store, name), found))
    return found


def _mortal(change: Callable[..., Any], deaths: Deaths) -> Callable[..., Any]:
    def checked(store: Store, path: str, *rest: Any, **named: Any) -> Any:
        deaths.check(f"{store.uri}/{path}")
        return change(store, path, *rest, **named)

    return checked


@pytest.fixture
def in_this_process(ray_local: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tasks run here, one after another, so that their changes of the store are counted too."""

    def map_tasks(
        name: str,
        task: Callable[[int], Any],
        count: int,
        finished: Callable[[int, Any], None] | None = None,
        **_: Any,
    ) -> list[Any]:
        records = []
        for number in range(count):
            records.append(task(number))
            if finished is not None:
                finished(number, records[-1])
        return records

    monkeypatch.setattr(ray_runtime, "map_tasks", map_tasks)
    monkeypatch.setattr(ray_runtime, "call", lambda name, task, **_: task())
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "get", lambda value: value)
    with threadpool_limits(1, "blas"):
        yield


@pytest.fixture(scope="module")
def first_night(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a workspace whose first night is over; its log grows in ``second_night``."""
    folder = tmp_path_factory.mktemp("nights")
    builders.write_log(folder / "log")
    tree = builders.tiny_tree(folder)
    tree["logs"] = [{"uri": str(folder / "log" / "events*.parquet")}]
    tree["train"]["epochs"] = 1
    config = config_file.check(tree)
    run(config)
    return config


def a_new_day(config: Config, folder: Path) -> Config:
    """A copy of everything under ``folder``, in which every user has met one item more."""
    log = Path(config.logs[0].uri).parent
    for path in log.iterdir():
        (folder / "log").mkdir(exist_ok=True)
        (folder / "log" / path.name).write_bytes(path.read_bytes())
    users = list(range(builders.FIRST_USER, builders.FIRST_USER + builders.NUM_USERS))
    items = [builders.FIRST_ITEM + user % builders.NUM_ITEMS for user in users]
    day = {"user_id": users, "item_id": items, "timestamp": [1_700_100_000 + user for user in users]}
    pq.write_table(pa.table(day), folder / "log" / "events-2.parquet")
    copy = builders.copied(config, folder)
    tree = copy.model_dump(mode="json")
    for table in (tree["logs"][0], tree["items"], tree["users"]):
        table["uri"] = table["uri"].replace(str(log), str(folder / "log"))
    return config_file.check(tree)


@pytest.fixture
def second_night(first_night: Config, tmp_path: Path) -> Config:
    return a_new_day(first_night, tmp_path)


def run(config: Config, finished: Callable[[Outcome], None] = lambda _: None) -> str:
    return nightly.run(config, lambda _: None, finished)


def current(config: Config) -> release.Release:
    """The current release, loaded as a server would."""
    workspace = journey.workspace(config)
    published = pointer.current(workspace.store)
    assert published is not None
    return release.load(workspace.open("releases", published.release).store)


def test_a_night_ends_in_the_next_release_and_a_page_and_again_in_nothing_new(second_night: Config) -> None:
    before = current(second_night).name
    outcomes: list[Outcome] = []
    page = run(second_night, outcomes.append)
    assert [(one.stage, one.worked) for one in outcomes] == [(stage, True) for stage in STAGES]
    now = current(second_night).name
    assert now == outcomes[-1].version.name != before
    assert page == f"{second_night.workspace}/{nightly.page_of(now)}"
    files = journey.workspace(second_night).store.files()
    again: list[Outcome] = []
    assert run(second_night, again.append) == page
    assert [(one.stage, one.worked) for one in again] == [(stage, False) for stage in STAGES]
    assert [path for path in journey.workspace(second_night).store.files() if "/lease/" not in path] == [
        path for path in files if "/lease/" not in path
    ]


def test_the_page_tells_what_changed_beside_the_last_release(second_night: Config) -> None:
    before = current(second_night).name
    page = Path(run(second_night)).read_text(encoding="utf-8")
    text = " ".join(ET.fromstring(page.removeprefix("<!DOCTYPE html>\n")).itertext())
    for said in (
        *(current(second_night).name, before, "Recall against latency", "towers.recall_at_10", "index_recall"),
        *("Items whose answers changed most", "Item 1", "0 in, 0 out"),
    ):
        assert said in text
    shards = re.findall(r'<th scope="row">(\d)</th><td>(\d+)</td>', page)
    assert sum(int(items) for _, items in shards) == builders.NUM_ITEMS
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_first_night_has_a_page_that_says_that_nothing_was_before(first_night: Config) -> None:
    page = Path(first_night.workspace) / nightly.page_of(current(first_night).name)
    assert "No release was current before." in page.read_text(encoding="utf-8")


def test_a_refused_night_leaves_its_page_and_the_release_before(second_night: Config) -> None:
    config = builders.changed(second_night, "gate", min_recall=1.0)
    before = current(config).name
    with pytest.raises(GateRefused, match=r"is not published: recall@10"):
        run(config)
    assert current(config).name == before
    refused = journey.workspace(config).finished("releases")[-1]
    page = (Path(config.workspace) / nightly.page_of(refused)).read_text(encoding="utf-8")
    assert "refused" in page
    assert "missed" in page
    (step,) = [step for step in nightly.plan(config) if step.stage == "publish"]
    assert (step.would, before in step.reason) == ("refuse", True)


def told(config: Config) -> dict[str, str]:
    return {step.stage: step.would for step in nightly.plan(config)}


def test_a_plan_tells_what_each_stage_would_do_and_does_nothing(second_night: Config) -> None:
    store = journey.workspace(second_night).store
    files = store.files()
    assert told(second_night) == {"lease": "work", **dict.fromkeys(STAGES, "work")}
    assert store.files() == files
    journey.pairs(second_night)
    assert told(second_night) == {"lease": "work", "pairs": "nothing", **dict.fromkeys(STAGES[1:], "work")}
    assert set(files) <= set(store.files())
    run(second_night)
    before = store.files()
    assert told(second_night) == {"lease": "work", **dict.fromkeys(STAGES, "nothing")}
    assert store.files() == before


def test_a_plan_knows_what_was_begun(second_night: Config, in_this_process: None, deaths: Deaths) -> None:
    deaths.after = 8
    with pytest.raises(Killed):
        journey.pairs(second_night)
    deaths.after = None
    (step,) = [step for step in nightly.plan(second_night) if step.stage == "pairs"]
    assert step.would == "go on"
    assert "was begun and not finished" in step.reason


def test_of_two_nights_at_once_one_works_and_one_names_the_holder(second_night: Config) -> None:
    """The second one starts within the first, in a thread of its own."""
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(InputError) as error:
            run(second_night)
        refused.append(str(error.value))
        refused.extend(step.reason for step in nightly.plan(second_night) if step.would == "refuse")

    def finished(outcome: Outcome) -> None:
        if outcome.stage == "pairs":
            other = threading.Thread(target=second)
            other.start()
            other.join()

    run(second_night, finished)
    here = lease.Owner.here()
    assert re.search(
        rf"nightly is being made by process {here.pid} on host {here.host} .* runs once at a time$", refused[0]
    )
    assert len(refused) == 2
    run(second_night)


def test_a_night_that_lost_its_lease_publishes_nothing(second_night: Config) -> None:
    before = current(second_night).name

    def taken_over(outcome: Outcome) -> None:
        if outcome.stage == "index":
            folder = journey.workspace(second_night).store.under(nightly.FOLDER)
            number = max(int(name[:6]) for name in folder.names("lease"))
            folder.write(f"lease/{number + 1:06d}.json", b"{}")

    with pytest.raises(RayclError, match="was taken over by another run"):
        run(second_night, taken_over)
    assert current(second_night).name == before


def deadly(count: int, most: int) -> list[int]:
    """Some of the changes of a night, the first and the last ones among them, drawn by a seed."""
    drawn = random.Random(6).sample(range(count), min(count, most))
    return sorted({*drawn, 1, count - 1})


def nights_that_die(config: Config, deaths: Deaths, tmp_path: Path, most: int) -> Iterator[int]:
    """Kill nights at some of their changes, and hold what is true after each."""
    clean = a_new_day(config, tmp_path_of(tmp_path, "clean"))
    hand_in(clean)
    deaths.done.clear()
    run(clean)
    count, expected = len(deaths.done), contents(clean)
    for after in deadly(count, most):
        night = a_new_day(config, tmp_path_of(tmp_path, f"dies-{after}"))
        before = current(night).name
        hand_in(night)
        deaths.after, deaths.done = after, []
        with pytest.raises(Killed):
            run(night)
        deaths.after = None
        left = current(night).name
        assert left == before or journey.workspace(night).finished("releases")[-1] == left
        assert handed_in(night) == HANDED_IN
        run(night)
        assert current(night).name != before
        assert contents(night) == expected
        assert handed_in(night) == HANDED_IN
        yield after


HANDED_IN = {900: False, builders.FIRST_ITEM: True}
"""By item: whether it is gone."""


def hand_in(config: Config) -> None:
    """One item that no catalogue lists, and one to remove that all of them list."""
    workspace, published = journey.workspace(config), current(config).name
    items = pa.table({"item_id": [900], "title": ["New"], "category": ["tea"], "price": [1.0]})
    handed = Handed("item_id", "title", items, [builders.FIRST_ITEM])
    deltas.write(workspace.store, workspace.open("releases", published), handed)


def handed_in(config: Config) -> dict[int, bool]:
    """What joined the current release."""
    workspace = journey.workspace(config)
    taken = deltas.take(workspace.store, workspace.open("releases", current(config).name))
    told = [row for number in taken.holding for row in taken.tables[number].select(["item", "removed"]).to_pylist()]
    return {row["item"]: row["removed"] for row in told}


def tmp_path_of(folder: Path, name: str) -> Path:
    found = folder / name
    found.mkdir()
    return found


def contents(config: Config) -> list[tuple[str, str]]:
    """The files of the current release with their checksums, but for those that name versions or tell times."""
    workspace = journey.workspace(config)
    checksums = workspace.open("releases", current(config).name).manifest.checksums
    timed = {release.LINEAGE_FILE, release.GATE_FILE}
    return sorted((path, digest) for path, digest in checksums.items() if path not in timed)


# A dead process has no threads either: what feeds TensorBoard ends by the same Killed.
threads_die_too = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@threads_die_too
def test_after_a_night_that_died_at_some_change_the_next_one_finishes(
    first_night: Config, in_this_process: None, deaths: Deaths, tmp_path: Path
) -> None:
    assert len(list(nights_that_die(first_night, deaths, tmp_path, 4))) >= 4


@threads_die_too
@pytest.mark.long
def test_after_a_night_that_died_at_any_change_the_next_one_finishes(
    first_night: Config, in_this_process: None, deaths: Deaths, tmp_path: Path
) -> None:
    assert len(list(nights_that_die(first_night, deaths, tmp_path, 10**6))) > 100


def fine_tuned(config: Config, **values: Any) -> Config:
    return builders.changed(config, "nightly", fine_tune={"epochs": 2, "learning_rate": 0.001} | values)


def towers_of(config: Config, outcomes: list[Outcome]) -> tuple[str | None, int, float]:
    """What tonight's towers began with, and their epochs and learning rate."""
    (made,) = [one.version.manifest for one in outcomes if one.stage == "train"]
    return made.inputs.get("started_from"), made.config["train"]["epochs"], made.config["train"]["learning_rate"]


def test_a_fine_tuned_night_goes_on_from_the_current_towers_and_again_from_the_same(second_night: Config) -> None:
    config = fine_tuned(second_night)
    before = journey.workspace(config).open("releases", current(config).name).manifest.inputs["towers"]
    for worked in (True, False):
        outcomes: list[Outcome] = []
        assert told(config)["train"] == ("work" if worked else "nothing")
        run(config, outcomes.append)
        assert [one.worked for one in outcomes] == [worked] * 5
        assert towers_of(config, outcomes) == (before, 2, 0.001)


def test_fine_tuning_ends_after_so_many_nights_and_where_the_towers_do_not_fit(
    second_night: Config, tmp_path: Path
) -> None:
    config = fine_tuned(second_night, most_in_a_row=1)
    outcomes: list[Outcome] = []
    run(config, outcomes.append)
    first = towers_of(config, outcomes)[0]
    assert first is not None
    (tmp_path / "log" / "events-3.parquet").write_bytes((tmp_path / "log" / "events-2.parquet").read_bytes())
    pairs = journey.pairs(config).version
    assert nightly.tonight(config, journey.workspace(config), pairs) == (
        config,
        "from the start, after 1 nights that went on from the towers before",
    )
    longer = fine_tuned(config, most_in_a_row=2)
    going_on, why = nightly.tonight(longer, journey.workspace(config), pairs)
    assert (going_on.train.epochs, why) == (2, f"2 epochs from towers {going_on.train.start_from}")
    other = builders.changed(longer, "model", dim=16)
    assert nightly.tonight(other, journey.workspace(config), pairs)[0] == other


def test_an_ensemble_is_put_together_and_not_trained_whatever_fine_tuning_says(second_night: Config) -> None:
    tree = fine_tuned(second_night).model_dump(mode="json") | {"ensemble": {"towers": ["one", "other"]}}
    config = config_file.check(tree)
    assert nightly.tonight(config, journey.workspace(config), journey.pairs(config).version) == (
        config,
        "not at all, as config.ensemble names finished towers to put together",
    )


def test_the_first_night_has_nothing_to_go_on_from(second_night: Config) -> None:
    config = fine_tuned(second_night)
    journey.workspace(config).store.delete_folder(pointer.FOLDER)
    pairs = journey.pairs(config).version
    assert nightly.tonight(config, journey.workspace(config), pairs) == (
        config,
        "from the start, as there are no towers before",
    )


def test_a_released_lease_is_free_for_another_machine_at_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for number in (1, 2, 3):
        held = lease.take(store, "lease")
        assert held.number == number
        held.give_back()
        assert store.names("lease") == [f"{number:06d}.json"]
        content = json.loads(store.read(f"lease/{number:06d}.json"))
        content["owner"] |= {"host": "elsewhere", "machine": "another"}
        store.write(f"lease/{number:06d}.json", json.dumps(content).encode())

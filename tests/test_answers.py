"""What `raycl run` asks at its end: users of the log itself, with reasons, diversity and likeness."""

from __future__ import annotations

import json

import pytest

from raycl import answers, config_file, journey, lineage
from raycl.config import Config
from raycl.console import Screen
from raycl.data.handoff import Pairs
from raycl.errors import ConfigError
from raycl.index import release
from raycl.serving import client
from raycl.serving.retriever import Retriever
from tests import tiny as builders

ASKED = {
    "users": 3,
    "k": 4,
    "explain": True,
    "diversity": {"method": "mmr", "strength": 0.5, "max_per": {"category": 2}},
    "similar": True,
}


@pytest.fixture(scope="module")
def tiny(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
    tree = builders.finished(tmp_path_factory.getbasetemp()).model_dump(mode="json")
    return config_file.check({**tree, "answers": ASKED})


def test_the_section_changes_no_version(tiny: Config) -> None:
    without = tiny.model_copy(update={"answers": None})
    workspace = journey.workspace(tiny)
    assert lineage.release(tiny, workspace).name == lineage.release(without, workspace).name


def test_answers_are_those_of_the_release_to_the_users_own_events(tiny: Config) -> None:
    found = answers.ask(tiny)
    workspace = journey.workspace(tiny)
    pairs = Pairs.of(lineage.pairs(tiny, workspace))
    patient = tiny.serving.model_copy(update={"rerank_ms": 60_000.0})
    retriever = Retriever.of(release.load(lineage.release(tiny, workspace).store), patient)
    assert [one.user for one in found] == pairs.some_users("test", 3)
    for one in found:
        query = client.query_of(pairs, str(one.user)).model_copy(
            update={"k": 4, "explain": True, "diversity": tiny.answers and tiny.answers.diversity}
        )
        (expected,) = retriever.retrieve([query])
        assert one.answer.model_dump_json() == expected.model_dump_json()
        assert one.met == [f"Item {item}" if item != 101 else "101" for item in query.history[:-6:-1]]
        assert one.similar is not None
        assert query.history[-1] not in [item.item_id for item in one.similar.items]


def test_a_row_has_the_largest_reason_and_the_place_without_diversity(tiny: Config) -> None:
    for one in answers.ask(tiny):
        rows = one.rows()
        assert one.nearest is not None
        nearest = [item.item_id for item in one.nearest.items]
        assert max(sum(row["category"] == value for row in rows) for value in ("tea", "rope", "lamp")) <= 2
        for row, item in zip(rows, one.answer.items, strict=True):
            assert item.reasons is not None
            assert row["adds"] == max(reason.value for reason in item.reasons.events)
            assert nearest[row["nearest"] - 1] == row["item_id"]


def test_nothing_is_asked_by_default(tiny: Config) -> None:
    assert answers.ask(tiny.model_copy(update={"answers": None})) == []


def test_answers_are_tables_for_people_and_one_line_for_machines(
    tiny: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answers.ask(tiny)
    Screen(as_json=True).answers(found)
    told = json.loads(capsys.readouterr().out)
    assert told["stage"] == "answers"
    assert [user["user"] for user in told["users"]] == [one.user for one in found]
    Screen(as_json=False).answers(found)
    shown = capsys.readouterr().out
    assert all(words in shown for words in (f"user {found[0].user}", "because", "nearest", f"like {found[0].met[0]}"))


def test_a_diversity_that_a_request_could_not_have_is_refused_with_the_config(tiny: Config) -> None:
    tree = tiny.model_dump(mode="json")
    tree["answers"]["diversity"]["strength"] = 2.0
    with pytest.raises(ConfigError, match=r"answers\.diversity\.strength=2\.0"):
        config_file.check(tree)

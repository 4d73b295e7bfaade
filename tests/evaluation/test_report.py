"""Page and card made anew: with the newest evaluation of the very towers, and without touching what is finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycl import journey, lineage
from raycl.config import Config
from raycl.errors import InputError
from raycl.evaluation import report, shown
from raycl.evaluation.comparison import Evaluation
from raycl.storage.versions import Version, Workspace
from tests import tiny as builders


@pytest.fixture
def made(tiny: Config, tmp_path: Path) -> tuple[Workspace, Version, Version]:
    """A copied workspace, its towers and their evaluation."""
    config = builders.copied(tiny, tmp_path)
    workspace = journey.workspace(config)
    towers = lineage.towers(config, workspace)
    towers = workspace.open("towers", towers.name)
    return workspace, towers, lineage.evaluation(config, workspace)


def test_the_page_and_the_card_have_segments_and_baselines(made: tuple[Workspace, Version, Version]) -> None:
    workspace, towers, evaluation = made
    found = report.make(workspace, towers)
    assert found.evaluation == evaluation.name
    page, card = (Path(path).read_text(encoding="utf-8") for path in (found.page, found.card))
    beta = evaluation.manifest.facts["baseline_settings"]["rp3beta"]["rp3_beta"]
    for model in ("towers", "popularity", "item_knn", f"rp3beta (rp3_beta {beta:g})"):
        assert f'<th scope="row">{model}</th>' in page
    for row in shown.segments(Evaluation(evaluation)):
        assert f'<th scope="row">{row["segment"]}</th>' in page
    assert f"Evaluation `{evaluation.name}`, {builders.NUM_USERS} users:" in card
    towers.verified()
    evaluation.verified()
    assert report.make(workspace, towers) == found
    assert Path(found.page).read_text(encoding="utf-8") == page


def test_an_evaluation_of_other_towers_is_not_theirs(made: tuple[Workspace, Version, Version]) -> None:
    workspace, towers, evaluation = made
    path = Path(evaluation.store.uri) / "manifest.json"
    path.write_text(path.read_text().replace(towers.name, f"{towers.name[:-1]}x"))
    found = report.make(workspace, towers)
    assert (found.evaluation, found.page) == (None, f"{towers.store.uri}/run.html")
    assert Path(found.card).read_text(encoding="utf-8").startswith(f"# Towers {towers.name}")


def test_towers_without_a_story_are_told_with_the_remedy(made: tuple[Workspace, Version, Version]) -> None:
    workspace, towers, _ = made
    sums = {path: digest for path, digest in towers.manifest.checksums.items() if path != "run.json"}
    older = Version(towers.store, towers.manifest.model_copy(update={"checksums": sums}))
    with pytest.raises(InputError, match=r"has no run\.json: train with --force"):
        report.make(workspace, older)

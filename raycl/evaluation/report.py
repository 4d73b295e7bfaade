"""The page and the card of towers, made anew with what their newest evaluation found."""

from __future__ import annotations

from dataclasses import dataclass

from raycl import schema
from raycl.errors import InputError
from raycl.evaluation import shown
from raycl.evaluation.comparison import Evaluation
from raycl.evaluation.finished import STAGE
from raycl.storage.versions import Version, Workspace
from raycl.tracking import lines, model_card, run_page
from raycl.tracking.story import Evaluated, Story

FOLDER = "reports"


@dataclass(frozen=True)
class Made:
    """Where a person finds them."""

    page: str
    card: str
    evaluation: str | None
    """Version of the evaluation in them; None where the towers have none, and their own page and card say it all."""


def make(workspace: Workspace, towers: Version) -> Made:
    """Leave page and card under ``reports/<towers>/`` of the workspace, over those of an earlier evaluation.

    A finished version stays as it is. InputError where the towers are of a raycl that told no story of them.
    """
    if schema.STORY_FILE not in towers.manifest.checksums:
        raise InputError(f"{towers.store.uri} has no {schema.STORY_FILE}: train with --force to have a report")
    newest = _newest(workspace, towers)
    if newest is None:
        return Made(f"{towers.store.uri}/{schema.RUN_PAGE}", f"{towers.store.uri}/{schema.CARD_FILE}", None)
    store = towers.verified(schema.STORY_FILE, schema.TRACK_FILE).store
    story, told = Story.model_validate_json(store.read(schema.STORY_FILE)), lines.read(store, schema.TRACK_FILE)
    found = Evaluated(
        version=newest.version.name,
        users=newest.version.manifest.counts["users"],
        models=tuple(shown.models(newest)),
        segments=tuple(shown.segments(newest)),
        protocol=tuple(newest.protocol.lines()),
    )
    made = workspace.store.under(f"{FOLDER}/{towers.name}")
    made.write(schema.RUN_PAGE, run_page.render(story, told, found).encode())
    made.write(schema.CARD_FILE, model_card.render(story, found).encode())
    return Made(f"{made.uri}/{schema.RUN_PAGE}", f"{made.uri}/{schema.CARD_FILE}", found.version)


def _newest(workspace: Workspace, towers: Version) -> Evaluation | None:
    for version in workspace.readable(STAGE):
        if version.manifest.inputs.get("towers") == towers.name:
            return Evaluation(version)
    return None

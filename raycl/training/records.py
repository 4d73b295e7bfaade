"""What a finished run leaves for people in the folder of its towers, beside what the next stages read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from raycl import lineage, schema
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.data.report import Report
from raycl.model import weights
from raycl.storage.manifest import RAYCL_VERSION, library_versions
from raycl.storage.versions import Draft, Version
from raycl.tracking import events, item_map, lines, model_card, run_page, tensorboard
from raycl.tracking.story import Map, Part, Spot, Story, Trained
from raycl.training.job import Job

_MOST_SPOTS = 1_500


def leave(
    config: Config, pairs: Version, draft: Draft, job: Job, record: Mapping[str, Any], inputs: Mapping[str, str]
) -> None:
    """Write the curves as JSON lines and for TensorBoard, and the page and the card; the towers lie there.

    ``record`` is that of the finished training, and ``inputs`` what the version will say that it was made from.
    """
    told = lines.read(draft.store, lines.PATH)
    draft.store.write(schema.TRACK_FILE, events.to_lines(told))
    tensorboard.write_whole(draft.store, told)
    story = Story(
        towers=draft.name,
        fingerprint=draft.fingerprint,
        made=f"{datetime.fromtimestamp(told[-1]['time'], UTC):%Y-%m-%d %H:%M} UTC" if told else "",
        raycl=RAYCL_VERSION,
        libraries=library_versions(),
        inputs=dict(inputs),
        trained=_trained(pairs),
        config=lineage.part(config, "towers"),
        steps=record["steps"],
        parameters=record["parameters"],
        losses=record["losses"],
        validation=record["validation"],
        kept=record["kept"],
        map=_map(Pairs.of(pairs), draft, job),
    )
    draft.store.write(schema.STORY_FILE, story.model_dump_json(indent=1).encode())
    draft.store.write(schema.RUN_PAGE, run_page.render(story, told).encode())
    draft.store.write(schema.CARD_FILE, model_card.render(story).encode())


def _trained(pairs: Version) -> Trained:
    manifest, parts = pairs.manifest, tuple[Part, ...]()
    if schema.REPORT_FILE in manifest.checksums:
        report = Report.model_validate_json(pairs.store.read(schema.REPORT_FILE))
        parts = tuple(
            Part(name=part.part, users=part.users, pairs=part.pairs, first=part.first, last=part.last)
            for part in report.parts
        )
    return Trained(
        pairs=pairs.name,
        fingerprint=manifest.fingerprint,
        sources=manifest.inputs,
        counts=manifest.counts,
        dropped=manifest.dropped,
        parts=parts,
    )


def _map(pairs: Pairs, draft: Draft, job: Job) -> Map:
    counts = job.inputs.train_counts.numpy()
    active = np.arange(len(counts)) if job.inputs.active is None else job.inputs.active
    chosen = active[np.lexsort((active, -counts[active]))[:_MOST_SPOTS]]
    if not len(chosen):
        return Map(items=0, share=1.0, spots=())
    rows = torch.from_numpy(chosen)
    with torch.inference_mode():
        vectors = weights.load_item(draft.store)(rows, job.inputs.items.take(rows)).numpy()
    points, share = item_map.plane(vectors)
    catalogue = pairs.catalogue().take(chosen)
    ids = catalogue["item"].to_pylist()
    titles = catalogue["title"].to_pylist() if "title" in catalogue.column_names else [None] * len(ids)
    spots = (
        Spot(x=round(x, 5), y=round(y, 5), name=str(title or item), train_count=count)
        for (x, y), title, item, count in zip(points.tolist(), titles, ids, counts[chosen].tolist(), strict=True)
    )
    return Map(items=len(active), share=share, spots=tuple(spots))

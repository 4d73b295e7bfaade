"""The page of a run: its curves, a map of its items, and what an evaluation found, where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raycl.pages.html import Cell, cards, counted, figure, note, page, section, shown, table, text
from raycl.tracking import run_figures as figures
from raycl.tracking.events import Event, scalars
from raycl.tracking.run_figures import Curve
from raycl.tracking.story import Evaluated, Map, Story

_ROWS = 12


def render(story: Story, events: Sequence[Event], evaluated: Evaluated | None = None) -> str:
    """The page: HTML that is well-formed XML too, one file without network; the same input gives the same bytes."""
    found = _curves(events)
    body = [
        f"<header><p>raycl towers {text(story.towers)}</p><h1>Training run</h1></header>",
        _summary(story, evaluated),
        section("Loss", _loss(story, found)),
        section("Validation", _validation(story, found)),
        *(section(title, content) for title, content in _steps(found)),
        section("Map of the items", _map(story.map)),
        section("Evaluation", _evaluation(evaluated)),
        "<footer><p>The events behind the curves are in <code>track.jsonl</code>, for TensorBoard in"
        " <code>tensorboard/</code>, and the rest in <code>run.json</code> beside the towers.</p></footer>",
    ]
    return page("Training run", body)


def _curves(events: Sequence[Event]) -> dict[str, Curve]:
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        for name, value in scalars(event).items():
            found.setdefault(name, []).append((int(event["step"]), value))
    return dict(found)


def _summary(story: Story, evaluated: Evaluated | None) -> str:
    best = max((point["recall"] for point in story.validation), default=None)
    k = int(story.validation[0]["k"]) if story.validation else 0
    named = [
        ("Steps", shown(story.steps), counted(len(story.losses), "epoch")),
        ("Loss", f"{story.losses[-1]:.4f}", "mean of the last epoch"),
        (
            f"Recall@{k}" if k else "Recall",
            "\N{EN DASH}" if best is None else f"{best:.4f}",
            "best validation" if k else "nothing was validated",
        ),
        ("Parameters", shown(story.parameters), f"{shown(story.map.items)} items"),
    ]
    if evaluated is not None and evaluated.models:
        name, value = next((pair for pair in evaluated.models[0].items() if pair[0] != "model"), ("", ""))
        named.append((text(name), text(_cell(value)), f"evaluation, {counted(evaluated.users, 'user')}"))
    return cards(named)


def _loss(story: Story, found: dict[str, Curve]) -> str:
    rows: list[tuple[Cell, ...]] = [(epoch, f"{loss:.4f}") for epoch, loss in enumerate(story.losses, 1)]
    drawn = (
        figure(figures.curves("loss", {"loss": found["train/loss"]}, smoothed=True)) if "train/loss" in found else ""
    )
    return drawn + table(["Epoch", "Mean loss"], rows)


def _validation(story: Story, found: dict[str, Curve]) -> str:
    if not story.validation:
        return note("Nothing was validated.")
    k = int(story.validation[0]["k"])
    drawn = {name: [(int(point["step"]), point[name]) for point in story.validation] for name in ("recall", "ndcg")}
    rows: list[tuple[Cell, ...]] = [
        (
            int(point["step"]),
            int(point["epoch"]) + 1,
            f"{point['recall']:.4f}",
            f"{point['ndcg']:.4f}",
            int(point["users"]),
        )
        for point in story.validation
    ]
    heads = ["Step", "Epoch", f"Recall@{k}", f"NDCG@{k}", "Users"]
    return (
        figure(figures.curves("validation", {f"recall@{k}": drawn["recall"], f"ndcg@{k}": drawn["ndcg"]}))
        + table(heads, rows)
        + note(f"Kept: {story.kept}.")
    )


def _steps(found: dict[str, Curve]) -> list[tuple[str, str]]:
    """Sections of what was measured of the steps, by title."""
    groups: list[tuple[str, dict[str, str], str]] = [
        ("Learning rate", {"learning_rate": "learning rate"}, ""),
        ("Throughput", {"pairs_per_s": "pairs/s"}, "Validations and their like are left out of the time."),
        (
            "Norms",
            {"gradient_norm": "gradient", "embedding_norm": "embeddings", "weight_norm": "dense weights"},
            "The gradient before it is clipped; embeddings as the mean length of rows that the step moved. What towers"
            " answer with has length 1.",
        ),
        ("Temperature", {"temperature": "temperature"}, ""),
        (
            "Alignment and uniformity",
            {
                "alignment": "alignment",
                "user_uniformity": "uniformity of users",
                "item_uniformity": "uniformity of items",
            },
            "Alignment: mean squared distance of the vectors of a pair, 0 is best. Uniformity: log of the mean of"
            " exp(-2 d²) over pairs of users, or of items, at the distance d; the lower, the more evenly they lie"
            " (Wang and Isola 2020). On up to 128 rows of a step.",
        ),
    ]
    sections = []
    for title, names, about in groups:
        drawn = {label: found[f"train/{name}"] for name, label in names.items() if f"train/{name}" in found}
        if drawn:
            key = title.lower().replace(" ", "-")
            log = title == "Norms" and all(value > 0 for curve in drawn.values() for _, value in curve)
            smoothed = title not in ("Learning rate", "Temperature")
            svg = figures.curves(key, drawn, smoothed=smoothed, log=log)
            rows = [(label, *map(_number, _spread(curve))) for label, curve in drawn.items()]
            told = table(["", "First", "Lowest", "Highest", "Last"], rows)
            sections.append((title, figure(svg) + told + (note(about) if about else "")))
    return sections


def _spread(curve: Curve) -> tuple[float, float, float, float]:
    values = [value for _, value in curve]
    return values[0], min(values), max(values), values[-1]


def _map(found: Map) -> str:
    if not found.spots:
        return note("There are no items that may be retrieved.")
    rows: list[tuple[Cell, ...]] = [(spot.name, spot.train_count) for spot in found.spots[:_ROWS]]
    return (
        figure(figures.item_map(found))
        + note(
            f"The {len(found.spots):,} most popular of {found.items:,} items by the first two principal components of"
            f" their vectors, which hold {100 * found.share:.1f} % of the variance. Names appear under the mouse."
        )
        + table(["Most popular", "Events in training"], rows)
    )


def _evaluation(found: Evaluated | None) -> str:
    if found is None:
        return note("There was none when this page was made: after raycl evaluate, raycl report makes it anew.")
    return (
        note(f"Evaluation {found.version}, {counted(found.users, 'user')}.")
        + "<h3>Towers and baselines</h3>"
        + _rows(found.models)
        + "<h3>Segments</h3>"
        + _rows(found.segments)
        + "<h3>Protocol</h3>"
        + "".join(note(line) for line in found.protocol)
    )


def _rows(rows: Sequence[dict[str, Any]]) -> str:
    heads = list(rows[0]) if rows else []
    return table(heads, [[_cell(row.get(head)) for head in heads] for row in rows])


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"

"""The card of a pair of towers, in Markdown: what they were trained on, how, how well they do, and their limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raycl.tracking.story import Evaluated, Part, Story

_METRICS = 40
"""Rows of segments at most; the evaluation has all."""


def render(story: Story, evaluated: Evaluated | None = None) -> str:
    """The card; the same input gives the same text."""
    return "\n".join(_lines(story, evaluated)) + "\n"


def _lines(story: Story, evaluated: Evaluated | None) -> Iterator[str]:
    trained = story.trained
    yield f"# Towers {_plain(story.towers)}"
    yield ""
    yield "A user tower and an item tower that turn users and items into unit vectors of one length for retrieval."
    yield f"Made by raycl {_plain(story.raycl)}{f' on {story.made}' if story.made else ''}."
    yield ""
    yield "## Trained on"
    yield ""
    yield f"- Pairs `{trained.pairs}`, fingerprint `{trained.fingerprint}`"
    for name, source in trained.sources.items():
        yield f"- {_plain(name)}: {_plain(source)}"
    yield ""
    yield from _table(
        ["part", "users", "pairs", "first target", "last target"],
        [[part.name, f"{part.users:,}", f"{part.pairs:,}", *_span(part)] for part in trained.parts],
    )
    counted = [[name, f"{count:,}"] for name, count in trained.counts.items()]
    dropped = [[f"dropped: {reason}", f"{count:,}"] for reason, count in trained.dropped.items()]
    yield from _table(["count", "number"], [*counted, *dropped])
    yield "## How"
    yield ""
    yield f"{story.steps:,} steps, {story.parameters:,} parameters. Kept: {_plain(story.kept)}."
    yield ""
    yield from _table(["setting", "value"], [[name, value] for name, value in _flat(story.config)])
    yield "## How well"
    yield ""
    yield from _table(
        ["epoch", "mean loss"], [[str(epoch), f"{loss:.4f}"] for epoch, loss in enumerate(story.losses, 1)]
    )
    if story.validation:
        k = int(story.validation[0]["k"])
        yield from _table(
            ["step", f"recall@{k}", f"NDCG@{k}", "users"],
            [
                [f"{point['step']:,.0f}", f"{point['recall']:.4f}", f"{point['ndcg']:.4f}", f"{point['users']:,.0f}"]
                for point in story.validation
            ],
        )
        yield "These are of the validation part, which may have chosen what was kept: the test part may do worse."
    else:
        yield "Nothing was validated in training."
    yield ""
    yield from _evaluation(evaluated)
    yield "## Limits"
    yield ""
    yield from (f"- {line}" for line in _limits(story, evaluated))
    yield ""
    yield "## Lineage"
    yield ""
    yield from _table(
        ["made from", "version"],
        [*([name, version] for name, version in story.inputs.items()), ["fingerprint", story.fingerprint]],
    )
    yield from _table(["library", "version"], [[name, version] for name, version in story.libraries.items()])


def _evaluation(found: Evaluated | None) -> Iterator[str]:
    if found is None:
        yield "They were not evaluated when this card was made: after `raycl evaluate`, `raycl report` makes it anew."
        yield ""
        return
    yield f"Evaluation `{found.version}`, {found.users:,} users:"
    yield ""
    for rows in (found.models, found.segments[:_METRICS]):
        if rows:
            yield from _table(list(rows[0]), [[_cell(row.get(name)) for name in rows[0]] for row in rows])
    for line in found.protocol:
        yield f"    {line}"
    yield ""


def _limits(story: Story, evaluated: Evaluated | None) -> Iterator[str]:
    model, rules = story.config.get("model", {}), story.trained
    train = next((part for part in rules.parts if part.name == "train"), None)
    if train is not None and train.last is not None:
        yield f"They know nothing that happened after {train.last:%Y-%m-%d}, the last target of training."
    if model.get("item_id", True):
        yield "An item without training pairs is told by its features alone, and where it has none not at all."
    yield "What was shown to users is not known: an item that nobody was shown looks like one that nobody wants."
    yield "Similarity is not a probability: scores of two users, or of two versions, cannot be compared."
    if evaluated is None:
        yield "They were not evaluated, nor compared with simple baselines."
    yield "Vectors of other towers do not fit these: an index is only good with the user tower that it was made with."


def _span(part: Part) -> tuple[str, str]:
    first, last = (f"{moment:%Y-%m-%d %H:%M}" if moment else "" for moment in (part.first, part.last))
    return first, last


def _flat(tree: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(tree, Mapping):
        return [pair for key, part in tree.items() for pair in _flat(part, f"{path}.{key}" if path else str(key))]
    return [(path, str(tree))]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The table and an empty line; nothing where there are no rows."""
    if rows:
        yield _row(heads)
        yield _row(["---"] * len(heads))
        yield from (_row([_plain(cell) for cell in row]) for row in rows)
        yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _plain(words: str) -> str:
    """Text that Markdown takes for text, on one line."""
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)
    for sign in "\\`*_|<[#":
        printable = printable.replace(sign, f"\\{sign}")
    return printable

"""The card of towers: everything that the story knows, in Markdown that hostile names do not break."""

from __future__ import annotations

from raycl.tracking import model_card
from tests.tracking.stories import SPITEFUL, evaluated, story


def rows(card: str) -> list[list[str]]:
    lines = [line for line in card.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_it_says_what_the_towers_were_trained_on_how_and_how_well() -> None:
    card = model_card.render(story(), evaluated())
    headings = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    assert headings == ["Trained on", "How", "How well", "Limits", "Lineage"]
    for row in (
        ["train", "900", "10,000", "2025-03-01 00:00", "2025-09-30 12:00"],
        ["rows\\_in", "12,345"],
        ["dropped: null\\_user", "345"],
        ["model.dim", "8"],
        ["2", "2.5000"],
        ["120", "0.2500", "0.1250", "900"],
        ["towers", "0.3125", "0.1875"],
        ["items.popularity=head", "900", "0.3750", "0.3 to 0.4"],
        ["pairs", "20260101T000000000-ba9876543210"],
        ["torch", "2.13.0"],
    ):
        assert row in rows(card)
    assert f"fingerprint `{'e' * 64}`" in card
    assert "- logs.0: s3://bucket/events/\\*.parquet" in card
    assert "They know nothing that happened after 2025-09-30" in card
    assert "not evaluated" not in card


def test_without_an_evaluation_it_says_so_as_a_limit() -> None:
    card = model_card.render(story(validation=()))
    assert "Nothing was validated in training." in card
    assert "- They were not evaluated, nor compared with simple baselines." in card


def test_names_are_text_and_stay_in_their_cell() -> None:
    card = model_card.render(story(config={"a": SPITEFUL}, kept=SPITEFUL))
    assert "<b>" not in card.replace("\\<b>", "")
    (row,) = (row for row in rows(card) if row[0] == "a")
    assert row[1] == "\\<b>a & b\\</b>\\|\\`\N{REPLACEMENT CHARACTER}"


def test_the_same_story_gives_the_same_card() -> None:
    assert model_card.render(story()) == model_card.render(story())

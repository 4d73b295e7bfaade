"""The page: every number is on it, nothing of the log is markup, and it is the same each time."""

from __future__ import annotations

import functools
import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib
import pytest

from raycl.data import report_drift, report_figures, report_page
from raycl.data.report import Report
from raycl.data.report_sketch import Kept, Rows
from tests.data.reports import HOSTILE, ITEMS, config, drifted, histogram, kept, made, rows, vocabulary

SVG = "{http://www.w3.org/2000/svg}"
PAGE = "{http://www.w3.org/1999/xhtml}"


class Page(HTMLParser):
    """What a browser's tokenizer makes of the page: its elements, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def compared() -> Report:
    """A report that was compared with an older one."""
    before = vocabulary({11: 9, 99: 1})
    now, older = made(), made(rows({19_700: 997}), kept(types=(7, 8, 9)), before, dropped={"robot_user": 3})
    items = drifted(before, ITEMS)
    drift = report_drift.compared("20260101T000000000-abc", older, now, items, [f"event_weights.{HOSTILE}"])
    return now.model_copy(update={"drift": drift})


@functools.cache
def page_of_compared() -> str:
    return report_page.render(compared())


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, row by row; the page must be well-formed."""
    root = ElementTree.fromstring(text.partition("\n")[2])
    return [
        [["".join(cell.itertext()) for cell in row] for row in table.iter(f"{PAGE}tr")]
        for table in root.iter(f"{PAGE}table")
    ]


def rows_of(text: str) -> list[list[str]]:
    return [row for table in tables(text) for row in table]


def test_the_page_has_every_number_in_its_tables() -> None:
    found = rows_of(page_of_compared())
    for row in [
        ["2023-12-09", "1,000", "800"],
        ["2023-12-10", "230", "71"],
        ["view", "1,001", "87.42 %", "700", "80.37 %"],
        ["buy", "33", "2.88 %", "70", "8.04 %"],
        ["hover", "29"],
        ["all others", "2"],
        ["duplicate", "269", "21.80 %"],
        ["all of them", "363", "29.42 %"],
        ["Number", "4", "4"],
        ["Events", "871", "871"],
        ["Most", "500", "700"],
        ["Events of the largest 1 %", "57.41 %", "80.37 %"],
        ["Gini coefficient", f"{made().users.gini:.3f}", f"{made().items.gini:.3f}"],
        ["256\N{EN DASH}511", "2", "50.00 %", "91.85 %"],
        ["8\N{EN DASH}15", "200", "0", "0"],
        ["More than 20", "16.37 %", "100.00 %", "100.00 %"],
        ["train", "4", "611", "99.19 %", "2023-12-09 00:00", "2023-12-10 01:00"],
        ["test", "2", "2", "0.32 %", "\N{EN DASH}", "\N{EN DASH}"],
        ["Items", "4", "2", "50.00 %"],
        ["Test targets", "2", "2", "100.00 %"],
        ["event", "17", "1,234", "1.38 %"],
        ["rows of 1 day in both", "997", "1,000", "+0.3 %"],
        ["New: events now, none before", "2", "19.63 % of the events now"],
        ["Gone: events before, none now", "1", "10.00 % of those before"],
        ["duplicate", "0.00 %", "21.80 %", "+21.80 points"],
        ["robot_user", "0.24 %", "0.00 %", "-0.24 points"],
    ]:
        assert row in found, row
    for name, distance in compared().drift.distances:
        assert [name, f"{distance:.4f}"] in found


def test_the_summary_and_the_version_compared_with_are_on_the_page() -> None:
    text = page_of_compared()
    for words in ("1,234", "871", "70.58 % of the rows", "2023-12-09 to 2023-12-10", "616", "611 to train on"):
        assert f">{words}<" in text
    assert "Compared with 20260101T000000000-abc" in text
    assert "ffffffffffff<" in text


def test_where_there_is_nothing_to_compare_with_the_page_says_so() -> None:
    found = made().model_copy(update={"drift": report_drift.none("the workspace is new")})
    assert "Not compared: the workspace is new." in report_page.render(found)


def test_names_from_the_log_are_text_wherever_they_stand() -> None:
    text = page_of_compared()
    page = Page(text)
    assert {tag for tag, _ in page.elements if tag in ("script", "img", "link", "iframe", "object")} == set()
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "<script" not in text
    assert "\x00" not in text
    assert "\u202e" not in text
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in HOSTILE)
    assert page.words.count(shown) >= 2  # as a type, and in the drift
    assert any(shown[:20] in words for words in page.words if "…" in words)  # in the figure
    assert html.escape(shown) in text


def test_dollars_in_a_name_are_not_formulas() -> None:
    names = ["$x_2$", "$\\frac{$", "$$"]
    found = made(settings=config(event_weights=dict.fromkeys(names, 1.0)))
    figure = report_figures.types(found.types.named)
    assert all(f">{name}</text>" in figure for name in names)


def test_the_page_is_well_formed_with_a_table_for_each_figure() -> None:
    text = page_of_compared()
    root = ElementTree.fromstring(text.partition("\n")[2])
    with_figure = [part for part in root.iter(f"{PAGE}section") if part.find(f".//{PAGE}figure") is not None]
    assert len(with_figure) == 6
    assert all(
        part.find(f".//{SVG}svg") is not None and part.find(f".//{PAGE}table") is not None for part in with_figure
    )
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) > 6
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', text)) <= set(ids)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = page_of_compared()
    names = {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"' )<]*", text)) <= names
    assert not re.search(r"@import|@font-face|src=|url\((?!#)", text)
    assert not any(tag == "link" for tag, _ in Page(text).elements)


def test_figures_take_the_colours_of_the_page() -> None:
    text = page_of_compared()
    figures = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}", figures.replace('href="#', ""))
    used = set(re.findall(r"var\((--\w+)\)", text))
    assert all(text.count(f"{name}:") == 2 for name in used)  # in light and in dark
    assert {"--ink", "--first", "--second", "--third", "--line", "--muted"} <= used


def test_the_same_report_gives_the_same_bytes_in_another_process() -> None:
    code = """
import hashlib, sys
from raycl.data import report_page
from raycl.data.report import Report
assert "matplotlib" not in sys.modules
page = report_page.render(Report.model_validate_json(sys.stdin.read()))
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
print(page)
"""
    found = compared()
    ran = subprocess.run(
        [sys.executable, "-c", code], input=found.model_dump_json(), capture_output=True, text=True, check=True
    )
    assert ran.stdout == report_page.render(found) + "\n" == report_page.render(found) + "\n"


def test_the_settings_of_the_machine_change_nothing_and_stay_as_they_are() -> None:
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert report_page.render(compared()) == page_of_compared()
        assert (matplotlib.rcParams["lines.linewidth"], matplotlib.rcParams["axes.facecolor"]) == (9, "red")


def test_a_command_that_draws_nothing_does_not_import_the_library_that_draws() -> None:
    code = "import sys, raycl.cli, raycl.data.pair_tasks; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_drawing_needs_can_be_loaded_ahead_and_is_all_that_it_imports() -> None:
    code = """
import sys
from raycl.data import report_figures
from raycl.pages import drawing
drawing.load()
before = {name for name in sys.modules if name.startswith("matplotlib")}
report_figures.drops({"bot": 2})
assert before, "nothing is loaded"
later = {name for name in sys.modules if name.startswith("matplotlib")} - before
assert later <= {"matplotlib.style.core"}, later  # deprecated for all but the library itself
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_without_words_to_encode_does_not_import_torch() -> None:
    code = "import sys, raycl.data.ray_pairs; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def many_types(number: int) -> Report:
    weights = {f"type {place}": 1.0 for place in range(number)}
    counts = tuple(range(1, number + 1))
    return made(rows(types=counts), kept(types=counts), settings=config(event_weights=weights))


EMPTY = {part: histogram([]) for part in ("train", "val", "test")}
NO_TIMES = kept(days={}, undated=871, spans={})
YEARS = rows(dict.fromkeys(range(0, 19_000, 10), 5) | {10: 0})


@pytest.mark.parametrize(
    "found",
    [
        made(Rows(types=(0, 0, 0)), Kept(types=(0, 0, 0), history=EMPTY), vocabulary({}), dropped={}),
        made(rows({}), NO_TIMES),
        made(rows({19_700: 1}), kept(days={19_700: 1}, users=histogram([1]))),
        made(YEARS),
        made(rows({1: 1, 19_700: 100_000})),
        made(rows(unknown={}), items=vocabulary({"a": 2**40, "b": 1})),
        many_types(256),
    ],
    ids=["nothing", "no_times", "one_day", "years", "stray_day", "huge_counts", "many_types"],
)
def test_any_log_has_a_page(found: Report) -> None:
    text = report_page.render(found)
    assert len(tables(text)) >= 7
    assert len(text) < 400_000


def test_long_logs_are_shown_in_few_periods_and_stray_rows_are_named() -> None:
    dates = [row for row in rows_of(report_page.render(made(YEARS))) if re.fullmatch(r"\d{4}-01-01", row[0])]
    assert 45 < len(dates) < 60
    assert "Not drawn, far from the others in time: 1 row." in report_page.render(made(rows({1: 1, 19_700: 100_000})))


def test_types_without_a_bar_are_in_the_table() -> None:
    text = report_page.render(many_types(256))
    assert sum(row[0].startswith("type ") for row in rows_of(text)) == 256
    assert "Drawn: the 12 with the most rows." in text

"""What pages of reports are made of: HTML that is well-formed XML too, and needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import date, datetime

from raycl.data.report_style import STYLE

Cell = str | int | float | date | datetime | None


def page(title: str, body: Sequence[str]) -> str:
    """The whole page; the same parts give the same bytes."""
    return (
        '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f'<meta name="color-scheme" content="light dark"/><title>{escaped(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def section(title: str, content: str) -> str:
    """One card of the page; ``content`` is HTML."""
    return f"<section><h2>{escaped(title)}</h2>{content}</section>"


def cards(named: Sequence[tuple[str, Cell, str]]) -> str:
    """Figures at a glance: name, value, and a note under it."""
    boxes = (
        f"<div><dt>{escaped(name)}</dt><dd>{shown(value)}<small>{escaped(said)}</small></dd></div>"
        for name, value, said in named
    )
    return f'<dl class="cards">{"".join(boxes)}</dl>'


def figure(svg: str) -> str:
    """A drawing that stands in the page."""
    return f"<figure>{svg}</figure>"


def note(text: str) -> str:
    """A remark in smaller letters."""
    return f'<p class="note">{escaped(text)}</p>'


def table(heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table whose first column names the row; every cell is escaped."""
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{shown(row[0])}</th>' + "".join(f"<td>{shown(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def shown(cell: Cell) -> str:
    """A cell as text: numbers with separators of thousands, times to the minute."""
    if cell is None:
        return "\N{EN DASH}"
    if isinstance(cell, datetime):
        return f"{cell:%Y-%m-%d %H:%M}"
    if isinstance(cell, int | float):
        return f"{cell:,}"
    return escaped(str(cell))


def escaped(text: str) -> str:
    """Text that means nothing to a browser; what cannot be printed, and so could not be in XML, is replaced."""
    plain = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return html.escape(plain)


def percent(share: float) -> str:
    """A share in hundredths; one that is not nothing is never shown as nothing."""
    if 0.0 < share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %"

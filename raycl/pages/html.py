"""Pages that need nothing else, of sections with figures, tables and notes; all text in them is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import date, datetime

from raycl.pages.style import STYLE

Cell = str | int | float | date | datetime | None


def page(title: str, body: Sequence[str], style: str = "") -> str:
    """HTML that is well-formed XML too; the parts of the body are markup, and ``style`` comes on top of the usual."""
    return (
        '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f'<meta name="color-scheme" content="light dark"/><title>{text(title)}</title>'
        f"<style>{STYLE}{style}</style></head>\n<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def cards(named: Iterable[tuple[str, str, str]]) -> str:
    """Name, value and a note of each number that a reader looks for first; all markup."""
    found = (f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in named)
    return f'<dl class="cards">{"".join(found)}</dl>'


def section(title: str, content: str) -> str:
    """A titled part of the page; both are markup."""
    return f"<section><h2>{title}</h2>{content}</section>"


def figure(svg: str) -> str:
    """A figure of ``drawing``."""
    return f"<figure>{svg}</figure>"


def note(line: str) -> str:
    """A line of small text."""
    return f'<p class="note">{text(line)}</p>'


def table(heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table whose first column names the row; every cell is escaped."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
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
    return text(str(cell))


def counted(count: int, noun: str) -> str:
    """A number of things in words."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def percent(share: float) -> str:
    """A share in hundredths; one that is not nothing is never shown as nothing."""
    if 0.0 < share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %"


def lines(words: str) -> str:
    """``text`` of each line."""
    return "\n".join(map(text, words.split("\n")))


def text(words: str) -> str:
    """Text that means nothing to a browser; what cannot be printed, and so could not be in XML, is replaced."""
    plain = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)
    return html.escape(plain)

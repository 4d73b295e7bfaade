"""The page for people, in a real browser where there is one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from raycl.serving import http, page
from raycl.serving.listener import Listener
from raycl.serving.tokens import Tokens
from tests.serving import browser, services
from tests.serving.browser import Page
from tests.serving.services import Web

CHROMIUM = browser.found()
needs_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path")
ROWS = "[...document.querySelectorAll('#items tr')]"


def visit(folder: Path, then: Callable[[Page], Awaitable[None]], *tokens: str) -> None:
    """Open the page of a service with a release, and go on there."""
    measured = {"index_recall": 0.98765}
    running = services.service(folder, quality=lambda name: measured)
    services.publish(running, folder)

    async def there() -> None:
        listener = Listener(http.application(running, Tokens(tokens)), "127.0.0.1", 0, 5.0)
        listener.start()
        assert CHROMIUM is not None
        async with browser.opened(CHROMIUM, f"http://127.0.0.1:{listener.port}/") as opened:
            await then(opened)
        await listener.stop(1.0)

    asyncio.run(there())


@needs_a_browser
def test_with_the_keyboard_alone_one_asks_and_reads_items_reasons_and_times(tmp_path: Path) -> None:
    async def then(shown: Page) -> None:
        await shown.until("document.getElementById('release').textContent === 'release r1 · index recall 0.9877'")
        await shown.press("Tab", "Tab", "Tab")
        assert await shown.value("document.activeElement.id") == "item"
        await shown.press("101, 103", "Enter", "104")
        assert await shown.value("document.querySelectorAll('#history li').length") == 2
        await shown.press("Tab", "Tab")
        assert await shown.value("document.activeElement.getAttribute('aria-label')") == "Remove 103"
        await shown.press("Space")
        assert await shown.value("document.activeElement.id") == "item"
        while await shown.value("document.activeElement.type") != "submit":
            await shown.press("Tab")
        await shown.press("Enter")
        await shown.until(f"{ROWS}.length === 4")
        assert await shown.value("document.activeElement.id") == "answer-title"
        first = await shown.value(f"{ROWS}[0].textContent")
        assert "Item 1" in first
        assert "without any event" in first
        told = await shown.value("document.getElementById('told').textContent")
        assert "4 of 4 that match" in told
        assert "release r1" in told
        phases = await shown.value("[...document.querySelectorAll('#phases th')].map((one) => one.textContent)")
        assert phases == ["encode", "search", "rerank", "explain", "describe", "seen from here"]
        await shown.value(f"{ROWS}[0].querySelector('button').focus()")
        await shown.press("Enter")
        assert await shown.value("document.querySelectorAll('#history li').length") == 3

    visit(tmp_path, then)


@needs_a_browser
def test_what_is_wrong_is_told_where_it_was_asked_and_text_of_the_catalogue_is_no_markup(tmp_path: Path) -> None:
    async def then(shown: Page) -> None:
        await shown.value("document.getElementById('filter').value = '{half'")
        await shown.value("document.getElementById('ask').requestSubmit()")
        await shown.until("!document.getElementById('problem').hidden")
        assert "filter: this is no JSON" in await shown.value("document.getElementById('problem').textContent")
        await shown.value("document.getElementById('filter').value = '{\"op\": \"nor\"}'")
        await shown.value("document.getElementById('ask').requestSubmit()")
        await shown.until("document.getElementById('problem').textContent.startsWith('422: filter')")
        markup = "<img src=x onerror=window.caught=1>"
        await shown.value(f"history_.push('{markup}'); drawHistory()")
        assert markup in await shown.value("document.getElementById('history').textContent")
        assert await shown.value("window.caught === undefined && !document.querySelector('#history img')")

    visit(tmp_path, then)


@needs_a_browser
def test_a_closed_service_is_asked_with_a_token(tmp_path: Path) -> None:
    async def then(shown: Page) -> None:
        await shown.until("document.getElementById('release').textContent.includes('a bearer token')")
        await shown.value("document.getElementById('token').value = 'open'")
        await shown.value("document.getElementById('ask').requestSubmit()")
        await shown.until(f"{ROWS}.length > 0")

    visit(tmp_path, then, "open")


def test_the_page_needs_nothing_else_and_names_every_field(tmp_path: Path) -> None:
    """Without a browser: it loads nothing, and what the script looks up by name is there, once, with a label."""
    ids: list[str] = []
    labelled: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            given = dict(attrs)
            if given.get("id"):
                ids.append(str(given["id"]))
            if tag == "label":
                labelled.add(str(given["for"]))
            assert tag != "script" or not given
            assert not given.get("src")
            assert given.get("href", "data:,") == "data:,"

    written = page.page()
    Reader().feed(written)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'at\("(\w+)"\)', written)) <= set(ids)
    assert {"user_id", "item", "features", "filter", "k", "method", "explain", "token"} <= labelled
    running = services.service(tmp_path)
    with Web(running, "secret") as web:
        answer = web.get("/")
    assert (answer.status_code, answer.text) == (200, written)
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]

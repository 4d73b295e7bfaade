"""A real browser without a window, spoken to by its own protocol; Chromium, where there is one."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

_WITHIN_S = 60.0
_KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Space": (32, " ")}


def found() -> str | None:
    """A Chromium on the path."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0

    async def call(self, method: str, **how: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": how})
        while True:
            said = json.loads((await self._socket.receive(timeout=_WITHIN_S)).data)
            if said.get("id") == self._number:
                assert "error" not in said, said
                return dict(said["result"])

    async def value(self, script: str) -> Any:
        """What an expression of the page is."""
        said = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression holds."""
        async with asyncio.timeout(_WITHIN_S):
            while not await self.value(script):
                await asyncio.sleep(0.05)

    async def press(self, *keys: str) -> None:
        """Named keys, or text that is typed."""
        for key in keys:
            if key not in _KEYS:
                await self.call("Input.insertText", text=key)
                continue
            code, text = _KEYS[key]
            told = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": code}
            await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **told)
            await self.call("Input.dispatchKeyEvent", type="keyUp", **told)


@asynccontextmanager
async def opened(path: str, url: str) -> AsyncIterator[Page]:
    """The page at ``url`` in a browser of its own."""
    folder = tempfile.mkdtemp(prefix="browser-")
    quiet = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    process = await asyncio.create_subprocess_exec(
        path,
        *quiet,
        f"--user-data-dir={folder}",
        "--remote-debugging-port=0",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        where = Path(folder) / "DevToolsActivePort"
        async with asyncio.timeout(_WITHIN_S):
            while not (where.exists() and where.read_text().strip()):
                await asyncio.sleep(0.1)
        port = where.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as said:
                (tab,) = [one for one in await said.json() if one["type"] == "page"]
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                await page.call("Page.enable")
                await page.call("Page.navigate", url=url)
                await page.until("document.readyState === 'complete' && location.href !== 'about:blank'")
                yield page
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        shutil.rmtree(folder, ignore_errors=True)

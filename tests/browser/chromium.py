"""Headless Chromium, driven over its DevTools protocol: one page, with a WAV file as its microphone."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from coordination.dev.process import ChildProcess, eventually

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_READY_WITHIN = timedelta(seconds=30)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--remote-debugging-port=0",
    "--window-size=1000,760",
)


def find_chromium() -> str:
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(
        "No Chromium was found, and these tests need one. Install it with: apt-get install chromium "
        "(macOS: brew install --cask chromium)"
    )


class Page:
    """A page under control: `evaluate` runs JavaScript in it, `eventually` waits for an expression to hold."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self.messages: list[str] = []

    async def command(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(30):
            while True:
                answer = await self._socket.receive_json()
                if answer.get("id") == number:
                    assert "error" not in answer, f"{method}: {answer['error']}"
                    return answer["result"]
                if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                    self.messages.append(json.dumps(answer["params"]))

    async def evaluate(self, expression: str) -> Any:
        result = await self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    async def eventually(self, expression: str, what: str, *, within: float = 20.0) -> None:
        deadline = asyncio.get_running_loop().time() + within
        while not await self.evaluate(expression):
            if asyncio.get_running_loop().time() > deadline:
                body = await self.evaluate("document.body.innerText")
                raise AssertionError(f"not within {within} s: {what}. The page says:\n{body}\n{self.messages}")
            await asyncio.sleep(0.05)

    async def screenshot(self) -> bytes:
        """A PNG of what is on the screen."""
        answer = await self.command("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])


@asynccontextmanager
async def open_page(url: str, *, directory: Path, microphone: Path | None = None) -> AsyncIterator[Page]:
    """Opens the address in a browser of its own, which ends with the block."""
    profile = directory / "profile"
    flags = [*_FLAGS, f"--user-data-dir={profile}"]
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}")
    browser = ChildProcess("chromium", [find_chromium(), *flags, "about:blank"], log=directory / "chromium.log")
    port_file = profile / "DevToolsActivePort"
    browser.spawn()
    try:
        ready = await eventually(lambda: port_file.exists() and "\n" in port_file.read_text(), _READY_WITHIN)
        assert ready, f"Chromium did not start:\n{browser.tail()}"
        port = port_file.read_text().splitlines()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                targets = [each for each in await answer.json() if each["type"] == "page"]
            address = targets[0]["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=64 * 2**20) as socket:
                page = Page(socket)
                await page.command("Runtime.enable")
                await page.command("Log.enable")
                await page.command("Page.enable")
                await page.command("Page.navigate", url=url)
                yield page
    finally:
        await browser.stop(within=timedelta(seconds=3))

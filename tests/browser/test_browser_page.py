"""The page in a real browser: a call with a microphone and a keyboard, to a real agent in a real room."""

from __future__ import annotations

import wave
from array import array
from collections.abc import AsyncIterator
from math import pi, sin
from pathlib import Path

import pytest
import pytest_asyncio
from livekit import api

from coordination.dev import DevStack, WorkerSpec
from coordination.dev.web import DevPage
from tests.browser.chromium import Page, open_page

AGENT = Path(__file__).parent / "page_agent.py"
RATE = 48000

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevStack]:
    worker = WorkerSpec(target=str(AGENT), name="receptionist")
    async with DevStack([worker], directory=tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(stack: DevStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    """The page in a browser whose microphone hears a tone; the tests of this module are one visit to it."""
    folder = tmp_path_factory.mktemp("browser")
    server = DevPage(stack.livekit, role="receptionist", roles=["receptionist", "billing"])
    async with server, open_page(server.url, directory=folder, microphone=tone(folder / "tone.wav")) as page:
        yield page


def tone(file: Path) -> Path:
    with wave.open(str(file), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(RATE)
        wav.writeframes(array("h", (int(12000 * sin(2 * pi * 440 * n / RATE)) for n in range(RATE * 2))).tobytes())
    return file


async def test_the_roles_are_shown_before_the_call(page: Page) -> None:
    await page.eventually("document.querySelectorAll('.agent.away').length === 2", "two roles, nobody there")
    assert await page.evaluate("document.getElementById('first').textContent") == "receptionist"


async def test_a_click_starts_the_call_and_shows_who_has_the_floor(page: Page) -> None:
    await page.evaluate("document.getElementById('start').click()")

    await page.eventually("document.body.dataset.state === 'connected'", "the call is open")
    await page.eventually("document.querySelector('.agent.floor')?.dataset.role === 'receptionist'", "the floor")
    await page.eventually("document.querySelector('.note')?.textContent === 'receptionist has the floor'", "a note")


async def test_the_agent_hears_the_microphone(page: Page, stack: DevStack) -> None:
    server = stack.livekit
    async with api.LiveKitAPI(server.url, server.api_key, server.api_secret) as client:
        name = await page.evaluate("document.getElementById('room').textContent")
        for _ in range(200):
            there = await client.room.list_participants(api.ListParticipantsRequest(room=name))
            if any(each.attributes.get("heard") == "yes" for each in there.participants):
                return
            await page.evaluate("new Promise((done) => setTimeout(done, 100))")
    pytest.fail("the agent has not heard the browser's microphone")


async def test_the_browser_plays_the_agents_voice(page: Page) -> None:
    players = "[...document.querySelectorAll('audio')].filter((each) => !each.paused && each.currentTime > 0.5)"
    await page.eventually(f"{players}.length === 1", "one voice is played")


async def test_words_of_both_sides_are_in_the_transcript_once(page: Page) -> None:
    agent = "[...document.querySelectorAll('.said:not(.mine) .what')].map((each) => each.textContent)"
    mine = "[...document.querySelectorAll('.said.mine .what')].map((each) => each.textContent)"
    await page.eventually(f"{mine}.includes('I have a question')", "the caller's last words")

    assert await page.evaluate(agent) == ["Welcome. How can I help you?"]
    assert await page.evaluate(mine) == ["I have a question"]


async def test_typed_text_reaches_the_agent_and_is_shown_as_text(page: Page) -> None:
    await page.evaluate(
        "document.getElementById('text').value = '<b>Hello</b>';document.getElementById('composer').requestSubmit()"
    )

    await page.eventually("document.body.innerText.includes('You typed: <b>Hello</b>')", "the answer")
    assert await page.evaluate("document.querySelectorAll('.said b').length") == 0


async def test_mute_stops_the_microphone_and_unmute_opens_it_again(page: Page) -> None:
    pressed = "document.getElementById('mute').getAttribute('aria-pressed')"
    for expected in ("true", "false"):
        await page.evaluate("document.getElementById('mute').click()")
        await page.eventually(f"{pressed} === '{expected}'", f"muted: {expected}")


async def test_an_announcement_by_a_participant_that_is_no_agent_changes_nothing(page: Page, stack: DevStack) -> None:
    server = stack.livekit
    async with api.LiveKitAPI(server.url, server.api_key, server.api_secret) as client:
        name = await page.evaluate("document.getElementById('room').textContent")
        said = b'{"v": 1, "fence": 9007199254740991, "agent": "x", "role": "billing"}'
        await client.room.send_data(api.SendDataRequest(room=name, data=said, topic="baton.floor"))
    await page.evaluate("new Promise((done) => setTimeout(done, 300))")

    assert await page.evaluate("document.querySelector('.agent.floor').dataset.role") == "receptionist"


async def test_the_call_ends_and_nothing_went_wrong_on_the_page(page: Page) -> None:
    await page.evaluate("document.getElementById('leave').click()")

    await page.eventually("document.body.dataset.state === 'idle'", "the call is over")
    await page.eventually("document.querySelectorAll('audio').length === 0", "no player is left")
    assert page.messages == []

"""The page's server: what it gives out, and to whom it gives tokens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import jwt
import pytest

from coordination.dev import DevError, ExternalLiveKit
from coordination.dev import web as page_module
from coordination.dev.web import DevPage

LIVEKIT = ExternalLiveKit(url="ws://127.0.0.1:9", api_key="key", api_secret="a secret of more than 32 characters")


@pytest.fixture
async def page() -> AsyncIterator[DevPage]:
    async with DevPage(LIVEKIT, role="receptionist", roles=["receptionist", "billing"]) as page:
        yield page


@pytest.fixture
async def browser(page: DevPage) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(page.url) as session:
        yield session


async def test_everything_the_page_needs_comes_from_this_server(browser: aiohttp.ClientSession) -> None:
    async with browser.get("/") as answer:
        html = await answer.text()
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "http://" not in html
    assert "https://" not in html
    for file in ("app.js", "view.js", "floor.js", "style.css", "icon.svg", "vendor/livekit-client.umd.js"):
        async with browser.get(f"/page/{file}") as answer:
            assert answer.status == 200, file


def test_the_vendored_client_comes_with_the_licences_of_all_it_carries() -> None:
    vendor = Path(page_module.__file__).parent / "page" / "vendor"

    assert "Apache License" in (vendor / "livekit-client.LICENSE").read_text()
    third_party = (vendor / "THIRD-PARTY.txt").read_text()
    for package in ("sdp-transform", "webrtc-adapter", "@bufbuild/protobuf", "jose"):
        assert f"{package} " in third_party


async def test_a_call_gets_a_room_of_its_own_and_a_token_that_brings_the_first_agent(
    browser: aiohttp.ClientSession,
) -> None:
    tickets: list[dict[str, str]] = []
    for _ in range(2):
        async with browser.post("/api/join", json={}) as answer:
            assert answer.status == 200
            tickets.append(await answer.json())

    first, second = tickets
    assert first["room"] != second["room"]
    assert first["url"] == LIVEKIT.url
    claims = jwt.decode(first["token"], LIVEKIT.api_secret, algorithms=["HS256"])
    assert claims["video"]["room"] == first["room"]
    assert claims["video"]["canPublishSources"] == ["microphone"]
    assert not claims["video"].get("roomAdmin")
    (dispatch,) = claims["roomConfig"]["agents"]
    assert dispatch["agentName"] == "receptionist"
    assert json.loads(dispatch["metadata"])["baton"]["tenant"] == "default"


async def test_a_room_that_is_asked_for_is_joined(browser: aiohttp.ClientSession) -> None:
    async with browser.post("/api/join", json={"room": "call-7"}) as answer:
        assert (await answer.json())["room"] == "call-7"


async def test_roles_are_told_in_their_order(browser: aiohttp.ClientSession) -> None:
    async with browser.get("/api/stack") as answer:
        assert await answer.json() == {"first": "receptionist", "roles": ["receptionist", "billing"]}


@pytest.mark.parametrize("headers", [{"Origin": "https://example.org"}, {"Host": "example.org"}])
async def test_a_foreign_page_gets_no_token(browser: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    async with browser.post("/api/join", json={}, headers=headers) as answer:
        assert answer.status == 403
        assert "token" not in await answer.text()


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"no json", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"room": 7}', "application/json", 400),
        (json.dumps({"room": "x" * 300}).encode(), "application/json", 400),
        (b"{" + b" " * 8000 + b"}", "application/json", 413),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_with_a_reason(
    browser: aiohttp.ClientSession, body: bytes, kind: str, status: int
) -> None:
    async with browser.post("/api/join", data=body, headers={"Content-Type": kind}) as answer:
        assert answer.status == status
        assert await answer.text()


async def test_a_port_that_is_taken_is_named(page: DevPage) -> None:
    with pytest.raises(DevError, match=f"port {page.port}"):
        await DevPage(LIVEKIT, role="receptionist", port=page.port).start()

"""The agents of the tutorial, from an installed wheel and no clone: `baton dev front_desk.py workshop.py`."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from livekit import api, rtc

from coordination.testing.emulators import ChatReply, OpenAIEmulator, ScriptedCall
from tests.deploy.wheels import environment, examples
from tests.rooms.ears import eventually

FILES = {"front-desk": "front_desk.py", "workshop": "workshop.py"}
TYPED = {
    "from livekit.plugins": "from livekit.agents.voice.room_io import RoomOptions\nfrom livekit.plugins",
    "stt=deepgram.STT(), llm=openai.LLM(), tts=elevenlabs.TTS()": "llm=openai.LLM()",
    "room=ctx.room)": "room=ctx.room, room_options=RoomOptions(audio_input=False, audio_output=False))",
}
"""What an agent for a caller who types says otherwise."""
IN_TIME = 90.0


@pytest.fixture(scope="module")
def baton(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment as the tutorial makes it."""
    folder = tmp_path_factory.mktemp("environment")
    return environment(folder, f"{wheel}[livekit,providers,dev]").parent / "baton"


def shop(body: dict[str, Any]) -> ChatReply:
    """A model that works in the tutorial's bicycle shop."""
    messages: list[dict[str, Any]] = body["messages"]
    tools = {tool["function"]["name"] for tool in body.get("tools", [])}
    told = " ".join(str(message.get("content")) for message in messages)
    if messages[-1]["role"] == "user" and "brakes" in str(messages[-1].get("content")) and "to_workshop" in tools:
        return ChatReply(calls=(ScriptedCall(name="to_workshop", arguments='{"summary": "squeaking brakes"}'),))
    if "to_front_desk" in tools:
        known = "squeaking brakes" in told and "My brakes squeak" in told
        return ChatReply(text="Bring it on Monday." if known else "What is it about?")
    return ChatReply(text="Bicycle shop, good morning.")


@dataclass(slots=True)
class Typist:
    """A caller who types, and reads what the agents say."""

    room: rtc.Room
    read: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    _reading: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def on_stream(self, reader: rtc.TextStreamReader, identity: str) -> None:
        async def take() -> None:
            self.read.append((identity, await reader.read_all()))

        task = asyncio.create_task(take())
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    def agents(self) -> dict[str, str]:
        """What was read last of each agent."""
        return dict(self.read)


@asynccontextmanager
async def typing(told: dict[str, str], first: str) -> AsyncIterator[Typist]:
    """A call to the agent `first` of a stack whose variables are `told`."""
    name = f"shop-{secrets.token_hex(4)}"
    url, key, secret = told["LIVEKIT_URL"], told["LIVEKIT_API_KEY"], told["LIVEKIT_API_SECRET"]
    async with api.LiveKitAPI(url, key, secret) as client:
        token = api.AccessToken(key, secret).with_identity("caller")
        room = rtc.Room()
        typist = Typist(room)
        room.register_text_stream_handler("lk.transcription", typist.on_stream)
        await room.connect(url, token.with_grants(api.VideoGrants(room_join=True, room=name)).to_jwt())
        await client.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(agent_name=first, room=name))
        yield typist
        await room.disconnect()


@asynccontextmanager
async def dev(baton: Path, folder: Path, *files: str, **environment: str) -> AsyncIterator[dict[str, str]]:
    """`baton dev` in a folder, and the variables that it tells for other terminals; ended by Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *(baton, "dev", *files, "--no-page"),
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = ""
    try:
        async with asyncio.timeout(IN_TIME):
            while "Ctrl-C stops everything" not in said:
                line = (await process.stdout.readline()).decode()
                assert line, f"it ended early:\n{said}"
                said += line
        draining = asyncio.create_task(process.stdout.read())
        yield dict(re.findall(r"export (\w+)=(\S+)", said))
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(IN_TIME):
            status = await process.wait()
    assert (status, "Stopped." in (await draining).decode()) == (0, True)


async def test_the_agents_of_the_tutorial_hand_a_caller_over(
    baton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files as they are shown, but for the voice: this caller types."""
    for name in ("PYTHONPATH", "LIVEKIT_URL", "BATON_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    shown = [code for code in examples("docs/tutorial.md") if "CoordinatedServer()" in code]
    for code, file in zip(shown, FILES.values(), strict=True):
        for spoken, typed in TYPED.items():
            assert spoken in code
            code = code.replace(spoken, typed)
        (tmp_path / file).write_text(code)

    def said(text: str) -> Callable[[], bool]:
        return lambda: any(text in words for _, words in typist.read)

    async with OpenAIEmulator(default=shop) as model:
        keys = {"OPENAI_API_KEY": "any", "OPENAI_BASE_URL": model.base_url}
        async with dev(baton, tmp_path, *FILES.values(), **keys) as told, typing(told, "front-desk") as typist:
            await eventually(said("Bicycle shop, good morning."), "the front desk greets", within=30)
            await typist.room.local_participant.send_text("My brakes squeak.", topic="lk.chat")
            await eventually(said("Bring it on Monday."), "the workshop knows the story", within=30)

    assert len(typist.agents()) == 2, "both agents were read"
    assert sum("good morning" in words for _, words in typist.read) == 1, "a second greeting"

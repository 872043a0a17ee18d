"""One caller of the scenario: asks a question aloud, waits for the answer, and asks again."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

import numpy as np
from livekit import api, rtc

from agents.limits.setting import BROKEN_TOPIC, ROLE, Order
from coordination.dev.livekit_server import ExternalLiveKit
from coordination.livekit.ending import REFUSED_TOPIC

logger = logging.getLogger("agents")

RATE = 16_000


def _question() -> rtc.AudioFrame:
    """Half a second of sound, and the silence that ends it: what was said is up to the emulated ears."""
    samples = np.zeros(RATE, np.int16)
    samples[: RATE // 2] = 8000 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)
    return rtc.AudioFrame(samples.tobytes(), RATE, 1, len(samples))


QUESTION = _question()
_IDENTITY = "caller"
_TRANSCRIPTION = "lk.transcription"
_STATE = "lk.agent.state"
_UNHEARD_AFTER = 3.0
"""Seconds after which a caller whose words were not understood says them again."""
_SENT_FOR_AGAIN_AFTER = 30.0
"""Seconds after which an agent is sent for again: LiveKit does it once, whatever becomes of the job on a machine where
twelve start at once beside other work. Should both come, one of them stands by."""
_AGAIN_AFTER = 0.2
"""Seconds after which a caller who got no answer asks again."""


class Caller:
    """A call in a room of its own. `answered` and `broken` count its questions."""

    def __init__(self, livekit: ExternalLiveKit, client: api.LiveKitAPI, name: str, order: Order) -> None:
        self.name, self.order = name, order
        self.answered = self.broken = 0
        self.refused = False
        """The call found no free line."""
        self._livekit, self._client = livekit, client
        self._room = rtc.Room()
        # A question fits into it as a whole: twelve callers in one process need no loop of their own for silence.
        self._microphone = rtc.AudioSource(QUESTION.sample_rate, 1, queue_size_ms=2 * int(QUESTION.duration * 1000))
        self._taken = asyncio.Event()
        self._understood = asyncio.Event()
        self._outcomes: asyncio.Queue[bool] = asyncio.Queue()
        self._reading: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        grants = api.VideoGrants(room_join=True, room=self.name)
        token = api.AccessToken(self._livekit.api_key, self._livekit.api_secret).with_identity(_IDENTITY)
        self._room.on("data_received", self._on_data)
        self._room.on("participant_attributes_changed", lambda _, participant: self._look_at(participant))
        self._room.on("participant_connected", self._look_at)
        self._room.register_text_stream_handler(_TRANSCRIPTION, self._on_text)
        await self._room.connect(self._livekit.url, token.with_grants(grants).to_jwt())
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._microphone)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self._room.local_participant.publish_track(track, options)
        await self._send_for_an_agent()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._microphone.aclose()
        with suppress(api.TwirpError):
            # At once for the agent too, instead of after the time that it waits for a caller to come back.
            await self._client.room.delete_room(api.DeleteRoomRequest(room=self.name))
        await self._room.disconnect()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def taken(self, *, within: timedelta) -> None:
        """Returns when an agent listens, or the call was refused. Raises `TimeoutError`."""
        async with asyncio.timeout(within.total_seconds()):
            while not await self._taken_within(_SENT_FOR_AGAIN_AFTER):
                logger.warning("%s had no agent after %g s: %s", self.name, _SENT_FOR_AGAIN_AFTER, self.agents)
                await self._send_for_an_agent()

    async def _taken_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._taken.wait(), seconds)
        # The SDK can take over a participant's attributes without an event.
        for participant in self._room.remote_participants.values():
            self._look_at(participant)
        return self.is_taken

    @property
    def is_taken(self) -> bool:
        return self._taken.is_set()

    @property
    def agents(self) -> dict[str, str]:
        """The state of each agent in the call, by its identity."""
        return {each.identity: each.attributes.get(_STATE, "") for each in self._room.remote_participants.values()}

    async def _send_for_an_agent(self) -> None:
        request = api.CreateAgentDispatchRequest(agent_name=ROLE, room=self.name, metadata=self.order.metadata())
        await self._client.agent_dispatch.create_dispatch(request)

    async def ask(self) -> None:
        """One question after another, until it is cancelled."""
        while not self.refused:
            if not await self._say():
                continue
            if await self._outcomes.get():
                self.answered += 1
            else:
                self.broken += 1
                await asyncio.sleep(_AGAIN_AFTER)

    async def _say(self) -> bool:
        """Whether the agent has understood: its first seconds can begin before it hears anything."""
        self._understood.clear()
        await self._microphone.capture_frame(QUESTION)
        with suppress(TimeoutError):
            async with asyncio.timeout(_UNHEARD_AFTER):
                await self._understood.wait()
        return self._understood.is_set()

    def _look_at(self, participant: rtc.Participant) -> None:
        if participant.attributes.get(_STATE) == "listening":
            self._taken.set()

    def _on_data(self, packet: rtc.DataPacket) -> None:
        if packet.topic == BROKEN_TOPIC:
            self._outcomes.put_nowait(False)
        elif packet.topic == REFUSED_TOPIC:
            self.refused = True
            self._taken.set()

    def _on_text(self, reader: rtc.TextStreamReader, speaker: str) -> None:
        if speaker == _IDENTITY:
            self._understood.set()
        else:
            task = asyncio.create_task(self._read(reader), name="an answer is read")
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _read(self, reader: rtc.TextStreamReader) -> None:
        """The text comes as it is spoken, and ends with the voice."""
        with suppress(rtc.StreamError):  # the caller has hung up
            if (await reader.read_all()).strip():
                self._outcomes.put_nowait(True)

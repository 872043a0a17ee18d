"""Where a call waits for a free line: an agent that says how it stands, in the job that will take the call.

The agent of the application does not begin before the call is admitted. A caller who hangs up leaves the queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from livekit import rtc
from livekit.agents import JobContext

from coordination.errors import LimitError
from coordination.livekit.admission import LOBBY, CallAdmission, WhenFull
from coordination.livekit.ending import close_room, leave_line
from coordination.livekit.identity import is_agent
from coordination.livekit.job_call import CallOf
from coordination.livekit.process import shared_coordinator, until_shutdown
from coordination.livekit.room_events import on_room
from coordination.settings import CoordinatorSettings

logger = logging.getLogger(__name__)

TRACK = "announcements"
SUBSCRIBED_WITHIN = 5.0
"""Seconds: who has not subscribed by then does not want to hear it, or has not come."""


def lobby_of(ctx: JobContext) -> WhenFull | None:
    """Why a job was accepted without a free line; None for the job of a call that was admitted."""
    if ctx.is_fake_job():
        return None
    said = (ctx.token_claims().attributes or {}).get(LOBBY)
    return WhenFull(said) if said else None


async def wait_in_lobby(ctx: JobContext, admission: CallAdmission) -> bool:
    """Speaks to a caller whose call was not admitted. True when its turn has come: the call is admitted, and counted
    for as long as the job lives. Otherwise the call was ended, and so was the job.
    """
    policy = lobby_of(ctx)
    if policy is None:
        return True
    await ctx.connect()
    async with _speaking(ctx.room, admission) as speaker:
        admitted = policy is WhenFull.QUEUE and await _queue(ctx, admission, speaker)
        if not admitted and not speaker.alone:
            await speaker.say(admission.busy)
    if admitted:
        await ctx.room.local_participant.set_attributes({LOBBY: ""})
        return True
    await _hang_up(ctx)
    return False


async def _queue(ctx: JobContext, admission: CallAdmission, speaker: _Speaker) -> bool:
    """Waits for a line and says the place meanwhile. False if there was none in time, or the caller has gone."""
    places = _Places()
    asking_for = asyncio.create_task(_take_line(ctx, admission, places.note), name="baton-queue")
    gone = asyncio.create_task(speaker.gone.wait(), name="baton-lobby-gone")
    announcing = asyncio.create_task(places.announce(admission, speaker), name="baton-lobby-voice")
    try:
        await asyncio.wait({asking_for, gone}, return_when=asyncio.FIRST_COMPLETED)
        if asking_for.done():
            asking_for.result()
            return True
    except LimitError as refused:
        logger.info("a call has left the queue: %s", refused)
    finally:
        for task in (asking_for, gone, announcing):
            task.cancel()
        *_, said = await asyncio.gather(asking_for, gone, announcing, return_exceptions=True)
        if isinstance(said, Exception):
            logger.warning("a call waited without an announcement, because its voice failed: %r", said)
    return False


async def _take_line(ctx: JobContext, admission: CallAdmission, on_place: Callable[[int], None]) -> None:
    """Raises `LimitError` if no line was free in time."""
    settings = CoordinatorSettings()
    async with until_shutdown(ctx) as held:
        coordinator = await held.enter_async_context(shared_coordinator(ctx, settings))
        if admission.limits is not None:
            coordinator.limits.configure(admission.limits)
        call, patience = CallOf.read(ctx.job, tenant=settings.tenant), admission.patience
        lease = await coordinator.limits.call(call.name, tenant=call.tenant, timeout=patience, on_place=on_place)
        held.push_async_callback(leave_line, ctx.api, ctx.room.name, lease)


class _Places:
    """The caller's place in the queue, as last told, and saying it."""

    def __init__(self) -> None:
        self._place = 0
        self._changed = asyncio.Event()

    def note(self, place: int) -> None:
        if place != self._place:
            self._place = place
            self._changed.set()

    async def announce(self, admission: CallAdmission, speaker: _Speaker) -> None:
        """Says each new place; of several that came while one was said, the last. Never ends by itself."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await speaker.say(admission.place.format(place=self._place))


class _Speaker:
    """An announcing voice in a room, and whether there is still somebody to hear it."""

    def __init__(self, room: rtc.Room, admission: CallAdmission) -> None:
        assert admission.voice is not None
        self._room, self._voice = room, admission.voice()
        self._source = rtc.AudioSource(self._voice.sample_rate, self._voice.num_channels)
        self.gone = asyncio.Event()

    @property
    def alone(self) -> bool:
        """Whether the callers have gone."""
        return self.gone.is_set()

    def look(self, *_: object) -> None:
        """After somebody left."""
        if not any(not is_agent(other) for other in self._room.remote_participants.values()):
            self.gone.set()

    async def say(self, text: str) -> None:
        """Returns when it was heard. Cancelled, it stops at once."""
        try:
            async with self._voice.synthesize(text) as spoken:
                async for audio in spoken:
                    await self._source.capture_frame(audio.frame)
            await self._source.wait_for_playout()
        except BaseException:
            self._source.clear_queue()
            raise

    async def publish(self) -> str:
        track = rtc.LocalAudioTrack.create_audio_track(TRACK, self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        published = await self._room.local_participant.publish_track(track, options)
        with suppress(TimeoutError):
            async with asyncio.timeout(SUBSCRIBED_WITHIN):
                await published.wait_for_subscription()
        return published.sid

    async def aclose(self) -> None:
        await self._source.aclose()
        await self._voice.aclose()


@asynccontextmanager
async def _speaking(room: rtc.Room, admission: CallAdmission) -> AsyncGenerator[_Speaker]:
    speaker = _Speaker(room, admission)
    ends = [on_room(room, "participant_disconnected", speaker.look), on_room(room, "disconnected", speaker.look)]
    try:
        sid = await speaker.publish()
        yield speaker
        if room.isconnected():
            await room.local_participant.unpublish_track(sid)
    finally:
        for end in ends:
            end()
        await speaker.aclose()


async def _hang_up(ctx: JobContext) -> None:
    """Ends the call and the job."""
    await close_room(ctx.api, ctx.room.name)
    ctx.shutdown(reason="no free line")

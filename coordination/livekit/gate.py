"""The gate: what decides, next to the voice and without asking anybody, whether an agent may be heard.

A `Gate` holds the lease of the floor. `AudioGate` and `TextGate` stand in the way of what a session says, at the head
of its output chains, and look at the gate before each piece; `coordination.livekit.tracks` does the same for
whatever else the agent publishes. Nothing here speaks to Redis: `Lease.held` is a local answer.

Invariant: at most `LEAD` of audio lies behind the gate, so an agent that lost the floor, and whose session is not
even told, is silent a moment later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from livekit import rtc
from livekit.agents.voice import io

PIECE = timedelta(milliseconds=20)
"""Between two looks at the lease: one Opus frame, so a piece is as small as what is sent anyway."""
LEAD = timedelta(milliseconds=100)
"""How far audio may run ahead of real time: enough to ride out a short stall, and the length of the tail."""
LATENESS_KEPT = 0.995
"""What each piece of 20 ms leaves of the lateness of those before: a stall is half forgotten after 2.8 s of voice,
when the caller's jitter buffer, which grew in it, has about shrunk again. Starting a job makes such a stall."""
SILENT_BELOW = 64
"""Peak (of 32767) below which a piece is silence: -54 dB."""
RECHECK = timedelta(milliseconds=20)
"""How often a held utterance looks again at a lease that is doubtful: such a lease recovers without an event."""


class HoldsFloor(Protocol):
    """What the gate needs of a lease."""

    @property
    def held(self) -> bool:
        """Whether the floor is held now; local and free."""
        ...


class Gate:
    """Open while it has a lease that is held; closed otherwise, and from the start.

    One gate serves all outputs of one agent. Not thread-safe: it belongs to the event loop of its session.
    """

    def __init__(self) -> None:
        self._lease: HoldsFloor | None = None
        self._given = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def lease(self) -> HoldsFloor | None:
        """The lease it was opened with last, whether it is still held or not; None while closed."""
        return self._lease

    @property
    def is_open(self) -> bool:
        return self._lease is not None and self._lease.held

    def open(self, lease: HoldsFloor) -> None:
        """Lets through for as long as `lease` is held; what waits goes on within the same turn of the loop."""
        self._lease = lease
        self._given.set()
        self._tell()

    def close(self) -> None:
        """Lets nothing more through until it is opened again. Closing twice does no harm."""
        self._lease = None
        self._given.clear()
        self._tell()

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` after each `open` and `close`; the returned function ends that.

        A lease that is lost without a `close` changes `is_open` silently: whoever must see it looks again.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def wait_open(self) -> HoldsFloor:
        """Returns the lease as soon as the gate is open. Cancelling it takes effect at once."""
        while True:
            lease = self._lease
            if lease is None:
                await self._given.wait()
            elif not lease.held:
                await asyncio.sleep(RECHECK.total_seconds())
            else:
                return lease

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()


@dataclass(frozen=True, slots=True, kw_only=True)
class GateStatistics:
    """What went through an audio gate so far."""

    passed: timedelta
    """Audio that was let through, in all."""
    utterance: timedelta
    """Audio of the current utterance, or else of the last one, that was let through."""
    discarded: timedelta
    """Audio of utterances that had begun under another lease than the one held later: never heard."""
    silent_at: float | None
    """`time.monotonic()` at which all that was let through has been played; None if nothing ever was."""
    lateness: timedelta
    """By how much the loop was late for the pieces of the last seconds: how far behind the clock the audio may be."""


class AudioGate(io.AudioOutput):
    """Stands in front of a session's own audio output and lets audio through only with the floor.

    - An utterance that meets a closed gate waits, at its first sound: the silence that synthesisers begin with is not
      waited through by the caller. Interrupting it takes effect at once, and leaves no trace.
    - An utterance whose floor is lost in the middle stops within `LEAD`. It goes on if the *same* lease turns out to
      be held after all. It is never continued under another one: the rest is dropped, and it ends as interrupted.
    - A pause by the session, for a caller who may be interrupting, holds the audio here: it does not pile up behind.

    It counts a segment only after the next output has taken its first piece, and it waits before that: a wait behind
    the count would make an interrupt wait for a playout that never ends.
    """

    def __init__(self, *, next_in_chain: io.AudioOutput, gate: Gate | None = None) -> None:
        """`gate` is shared with the agent's other outputs; without it the output has one of its own."""
        super().__init__(
            label="Baton",
            next_in_chain=next_in_chain,
            capabilities=io.AudioOutputCapabilities(pause=True),
        )
        # The base class may have put a proxy in between: that one is what audio goes to.
        self._next = self.next_in_chain or next_in_chain
        self.gate = gate or Gate()
        self.gate.on_change(self._on_gate_change)
        self._begun: HoldsFloor | None = None
        self._plays_until: float | None = None
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._shut = False
        self._stopped_at: float | None = None
        self._cut = False
        self.waiting = asyncio.Event()
        """Set while an utterance waits for the floor."""
        self._passed = self._utterance = self._discarded = self._late = 0.0

    def open(self, lease: HoldsFloor) -> None:
        """Lets audio through for as long as `lease` is held."""
        self.gate.open(lease)

    def close(self) -> None:
        """Lets no further piece through, whatever the session goes on to produce."""
        self.gate.close()

    @property
    def statistics(self) -> GateStatistics:
        return GateStatistics(
            passed=timedelta(seconds=self._passed),
            utterance=timedelta(seconds=self._utterance),
            discarded=timedelta(seconds=self._discarded),
            silent_at=self._plays_until,
            lateness=timedelta(seconds=self._late),
        )

    @property
    def sample_rate(self) -> int | None:
        return self._next.sample_rate

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        for piece in pieces(frame):
            if self._begun is None and not self.gate.is_open and not _audible(piece):
                continue
            lease = await self._admission(piece.duration)
            if lease is None:
                self._cut = True
                self._discarded += piece.duration
                continue
            await self._next.capture_frame(piece)
            await super().capture_frame(piece)
            self._count(piece.duration, lease)

    def flush(self) -> None:
        super().flush()
        self._next.flush()
        self._begun = None
        if self._shut:
            # What is left of an utterance that lost its floor must not be heard when the floor comes back.
            self._cut = True
            self._next.clear_buffer()
            self._reopen()

    def clear_buffer(self) -> None:
        self._next.clear_buffer()
        if self._plays_until is not None:
            self._plays_until = min(self._plays_until, self._stopped_at or time.monotonic())

    def pause(self) -> None:
        self._resumed.clear()
        self._stop_clock()
        self._next.pause()

    def resume(self) -> None:
        self._resumed.set()
        if not self._shut:
            self._start_clock()
            self._next.resume()

    def on_playback_finished(
        self,
        *,
        playback_position: float,
        interrupted: bool,
        synchronized_transcript: str | None = None,
    ) -> None:
        cut, self._cut = self._cut, False
        if self._plays_until is not None:
            # On a busy machine the audio lies behind the clock: what was played last is what counts.
            self._plays_until = max(self._plays_until, time.monotonic())
        super().on_playback_finished(
            playback_position=playback_position,
            interrupted=interrupted or cut,
            synchronized_transcript=synchronized_transcript,
        )

    async def _admission(self, duration: float) -> HoldsFloor | None:
        """Waits until a piece of `duration` seconds may pass: the floor is held, no pause, not too far ahead.

        None: it never may, for its utterance began under a lease that is not the one held now.
        """
        while True:
            if not self.gate.is_open:
                await self._wait_for_floor()
            lease = self.gate.lease
            assert lease is not None, "an open gate has a lease"
            if self._begun is not None and lease is not self._begun:
                return None
            self._reopen()
            if not self._resumed.is_set():
                await self._resumed.wait()
                continue
            ahead = (self._plays_until or 0.0) + duration - time.monotonic() - LEAD.total_seconds()
            if ahead <= 0:
                return lease
            due = time.monotonic() + ahead
            await asyncio.sleep(ahead)
            self._late = max(time.monotonic() - due, self._late * LATENESS_KEPT)

    async def _wait_for_floor(self) -> None:
        self._shut_down_stream()
        self.waiting.set()
        try:
            await self.gate.wait_open()
        finally:
            self.waiting.clear()

    def _count(self, duration: float, lease: HoldsFloor) -> None:
        if self._begun is None:
            self._begun = lease
            self._utterance = 0.0
        self._passed += duration
        self._utterance += duration
        now = time.monotonic()
        self._plays_until = max(now, self._plays_until or now) + duration

    def _on_gate_change(self) -> None:
        if not self.gate.is_open:
            self._shut_down_stream()

    def _shut_down_stream(self) -> None:
        """Pauses what is behind while an utterance is under way.

        The transcript is behind, too, and follows the clock: it would run on without the voice. An utterance that is
        complete already is left to end by itself, else nobody would ever learn that it has.
        """
        if self._begun is not None and not self._shut:
            self._shut = True
            self._stop_clock()
            self._next.pause()

    def _reopen(self) -> None:
        if self._shut:
            self._shut = False
            if self._resumed.is_set():
                self._start_clock()
                self._next.resume()

    def _stop_clock(self) -> None:
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()

    def _start_clock(self) -> None:
        """After a stop: what was ahead when it began may still lie behind the gate, and counts as ahead."""
        if self._stopped_at is not None and self._plays_until is not None:
            self._plays_until += time.monotonic() - self._stopped_at
        self._stopped_at = None


def _audible(frame: rtc.AudioFrame) -> bool:
    samples = memoryview(frame.data).cast("B").cast("h")
    return max(max(samples), -min(samples)) >= SILENT_BELOW


class TextGate(io.TextOutput):
    """Holds text back until the floor is held; the counterpart of `AudioGate` for transcripts and text replies.

    Text of an utterance that began under another lease is dropped, up to the utterance's end.
    """

    def __init__(self, *, next_in_chain: io.TextOutput | None, gate: Gate) -> None:
        super().__init__(label="Baton", next_in_chain=next_in_chain)
        self._next = next_in_chain
        self.gate = gate
        self._begun: HoldsFloor | None = None

    async def capture_text(self, text: str) -> None:
        lease = await self.gate.wait_open()
        if self._begun is None:
            self._begun = lease
        if lease is self._begun and self._next is not None:
            await self._next.capture_text(text)

    def flush(self) -> None:
        self._begun = None
        if self._next is not None:
            self._next.flush()


def pieces(frame: rtc.AudioFrame) -> Iterator[rtc.AudioFrame]:
    """Cuts a frame into pieces of `PIECE`; the last one may be shorter. A short frame is passed on as it is."""
    size = max(1, round(frame.sample_rate * PIECE.total_seconds()))
    if frame.samples_per_channel <= size:
        yield frame
        return
    for start in range(0, frame.samples_per_channel, size):
        count = min(size, frame.samples_per_channel - start)
        channels = frame.num_channels
        yield rtc.AudioFrame(
            data=frame.data[start * channels : (start + count) * channels],
            sample_rate=frame.sample_rate,
            num_channels=channels,
            samples_per_channel=count,
            userdata=frame.userdata if start == 0 else None,
        )

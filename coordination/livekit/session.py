"""`CoordinatedSession`: an `AgentSession` that speaks, answers and hears only while it has the floor."""

# The framework leaves the type parameters of its providers and sessions open: here, at the edge, they are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import AsyncIterable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal, TypeVar

from livekit.agents import NOT_GIVEN, Agent, AgentSession, ConversationItemAddedEvent, JobContext, NotGivenOr, llm
from livekit.agents.voice import SpeechHandle
from livekit.agents.voice.io import PlaybackFinishedEvent
from livekit.agents.voice.room_io import RoomOptions, TextInputEvent, TextInputOptions

from coordination.errors import InvalidArgument, RoleTaken, StoreUnavailable
from coordination.leases.lease import Lease
from coordination.livekit.conversation import Conversation
from coordination.livekit.entry import Continuation, Entry
from coordination.livekit.gate import AudioGate, Gate, TextGate
from coordination.livekit.identity import is_agent
from coordination.livekit.join import take_seat
from coordination.livekit.listening import CallerInput
from coordination.livekit.saving.alone import SavingAlone
from coordination.livekit.seat import Seat
from coordination.livekit.standby import Stage
from coordination.livekit.tracks import VOICE_TRACK, TrackGate, check_outputs
from coordination.livekit.turnlog import SpokenText
from coordination.livekit.utterance import UtteranceTracker, on_session
from coordination.metrics import METRICS
from coordination.settings import CoordinatorSettings

logger = logging.getLogger(__name__)

UserdataT = TypeVar("UserdataT")
OPENS_WITHIN = timedelta(seconds=1.5)
"""How long readiness waits for the first sound of an opening."""
BACK_AFTER = timedelta(seconds=1)
"""A caller who was away for less is not told so."""
DIES_AWAY = timedelta(milliseconds=20)
"""The caller hears each agent through a jitter buffer of its own, and two of them differ by up to 20 ms on a calm
machine: without this, the old voice's last 10 ms can arrive with the new one's first. Half of it was tried: the gap is
10 ms shorter, and one handoff of a hundred had both voices in one frame. On a machine that is late with its audio,
twice its lateness is added, for the way there."""
DIES_AWAY_AT_MOST = timedelta(milliseconds=150)
NEW_TRACK = timedelta(milliseconds=150)
"""More of it before a track that the caller has not heard yet: the jitter buffer of the old voice may have grown, by
the network or by the start of that very agent on a busy host, and that of the new voice is short. A natural pause is
longer than all of it together."""
WELCOME_BACK = (
    "The caller was disconnected for a moment and is back. In one short sentence, welcome them back and go on where "
    "the conversation stopped. Do not greet as if the call were new."
)


class CoordinatedSession(AgentSession[UserdataT]):
    """An `AgentSession` for calls that several agents share; give it the job's context first, then the usual options.

    `start` returns when the agent has the floor and its `on_enter` runs, or, if another agent has it, when this one
    stands by. Without the floor nothing is said: `say` and `generate_reply` return a handle that is done. When the
    floor comes later, the agent is put on and opens as one who knows the story; `handoff` tells it what happened.

    `coordination="off"` makes it a plain `AgentSession` that never opens a connection to Redis; so does a job of
    LiveKit's `console`. By default the settings decide (`BATON_COORDINATION`).
    """

    def __init__(
        self,
        ctx: JobContext,
        *,
        coordination: Literal["on", "off"] | None = None,
        settings: CoordinatorSettings | None = None,
        skills: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        """`options` are those of `AgentSession`. `skills` are what this agent is listed with.

        Raises `InvalidSettings` when coordination is on and nothing says where Redis is.
        """
        self._ctx = ctx
        self._settings = settings or CoordinatorSettings()
        on = (coordination or self._settings.coordination) == "on"
        self.coordinated = on and not ctx.is_fake_job()
        self._skills = skills
        if self.coordinated:
            self._settings.require_redis_url()
            # The default would replace the caller's first words by silence while the agent greets.
            options.setdefault("aec_warmup_duration", None)
        super().__init__(**options)
        self.seat: Seat | None = None
        self.gate = Gate()
        self.utterance = UtteranceTracker(self)
        self._conversation = Conversation(self)
        self._stage: Stage | None = None
        self._caller: CallerInput | None = None
        self._tracks: TrackGate | None = None
        self._text_input = TextInputOptions().text_input_cb

    @property
    def handoff(self) -> Continuation | None:
        """What the agent continues, or None if the call begins with it.

        Asking for it while entering (in `on_enter`, or right after `start`) says that the agent knows of handoffs:
        what it then says by itself is left as it is. An agent that does not ask never greets in mid-conversation.
        """
        entry = self._conversation.entry
        if entry is None or entry.continuation is None:
            return None
        entry.aware = True
        return entry.continuation

    @property
    def stage(self) -> Stage:
        assert self._stage is not None, "the session is coordinated and started"
        return self._stage

    # -- begin and end ----------------------------------------------------------------------------

    async def start(self, agent: Agent, **options: Any) -> Any:
        """Starts the session; `options` are those of `AgentSession.start`.

        A call that begins while Redis is away is served by this agent alone, unless another agent is in the room or
        `start_without_redis` says otherwise. Raises `RoleTaken` when another live agent of the call serves the same
        role: the job is then shut down, and `CoordinatedServer` lets it end quietly. Raises `UnsupportedOutput` for an
        avatar or video.
        """
        if not self.coordinated:
            return await self._start_alone(agent, options)
        if self._started:
            return None
        if options.get("capture_run"):
            raise InvalidArgument("capture_run is for tests of a plain AgentSession: use coordination='off' there.")
        await self._ctx.connect()
        check_outputs(self.output, self._ctx.room)
        try:
            self.seat = await take_seat(self, self._ctx, settings=self._settings, skills=self._skills)
        except RoleTaken as taken:
            logger.info("leaving: %s", taken)
            self._ctx.shutdown(str(taken))
            raise
        except StoreUnavailable as away:
            self._serve_alone(away)
            return await self._start_alone(agent, options)
        self._ctx.add_shutdown_callback(self.seat.close)
        self._stage = Stage(
            put=self._put, interrupt=self._interrupt_all, current=lambda: self.current_agent, front=agent
        )
        self._conversation.attach(agent)
        options["room_options"] = self._room_options(options.get("room_options", NOT_GIVEN), self.seat)
        options["session_host"] = False
        await super().start(self._stage.standby, **options)
        voice = options["room_options"].get_audio_output_options()
        self._guard_outputs(self.seat, voice=voice.track_name if voice and voice.track_name else VOICE_TRACK)
        on_session(self, "close", self._on_close)
        on_session(self, "conversation_item_added", self._on_item)
        await self.seat.begin()
        return None

    async def _start_alone(self, agent: Agent, options: dict[str, Any]) -> Any:
        """As a plain session, whose call is saved all the same where a backend is configured."""
        if self._ctx.is_fake_job() or self._started:
            return await super().start(agent, **options)
        saving = SavingAlone(self._ctx, tenant=self._settings.tenant).follow(self)
        started = await super().start(agent, **options)
        if self._ctx.room.isconnected():
            await saving.open()
        return started

    def _serve_alone(self, away: StoreUnavailable) -> None:
        """Goes on without coordination in a call that nobody else serves; raises `away` in any other."""
        others = [each.identity for each in self._ctx.room.remote_participants.values() if is_agent(each)]
        if others or not self._settings.start_without_redis:
            self._ctx.shutdown("Redis is away, and another agent may be speaking in this call")
            raise away
        logger.error("this call runs WITHOUT coordination: no handoffs, no takeover. %s", away)
        METRICS.served_alone()
        self.coordinated = False

    def _room_options(self, given: NotGivenOr[RoomOptions], seat: Seat) -> RoomOptions:
        """Links to the caller of the record, answers text with the floor alone, outlives one participant's leaving."""
        options = copy.copy(given) if isinstance(given, RoomOptions) else RoomOptions()
        if not options.participant_identity and seat.plan.caller:
            options.participant_identity = seat.plan.caller
        options.close_on_disconnect = False
        text = options.get_text_input_options()
        if text is not None:
            self._text_input = text.text_input_cb
            options.text_input = TextInputOptions(text_input_cb=self._on_text)
        return options

    def _guard_outputs(self, seat: Seat, *, voice: str) -> None:
        """Puts the gate at the head of every output, before any agent that could speak is put on."""
        if self.output.audio is not None:
            gate = AudioGate(next_in_chain=self.output.audio, gate=self.gate)
            gate.on("playback_finished", self._on_played)
            self.output.audio = gate
        text = self.output.transcription
        self.output.transcription = SpokenText(TextGate(next_in_chain=text, gate=self.gate), seat.turns)
        if self.input.audio is not None:
            self._caller = CallerInput(self.input.audio)
            self.input.audio = self._caller
        self._tracks = TrackGate(self._ctx.room, self.gate, voice=voice)
        self._tracks.start()

    def _on_played(self, event: PlaybackFinishedEvent) -> None:
        if self.seat is not None:
            self.seat.turns.played(event.playback_position, interrupted=event.interrupted)

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        """Logs caller turns that come on another way than by voice."""
        item = event.item
        if self.seat is not None and isinstance(item, llm.ChatMessage) and item.role == "user":
            self.utterance.completed()
            self.seat.turns.caller(item)

    def _on_close(self, _: object) -> None:
        self.gate.close()
        self._conversation.leave()
        if self.seat is not None:
            self.seat.spawn(self._close_parts(), "close the session's parts")

    async def _close_parts(self) -> None:
        if self._tracks is not None:
            await self._tracks.aclose()
        if self._stage is not None:
            await self._stage.close()
        if self.seat is not None:
            await self.seat.close()

    # -- the floor, as the seat reports it --------------------------------------------------------

    async def get_set(self, entry: Entry) -> None:
        """The floor is promised: puts the agent on behind its closed gate, where its opening waits for the floor.

        What the caller says meanwhile is kept. Returns when the opening can be heard at once, or after `OPENS_WITHIN`:
        a slower synthesiser goes on while the agent is ready.
        """
        self.keep_caller()
        self._conversation.promise(entry)
        self.stage.show()
        await self.stage.settled()
        voice = self.output.audio
        if entry.opening is not None and isinstance(voice, AudioGate):
            with suppress(TimeoutError):
                await asyncio.wait_for(voice.waiting.wait(), OPENS_WITHIN.total_seconds())

    def come_on(self, lease: Lease, entry: Entry) -> None:
        """The floor is granted: opens the gate and puts the agent on, if it is not there yet."""
        self.gate.open(lease)
        self.stage.show()
        seat = self.seat
        self._conversation.enter(entry, carried=seat.target.carried if seat else None)

    def fall_silent(self) -> None:
        """The floor is lost: stops what is being said. The gate is closed already; nothing is waited for."""
        self._conversation.leave()
        self._interrupt_all()

    def go_silent(self) -> None:
        """Puts the standby on: nothing is heard, said or answered."""
        self.gate.close()
        self._conversation.leave()
        if self._caller is not None:
            self._caller.deaf()
        if self._stage is not None:
            self._stage.hide()

    def yield_to_caller(self) -> None:
        """An utterance that began under the old agent comes to light: it comes before what this agent wants to say."""
        if self.seat is not None and self.seat.target.carried is not None:
            self._conversation.yield_to(self.seat.target.carried)

    async def _put(self, agent: Agent) -> None:
        super().update_agent(agent)
        if self._update_activity_atask is not None:
            await asyncio.shield(self._update_activity_atask)

    def _interrupt_all(self) -> None:
        if self._activity is not None:
            super().interrupt(force=True)

    @property
    def at_boundary(self) -> bool:
        """Nobody speaks, and nothing that was said waits for its words or its answer."""
        idle = self.current_speech is None and self.agent_state != "speaking"
        return idle and not self.utterance.open and not self.utterance.being_answered

    @property
    def being_said(self) -> timedelta | None:
        """How much of the current utterance was let through; None while nobody speaks."""
        voice = self.output.audio
        if self.agent_state != "speaking" or not isinstance(voice, AudioGate):
            return None
        return voice.statistics.utterance

    async def hush(self, *, new_track: bool = False) -> None:
        """Closes the gate and returns when nothing that passed it is heard any more; at once if nobody speaks.

        `new_track`: who speaks next has just been sent for.
        """
        self.gate.close()
        voice = self.output.audio
        if not isinstance(voice, AudioGate) or (silent_at := voice.statistics.silent_at) is None:
            return
        tail = min(DIES_AWAY + 2 * voice.statistics.lateness, DIES_AWAY_AT_MOST)
        if new_track:
            tail += NEW_TRACK
        left = silent_at - time.monotonic()
        if left > 0:
            self._interrupt_all()
        await asyncio.sleep(max(0.0, left + tail.total_seconds()))

    def take_carried(self) -> tuple[str, str] | None:
        """Turn id and text of a caller turn that was completed after the floor had moved; each is given once."""
        carried, self._conversation.carried = self._conversation.carried, None
        return carried

    # -- the caller -------------------------------------------------------------------------------

    def listen(self, *, since: float | None) -> None:
        """Hears the caller; first what was kept since then (`time.monotonic()`), or all that was kept."""
        if self._caller is not None:
            self._caller.live(since=since)

    def keep_caller(self) -> None:
        if self._caller is not None:
            self._caller.keep()

    def hold_caller(self) -> None:
        """Forgets what was heard of the current turn, and keeps what comes."""
        if self._caller is not None:
            self._caller.keep()
        if self._activity is not None:
            self.clear_user_turn()

    def link_to(self, identity: str) -> None:
        if self._room_io is not None:
            self.room_io.set_participant(identity)

    def caller_is_back(self, away: timedelta) -> None:
        if away >= BACK_AFTER and self.seat is not None and self.seat.holds:
            self.reply(instructions=WELCOME_BACK)

    async def _on_text(self, session: AgentSession[Any], event: TextInputEvent) -> None:
        """Text reaches every agent of the room; the one that has the floor answers."""
        if self.seat is None or not self.seat.holds:
            return
        self._conversation.settle()
        answer = self._text_input(session, event)
        if asyncio.iscoroutine(answer):
            await answer

    # -- speaking ---------------------------------------------------------------------------------

    def say(self, text: str | AsyncIterable[str], **options: Any) -> SpeechHandle:
        """As `AgentSession.say`; without the floor nothing is said, and the handle is done."""
        return self._instead(has_input=False) or super().say(text, **options)

    def generate_reply(self, **options: Any) -> SpeechHandle:
        """As `AgentSession.generate_reply`; without the floor nothing is generated, and the handle is done."""
        return self._instead(has_input=bool(options.get("user_input"))) or super().generate_reply(**options)

    def _instead(self, *, has_input: bool) -> SpeechHandle | None:
        if self.seat is None:
            return None
        if not self.seat.holds:
            logger.info("without the floor nothing is said")
            return self.say_nothing()
        if has_input:
            self._conversation.settle()
            return None
        return self._conversation.replacement()

    def speak(self, text: str) -> SpeechHandle:
        """Says a text, whatever the entry, and whether the floor is there already or only promised."""
        return super().say(text)

    def reply(self, *, instructions: str | None = None, user_input: llm.ChatMessage | None = None) -> SpeechHandle:
        """Generates a reply, whatever the entry."""
        return super().generate_reply(instructions=instructions or NOT_GIVEN, user_input=user_input or NOT_GIVEN)

    def apology_for(self, silence: timedelta) -> str:
        """What is said first after so long a silence; empty if it was short."""
        return self._settings.apology if silence >= self._settings.apologise_after else ""

    def say_nothing(self) -> SpeechHandle:
        """A handle of a speech that is over and was not heard."""
        handle = SpeechHandle.create()
        handle.interrupt()
        handle._mark_done()  # pyright: ignore[reportPrivateUsage]  # the framework has no public way to end one
        return handle

    # -- agents -----------------------------------------------------------------------------------

    def update_agent(self, agent: Agent) -> None:
        """An in-process handoff. Without the floor the agent is put on when the floor comes."""
        if self._stage is None:
            super().update_agent(agent)
            return
        self._stage.front = agent
        self._conversation.attach(agent)
        if self._stage.shown:
            super().update_agent(agent)

    async def _update_activity(self, agent: Agent, **options: Any) -> None:
        """Every agent passes here, inline tasks too."""
        if self._stage is not None and agent is not self._stage.standby:
            self._conversation.attach(agent)
        await super()._update_activity(agent, **options)

    def _set_user_away_timer(self) -> None:
        """A standby hears nobody, so to it everybody would seem to be away."""
        if self.seat is None or self.seat.holds:
            super()._set_user_away_timer()

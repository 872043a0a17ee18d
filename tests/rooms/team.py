"""A team of agents in one real room, each a job of the test's own process, and a caller who talks to them.

`async with gathering(room, redis_url) as team:` gives a `Team`. `await team.join("billing", ...)` starts an agent; what
it was asked to say, what it heard and where the floor is can be read from it. A caller's word that names one of its
`roles` makes the agent hand over to it; anything else is answered by "<role> heard <words>".
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from livekit.agents import Agent, JobContext, RunContext, function_tool, llm

from coordination.handoff.context import HandoffContext
from coordination.ids import RoleName
from coordination.livekit import CoordinatedSession, handoff_to
from coordination.livekit.handoff import Departure, HandoffRequest
from coordination.livekit.seat import Seat
from coordination.room.turns import Speaker, Turn
from coordination.settings import CoordinatorSettings
from tests.rooms.callers import Caller, calling
from tests.rooms.ears import eventually
from tests.rooms.jobs import Job
from tests.rooms.providers import QUICK_TURNS, Reply, RuleLLM, ToneSTT, ToneTTS, ToneVAD, last_user_text
from tests.rooms.rig import LiveRoom

STANDBY = {"baton": {"v": 1, "standby": True}}


@dataclass(slots=True)
class Options:
    """How one agent of the team behaves."""

    greeting: str = "hello"
    """What it says in `on_enter`, whoever was there before: it knows nothing of Baton."""
    opening: str | None = None
    """Given along when it hands over."""
    announce: str | None = None
    stt_delay: float = 0.0
    stt_interim: bool = True
    deadline: timedelta | None = None
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    metadata: dict[str, Any] | str | None = None


class TeamAgent(Agent):
    def __init__(self, player: Player) -> None:
        super().__init__(instructions=f"You are {player.role}.")
        self.player = player

    async def on_enter(self) -> None:
        self.player.entered += 1
        if self.player.options.greeting:
            self.session.say(f"{self.player.options.greeting} from {self.player.role}")

    @function_tool
    async def transfer(self, context: RunContext, role: str) -> str | None:
        """Hands the caller over."""
        options = self.player.options
        self.player.outcome = await handoff_to(
            context,
            role,
            summary=f"wants {role}",
            facts={"asked": role},
            opening=options.opening,
            announce=options.announce,
            deadline=options.deadline,
        )
        self.player.handed += 1
        return self.player.outcome


class Player:
    """One agent of the team: its job, its session, its providers, and what became of its handoffs."""

    def __init__(self, room: LiveRoom, role: str, options: Options, roles: Sequence[str], pitch: float) -> None:
        self.role, self.options, self.roles = role, options, roles
        self.stt, self.tts = ToneSTT(delay=options.stt_delay, interim=options.stt_interim), ToneTTS(pitch=pitch)
        self.llm = RuleLLM(self.rule)
        self.agent: Agent = TeamAgent(self)
        self.job = Job(room, role, metadata=options.metadata)
        self.session: CoordinatedSession[None]
        self.entered = 0
        self.handed = 0
        """Handoffs that have ended."""
        self.outcome: str | None = "not asked"
        self._redis_url = ""

    async def start(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self.job.start(self._entrypoint)
        await self.job.started()

    async def _entrypoint(self, ctx: JobContext) -> None:
        self.session = CoordinatedSession[None](
            ctx,
            settings=CoordinatorSettings(redis_url=self._redis_url, **self.options.settings),
            stt=self.stt,
            llm=self.llm,
            tts=self.tts,
            vad=ToneVAD(),
            turn_handling=QUICK_TURNS,
        )
        await self.session.start(agent=self.agent, room=ctx.room)

    def rule(self, chat: llm.ChatContext) -> Reply:
        text = last_user_text(chat)
        for role in self.roles:
            if role in text.split() and role != self.role:
                return Reply(tool="transfer", arguments=json.dumps({"role": role}))
        return Reply(text=f"{self.role} heard {text}" if text else f"{self.role} goes on")

    @property
    def seat(self) -> Seat:
        assert self.session.seat is not None, "the session has started"
        return self.session.seat

    @property
    def identity(self) -> str:
        return self.job.identity

    @property
    def holds(self) -> bool:
        return self.seat.holds

    @property
    def said(self) -> list[str]:
        return self.tts.texts


class Team:
    def __init__(self, room: LiveRoom, caller: Caller, redis_url: str) -> None:
        self.room, self.caller, self.redis_url = room, caller, redis_url
        self.players: dict[str, Player] = {}

    async def join(self, role: str, *, roles: Sequence[str] = (), **options: Any) -> Player:
        """Starts an agent; returns when its entrypoint has. `roles` are the words on which it hands over."""
        player = Player(self.room, role, Options(**options), roles, 700.0 + 250.0 * len(self.players))
        self.players[role] = player
        await player.start(self.redis_url)
        return player

    async def turns(self) -> Sequence[Turn]:
        return await next(iter(self.players.values())).seat.room.turns.read()

    async def words_of_caller(self) -> list[str]:
        return [turn.text for turn in await self.turns() if turn.speaker is Speaker.CALLER]

    async def words_of_agents(self) -> list[tuple[str, str]]:
        return [(turn.role, turn.text) for turn in await self.turns() if turn.speaker is Speaker.AGENT]

    def silent(self, *, for_: float = 0.4) -> bool:
        """Nobody was heard for a moment, and nobody is about to speak."""
        heard = any(self.caller.ears.hears(player.identity, within=for_) for player in self.players.values())
        return not heard and all(player.session.current_speech is None for player in self.players.values())

    async def quiet(self, *, within: float = 8.0) -> None:
        """Returns when nobody has been heard for a moment."""
        await eventually(self.silent, "the agents have finished speaking", within=within)

    async def holder(self, role: str, *, within: float = 8.0) -> Player:
        """Returns when the agent of that role holds the floor."""
        await eventually(lambda: self.players[role].holds, f"{role} has the floor", within=within)
        return self.players[role]

    async def hand_over(self, role: str, to: str) -> None:
        """Moves the floor without a word of the caller's, as a drain does."""
        seat = self.players[role].seat
        assert seat.lease is not None
        request = HandoffRequest(lease=seat.lease, role=RoleName(to), context=HandoffContext(reason="a drain"))
        await Departure(seat, request, deadline=timedelta(seconds=8)).run()

    def overlap(self) -> float:
        """Seconds in which two agents were heard at once, by 10 ms frames."""
        slots: dict[int, set[str]] = {}
        for player in self.players.values():
            for frame in self.caller.ears.audible(player.identity):
                slots.setdefault(int(frame.at * 100), set()).add(player.identity)
        return sum(len(heard) > 1 for heard in slots.values()) / 100

    async def close(self) -> None:
        await asyncio.gather(*(player.job.close() for player in self.players.values()))


@asynccontextmanager
async def gathering(room: LiveRoom, redis_url: str) -> AsyncIterator[Team]:
    async with calling(room) as caller:
        team = Team(room, caller, redis_url)
        try:
            yield team
        finally:
            await team.close()

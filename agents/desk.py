"""What the three agents have in common: a prompt in a file, a greeting, and an opening for handed-over calls."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from livekit.agents import Agent, AgentSession, JobProcess, UserStateChangedEvent, llm, tts

from agents.account import Account
from agents.offline.language import domain_language
from agents.providers import describe, voice_for
from config import ApplicationSettings, Role, load_settings
from coordination.livekit import CallAdmission, Continuation, CoordinatedServer, CoordinatedSession, WhenFull
from coordination.settings import CoordinatorSettings

logger = logging.getLogger("agents")


ARE_YOU_THERE = "Are you still there? Take your time, I am listening."


class DeskAgent(Agent):
    """An agent with a place in the team. Subclasses say which, and how they open."""

    role: ClassVar[Role]
    openings: ClassVar[Mapping[str, str]]
    """What to say first after a handoff, by its topic; "question" is said for topics that are not listed."""

    def __init__(self, *, tools: list[llm.Tool | llm.Toolset], greeting: str) -> None:
        folder = Path(__file__).with_name(self.role.value)
        super().__init__(instructions=(folder / "prompt.md").read_text(encoding="utf-8"), tools=tools)
        self._greeting = greeting

    async def on_enter(self) -> None:
        """Greets a caller who has not talked to anybody yet."""
        session = self.session
        if isinstance(session, CoordinatedSession) and session.handoff is not None:
            return
        account: object = session.userdata
        session.say(await account.greeting(self._greeting) if isinstance(account, Account) else self._greeting)

    def opening(self, handoff: Continuation) -> str:
        """The first words after a handoff. Known beforehand, so that they are rendered before they are needed."""
        topic = handoff.facts.get("topic")
        return self.openings.get(str(topic), self.openings["question"])


def ask_whether_there(session: AgentSession[Any]) -> None:
    """Lets the session ask a caller who has been silent for long whether they are there, once per silence."""

    def changed(event: UserStateChangedEvent) -> None:
        if event.new_state == "away":
            session.say(ARE_YOU_THERE)

    session.on("user_state_changed", changed)


def make_server(role: Role) -> CoordinatedServer:
    """The server of one role's worker. Says at its start which providers are used."""
    server = CoordinatedServer(
        setup_fnc=prepare,
        preload_modules=["agents.providers", f"agents.{role}.agent"],
        admission=call_admission(load_settings()) if CoordinatorSettings().limits_file is not None else None,
    )

    def started(*_: Any) -> None:
        logger.info("%s worker: %s", role, describe(load_settings()))

    server.on("worker_started", started)
    return server


def call_admission(settings: ApplicationSettings) -> CallAdmission:
    """What becomes of calls above the lines of their tenant."""
    lines = settings.lines
    return CallAdmission(
        when_full=WhenFull(lines.when_full),
        voice=announcer,
        busy=lines.busy,
        place=lines.place,
        patience=lines.patience,
    )


def announcer() -> tts.TTS[Any]:
    """Who speaks to callers that no agent has taken yet: the reception, whichever role they called."""
    return voice_for(Role.RECEPTIONIST, load_settings())


def prepare(_: JobProcess) -> None:
    """Runs once in each job process, before it takes a call: what would delay a caller is done here."""
    settings = load_settings()
    if settings.key("deepgram") is None:
        domain_language()

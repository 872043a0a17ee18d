"""Which ears, mind and voice an agent gets: a real provider for each part whose key is set, an offline one otherwise.

Nothing of the caller's audio leaves the machine except to a provider whose key was set: the detection of speech, of
the end of a turn and of interruptions is local in any case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from livekit.agents import inference, llm, stt, tts, vad
from livekit.agents.voice.turn import TurnHandlingOptions

from agents.offline.llm import OfflineLLM
from agents.offline.stt import OfflineSTT
from agents.offline.tts import OfflineTTS, voice_of
from config import ApplicationSettings, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Providers:
    """What one agent's session works with."""

    stt: stt.STT[Any]
    llm: llm.LLM[Any]
    tts: tts.TTS[Any]
    vad: vad.VAD
    turn_handling: TurnHandlingOptions

    def session_options(self) -> dict[str, Any]:
        """As keyword arguments of an `AgentSession`."""
        return {
            "stt": self.stt,
            "llm": self.llm,
            "tts": self.tts,
            "vad": self.vad,
            "turn_handling": self.turn_handling,
        }

    async def aclose(self) -> None:
        """Ends what they run beside the session, and their connections."""
        await self.stt.aclose()
        await self.llm.aclose()
        await self.tts.aclose()


def providers_for(role: Role, settings: ApplicationSettings) -> Providers:
    """The providers of a role's agent. Opens no connection. Raises `ImportError` for a plugin that is not installed."""
    return Providers(
        stt=_ears(settings),
        llm=_mind(settings),
        tts=voice_for(role, settings),
        vad=inference.VAD(min_silence_duration=settings.turns.silence.total_seconds()),
        turn_handling=_turns(settings),
    )


def describe(settings: ApplicationSettings) -> str:
    """Which providers are used, in one line; without any key."""
    models = settings.models
    ears = f"Deepgram {models.deepgram}" if settings.key("deepgram") else "offline (pocketsphinx)"
    mind = f"OpenAI {models.openai}" if settings.key("openai") else "offline (rules)"
    voice = f"ElevenLabs {models.elevenlabs}" if settings.key("eleven") else "offline (espeak-ng)"
    return f"speech to text: {ears}, language model: {mind}, text to speech: {voice}"


def _ears(settings: ApplicationSettings) -> stt.STT[Any]:
    key = settings.key("deepgram")
    if key is None:
        return OfflineSTT()
    # Plugins are imported where they are used: offline they need not be installed.
    from livekit.plugins import deepgram

    return deepgram.STT(model=settings.models.deepgram, api_key=key)


def _mind(settings: ApplicationSettings) -> llm.LLM[Any]:
    key = settings.key("openai")
    if key is None:
        return OfflineLLM()
    from livekit.plugins import openai

    return openai.LLM(model=settings.models.openai, api_key=key)


def voice_for(role: Role, settings: ApplicationSettings) -> tts.TTS[Any]:
    """The voice of a role's agent."""
    key = settings.key("eleven")
    if key is None:
        return OfflineTTS(voice_of(role))
    from livekit.plugins import elevenlabs

    return elevenlabs.TTS(
        voice_id=settings.agents.of(role).elevenlabs_voice, model=settings.models.elevenlabs, api_key=key
    )


def _turns(settings: ApplicationSettings) -> TurnHandlingOptions:
    turns = settings.turns
    hears_words_as_they_come = settings.key("deepgram") is not None
    return TurnHandlingOptions(
        # "v1-mini" is the detector that runs here; the default would send the caller's audio to a service. It adds
        # nothing offline, where a transcript comes after the silence.
        turn_detection=inference.TurnDetector(version="v1-mini") if hears_words_as_they_come else "vad",
        endpointing={
            "min_delay": turns.end_of_turn.total_seconds(),
            "max_delay": turns.end_of_turn_at_most.total_seconds(),
        },
        interruption={"mode": "vad", "min_duration": turns.interruption.total_seconds()},
        preemptive_generation={"enabled": hears_words_as_they_come},
    )

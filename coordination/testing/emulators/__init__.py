"""Provider emulators: local servers that speak the wire protocols of Deepgram, OpenAI and ElevenLabs.

The real plugins run against them through their base URLs, without keys and without a network. They count and enforce
quotas by an algorithm of their own, so they are the judge of whether a limit was exceeded and of what was really used::

    async with OpenAIEmulator(quota=Quota(requests=60, tokens=10_000)) as provider:
        model = openai.LLM(base_url=provider.base_url, api_key="any")
        ...
        assert provider.judge.refused == 0
        assert provider.judge.total("tokens") == settled
"""

from coordination.testing.emulators.deepgram import DeepgramEmulator, Transcribe
from coordination.testing.emulators.elevenlabs import ElevenLabsEmulator
from coordination.testing.emulators.faults import Fault, FaultKind
from coordination.testing.emulators.judge import Judge, Quota, Refusal, Unit
from coordination.testing.emulators.openai import ChatReply, OpenAIEmulator, ScriptedCall
from coordination.testing.emulators.server import Emulator

__all__ = [
    "ChatReply",
    "DeepgramEmulator",
    "ElevenLabsEmulator",
    "Emulator",
    "Fault",
    "FaultKind",
    "Judge",
    "OpenAIEmulator",
    "Quota",
    "Refusal",
    "ScriptedCall",
    "Transcribe",
    "Unit",
]

"""Ears, mind and voice of both forms: choose your own."""

from __future__ import annotations

from typing import Any


def providers() -> dict[str, Any]:
    """As keyword arguments of a session."""
    from livekit.plugins import deepgram, elevenlabs, openai

    return {"stt": deepgram.STT(), "llm": openai.LLM(), "tts": elevenlabs.TTS()}

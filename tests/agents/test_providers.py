"""Real providers where a key is set, offline ones elsewhere; keys are never shown."""

from __future__ import annotations

import pytest
from livekit.plugins import deepgram, elevenlabs, openai

from agents.offline.llm import OfflineLLM
from agents.offline.stt import OfflineSTT
from agents.offline.tts import OfflineTTS
from agents.providers import Providers, describe, providers_for
from config import Role, load_settings


def chosen() -> Providers:
    return providers_for(Role.BILLING, load_settings())


def kinds(providers: Providers) -> tuple[type, type, type]:
    return type(providers.stt), type(providers.llm), type(providers.tts)


async def test_without_keys_everything_is_offline() -> None:
    providers = chosen()

    assert kinds(providers) == (OfflineSTT, OfflineLLM, OfflineTTS)
    assert providers.turn_handling.get("turn_detection") == "vad"
    assert providers.turn_handling.get("interruption", {}).get("mode") == "vad"


async def test_with_all_keys_the_real_plugins_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEEPGRAM_API_KEY", "OPENAI_API_KEY", "ELEVEN_API_KEY"):
        monkeypatch.setenv(name, "a-key")

    assert kinds(chosen()) == (deepgram.STT, openai.LLM, elevenlabs.TTS)


async def test_each_part_is_chosen_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")

    assert kinds(chosen()) == (OfflineSTT, openai.LLM, OfflineTTS)


async def test_an_empty_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", "")

    assert kinds(chosen())[0] is OfflineSTT


async def test_keys_are_left_alone_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEEPGRAM_API_KEY", "OPENAI_API_KEY", "ELEVEN_API_KEY"):
        monkeypatch.setenv(name, "a-key")
    monkeypatch.setenv("BATON_PROVIDERS", "offline")

    assert kinds(chosen()) == (OfflineSTT, OfflineLLM, OfflineTTS)


async def test_turns_are_detected_on_this_machine_with_real_providers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", "a-key")

    turns = chosen().turn_handling

    assert getattr(turns.get("turn_detection"), "model", "") == "turn-detector-v1-mini"
    assert turns.get("interruption", {}).get("mode") == "vad"


def test_the_description_names_what_is_used_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret")

    told = describe(load_settings())

    assert "OpenAI" in told
    assert "offline (pocketsphinx)" in told
    assert "very-secret" not in told
    assert "very-secret" not in repr(load_settings())

"""The worked example of docs/how-to/from-in-process-handoffs.md: one worker, then two, and the same conversation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from livekit.agents import JobContext, llm

from examples.handoffs import before, between, front_desk, providers, workshop
from tests.rooms.callers import calling
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.jobs import Job
from tests.rooms.providers import Reply, RuleLLM, ToneTTS, last_user_text
from tests.rooms.team import STANDBY

SCRIPT = (
    ("", "Hello, this is the bicycle shop."),
    ("my bicycle is broken", "Workshop here. What is wrong with your blue bicycle?"),
    ("thank you", "You are back at the front desk."),
)
Entrypoint = Callable[[JobContext], Awaitable[None]]
Workers = tuple[tuple[str, Entrypoint, dict[str, Any] | None], ...]

STEPS: dict[str, Workers] = {
    "before": (("shop", before.shop, None),),
    "between": (("shop", between.shop, None),),
    "after": (("front-desk", front_desk.front_desk, None), ("workshop", workshop.workshop, STANDBY)),
}


def rule(chat: llm.ChatContext) -> Reply:
    text = last_user_text(chat)
    if "broken" in text:
        return Reply(tool="to_workshop", arguments='{"bicycle": "blue"}')
    return Reply(tool="to_front_desk", arguments="{}") if "thank" in text else Reply(text="I did not get that.")


@pytest.mark.parametrize("step", STEPS)
async def test_the_caller_hears_the_same_sentences_after_each_step(
    make_room: RoomFactory, redis_url: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    said: list[str] = []

    class Voice(ToneTTS):
        def synthesize(self, text: str, **options: Any) -> Any:
            said.append(text)
            return super().synthesize(text, **options)

    def tones() -> dict[str, Any]:
        return {"llm": RuleLLM(rule), "tts": Voice(), "vad": None, "turn_detection": "manual"}

    monkeypatch.setenv("BATON_REDIS_URL", redis_url)
    monkeypatch.setattr(providers, "providers", tones)
    room = await make_room()
    async with calling(room) as caller:
        jobs: list[Job] = []
        for role, entrypoint, metadata in STEPS[step]:
            jobs.append(Job(room, role, metadata=metadata))
            jobs[-1].start(entrypoint)
            await jobs[-1].started()

        def seconds() -> list[float]:
            return [caller.ears.seconds(job.identity) for job in jobs]

        def quiet() -> bool:
            return not any(caller.ears.hears(job.identity, within=0.5) for job in jobs)

        script = ""
        for words, answer in SCRIPT:
            before_it = sum(seconds())
            if words:
                await caller.text(words)
            script = f"{script} {answer}".strip()
            await eventually(lambda expected=script: " ".join(said) == expected, f"{answer!r} is said", within=10)
            await eventually(lambda so_far=before_it: sum(seconds()) > so_far + 0.3, "it is heard", within=10)
            await eventually(quiet, "it is said to its end", within=10)
        heard = seconds()
        for job in jobs:
            await job.close()

    assert all(each > 0.5 for each in heard), f"each worker speaks in a voice of its own: {heard}"

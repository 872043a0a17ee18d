"""A worker whose tenants have one line each; `TEST_WHEN_FULL` says what becomes of a second call."""

from __future__ import annotations

import os
from pathlib import Path

from livekit.agents import APIConnectOptions, JobContext, cli, tts, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS

from coordination.limits.config import LimitsConfig
from coordination.livekit import CallAdmission, CoordinatedServer, CoordinatedSession, WhenFull
from tests.rooms.providers import WORDS, Reply, RuleLLM, ToneSTT, ToneTTS, ToneVAD, utterance
from tests.rooms.workers import WorkerAgent

ROLE = os.environ.get("TEST_ROLE", "receptionist")
BUSY, PLACE = "goodbye", "wait {place}"
LINES = LimitsConfig.parse({"calls": {"limit": 10}}, {"plans": {"one": {"calls": 1}}, "unknown": "one"})


class WordVoice(tts.TTS):
    """Says words as `tests.rooms.providers` spells them, numbers too: what was announced can be read from the audio."""

    def __init__(self) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=48000, num_channels=1)

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return _Words(tts=self, input_text=text, conn_options=conn_options)


class _Words(tts.ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        words = [WORDS[int(word)] if word.isdigit() else word for word in self.input_text.split()]
        output_emitter.initialize(
            request_id=utils.shortuuid(), sample_rate=48000, num_channels=1, mime_type="audio/pcm"
        )
        output_emitter.push(bytes(utterance(" ".join(words)).data))
        output_emitter.flush()


server = CoordinatedServer(
    host="127.0.0.1",
    port=0,
    num_idle_processes=1,
    admission=CallAdmission(
        limits=LINES,
        when_full=WhenFull(os.environ.get("TEST_WHEN_FULL", "reject")),
        voice=WordVoice,
        busy=BUSY,
        place=PLACE,
    ),
)


@server.rtc_session(agent_name=ROLE)
async def entrypoint(ctx: JobContext) -> None:
    served = Path(os.environ["TEST_FOLDER"]) / f"{ctx.room.name}.{ROLE}"
    served.write_text(f"{os.getpid()} {ctx.job.id} {os.environ['TEST_NAME']}")
    session = CoordinatedSession[None](
        ctx, stt=ToneSTT(), llm=RuleLLM(lambda _: Reply(text="yes")), tts=ToneTTS(), vad=ToneVAD()
    )
    await session.start(agent=WorkerAgent(), room=ctx.room)


if __name__ == "__main__":
    from tests.rooms.lines import server as worker

    cli.run_app(worker)

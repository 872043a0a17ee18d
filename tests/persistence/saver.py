"""A process that saves turns and says each when it is durable: `saver.py CONVERSATION COUNT KILL_AFTER [REDIS_URL]`.

After `KILL_AFTER` turns it kills itself with SIGKILL, on the instruction behind the save; 0 lets it run to its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from coordination.persistence import BackendClient, ConversationTurn, Speaker, Utterance


async def main(conversation: str, count: int, kill_after: int, redis_url: str | None) -> None:
    async with BackendClient.open(redis_url=redis_url) as backend:
        for number in range(count):
            text = f"{conversation}-{number}"
            turn = ConversationTurn(messages=(Utterance(speaker=Speaker.CALLER, text=text),))
            await backend.save_conversation_turn(conversation, turn, user_id="ann")
            os.write(1, f"{text}\n".encode())
            if number + 1 == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else None))

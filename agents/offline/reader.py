"""The recogniser in a process of its own, for one agent."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

from livekit.agents import APIConnectionError

from agents.offline.recogniser import Reading

_CHECKOUT = Path(__file__).parents[2]
_END_WITHIN = 2.0


class Reader:
    """Starts the recogniser's process with the first utterance, and again if it has died.

    The process ends with `close`, or when this one dies: its input ends then.
    """

    def __init__(self) -> None:
        # Requests and answers alternate on one pair of pipes. The lock is held by the thread that talks to the
        # process, so that a cancelled request is still answered before the next one is sent.
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    async def start(self) -> None:
        """Starts the process ahead of the first utterance."""
        await asyncio.to_thread(self._started)

    async def read(self, samples: bytes) -> Reading:
        """Reads one utterance (see `Recogniser.read`). Raises `APIConnectionError`, worth a retry, if the process
        dies over it."""
        return await asyncio.to_thread(self._ask, samples)

    def close(self) -> None:
        """Ends the process. An utterance that is being read is read to its end, a tenth of its duration at most."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
            if process is None:
                return
            process.communicate(timeout=_END_WITHIN)

    def _ask(self, samples: bytes) -> Reading:
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(struct.pack("<I", len(samples)) + samples)
                process.stdin.flush()
                answer = process.stdout.readline()
            except OSError:
                answer = b""
            if not answer:
                self._process = None
                process.kill()
                process.communicate()
                raise APIConnectionError(
                    f"the offline recogniser has ended (status {process.returncode}); it starts anew with the next try"
                )
        return Reading(**json.loads(answer))

    def _started(self) -> None:
        with self._lock:
            self._running()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise APIConnectionError("the offline recogniser is closed", retryable=False)
        if self._process is not None and self._process.poll() is not None:
            # It died between two utterances: its pipes are closed with it.
            self._process.communicate()
            self._process = None
        if self._process is None:
            path = os.pathsep.join(filter(None, [str(_CHECKOUT), os.environ.get("PYTHONPATH")]))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agents.offline.recogniser"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
        return self._process

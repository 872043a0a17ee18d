"""What a developer needs beside the library: a real Valkey, a real livekit-server, workers and a page to talk to them.

Everything here listens on 127.0.0.1 only, and no process outlives the one that started it.
"""

from __future__ import annotations

from coordination.dev.errors import ComponentFailed, ComponentMissing, DevError
from coordination.dev.livekit_server import ExternalLiveKit, LiveKitServer, livekit_from_environment
from coordination.dev.stack import DevStack
from coordination.dev.valkey import EmbeddedValkey
from coordination.dev.workers import WorkerProcess, WorkerSpec

__all__ = [
    "ComponentFailed",
    "ComponentMissing",
    "DevError",
    "DevStack",
    "EmbeddedValkey",
    "ExternalLiveKit",
    "LiveKitServer",
    "WorkerProcess",
    "WorkerSpec",
    "livekit_from_environment",
]

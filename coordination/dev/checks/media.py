"""LiveKit: a server that answers and takes the key, or a program that can be started here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping

from coordination.dev.checks.finding import Finding, fault, ok, warning
from coordination.dev.checks.state import check_metadata
from coordination.dev.errors import DevError
from coordination.dev.extras import installed
from coordination.dev.livekit_program import CONTAINER_PREFIX, VERSION, docker_answers, find_program, program_version
from coordination.dev.livekit_server import ExternalLiveKit, livekit_from_environment
from coordination.errors import CoordinationError


async def check_livekit(environment: Mapping[str, str] | None = None) -> list[Finding]:
    """Findings about the server that the environment names, else about what `baton dev` would start."""
    variables = os.environ if environment is None else environment
    try:
        server = livekit_from_environment(variables)
    except DevError as incomplete:
        return [fault("LiveKit", str(incomplete), "Set all of LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET.")]
    if server is None:
        return [_program(), *_containers()]
    if not installed("livekit.api"):
        return [warning("LiveKit", "livekit-api is not installed", "Install it: pip install 'livekit-baton[livekit]'")]
    backend = bool(variables.get("BATON_BACKEND_URL"))
    return [finding async for finding in _server(server, backend=backend)]


async def _server(server: ExternalLiveKit, *, backend: bool) -> AsyncIterator[Finding]:
    from coordination.dev.directory import list_rooms

    try:
        rooms = await list_rooms(server)
    except CoordinationError as failure:
        yield fault("LiveKit", str(failure), "Start the server, or correct LIVEKIT_URL and the key.")
        return
    yield ok("LiveKit", f"answers at {server.url} and takes the key; {len(rooms)} rooms are open")
    for room in rooms:
        for finding in check_metadata(room.name, room.metadata, backend=backend):
            yield finding


def _program() -> Finding:
    try:
        program = find_program()
    except DevError:
        return warning(
            "LiveKit",
            "LIVEKIT_URL is not set, and there is no livekit-server here",
            "Set LIVEKIT_URL, or install livekit-server, Go or Docker; `baton dev` uses what there is.",
        )
    version = program_version(program)
    text = f"livekit-server {version} from {program.source} is there for `baton dev`; LIVEKIT_URL is not set"
    if version != VERSION:
        return warning("LiveKit", text, f"Baton is tested with {VERSION}.")
    return ok("LiveKit", text)


def _containers() -> Iterator[Finding]:
    """Containers of a development stack that was killed: nobody else ends them."""
    docker = shutil.which("docker")
    if docker is None or not docker_answers():
        return
    command = [docker, "ps", "--filter", f"name=^{CONTAINER_PREFIX}", "--format", "{{.Names}}"]
    names = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.split()
    if names:
        yield warning(
            "containers",
            f"{', '.join(names)} may be left over from a stack that was killed",
            f"If no `baton dev` runs: docker rm --force {' '.join(names)}",
        )

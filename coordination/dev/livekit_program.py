"""Where a livekit-server program comes from.

In this order: the PATH, Baton's cache, a Go workspace, Docker if an engine answers, the release archive with its pinned
checksum, and at last `go install` of the same version (minutes, once; Go checks what it downloads against its checksum
database). The last two go into the cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from coordination.dev.errors import ComponentFailed, ComponentMissing
from coordination.dev.livekit_release import VERSION, DownloadFailed, download, release_for_this_machine

GO_PACKAGE = "github.com/livekit/livekit-server/cmd/server"
DOCKER_IMAGE = f"livekit/livekit-server:v{VERSION}"
CONTAINER_PREFIX = "baton-livekit-"
_ASK_TIMEOUT = 10.0
_ENGINE_TIMEOUT = 3.0
"""How long an engine may take to answer; one that hangs is as good as none."""

Progress = Callable[[str], None]
"""Receives a sentence whenever something that takes time begins or goes on."""


class Source(StrEnum):
    """How a program was found."""

    PATH = "PATH"
    CACHE = "cache"
    GO_WORKSPACE = "Go workspace"
    DOCKER = "Docker"
    RELEASE = "release archive"
    BUILT = "go install"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitProgram:
    """A livekit-server that can be run: a file, or an image when `source` is Docker."""

    source: Source
    executable: Path
    """livekit-server itself, or the docker client."""

    @property
    def published_ports(self) -> bool:
        """Whether the server runs in a network of its own, its ports published to 127.0.0.1 of this machine.

        Docker on Linux shares the host's network; elsewhere its engine runs in a virtual machine.
        """
        return self.source is Source.DOCKER and sys.platform != "linux"

    def command(self, config: Path, http: int, rtc_tcp: int, rtc_udp: int) -> list[str]:
        """The command line that serves with the configuration in the foreground."""
        if self.source is not Source.DOCKER:
            return [str(self.executable), "--config", str(config)]
        network = ["--network", "host"]
        if self.published_ports:
            ports = (f"{http}", f"{rtc_tcp}", f"{rtc_udp}/udp")
            network = [part for port in ports for part in ("-p", f"127.0.0.1:{port.split('/')[0]}:{port}")]
        mount = f"{config}:/etc/livekit.yaml:ro"
        options = ["--rm", "--name", f"{CONTAINER_PREFIX}{http}", *network, "-v", mount]
        return [str(self.executable), "run", *options, DOCKER_IMAGE, "--config", "/etc/livekit.yaml"]

    def removal(self, http: int) -> list[str] | None:
        """The command that removes the container of the server on that port, if there is one."""
        if self.source is not Source.DOCKER:
            return None
        return [str(self.executable), "rm", "--force", f"{CONTAINER_PREFIX}{http}"]


def find_program(*, docker: bool = True) -> LiveKitProgram:
    """A program that is there already; gets nothing new. Raises `ComponentMissing` when there is none."""
    if (found := _find(docker)) is not None:
        return found
    raise ComponentMissing("livekit-server", _remedy())


def provide_program(progress: Progress | None = None, *, docker: bool = True) -> LiveKitProgram:
    """A program that is there already, else one that is downloaded or built now, which is told to `progress`.

    Without `docker` only a file counts that can be run itself. Raises `ComponentMissing` when nothing can be done.
    """
    tell = progress or _ignore
    if (found := _find(docker)) is not None:
        return found
    if (downloaded := _download(tell)) is not None:
        return downloaded
    if go := shutil.which("go"):
        return _build(Path(go), tell)
    raise ComponentMissing("livekit-server", _remedy())


def cache_directory() -> Path:
    """Where Baton keeps programs that it built: XDG_CACHE_HOME, or the platform's place for caches."""
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured) / "baton"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "baton"
    return Path.home() / ".cache" / "baton"


def cached_program() -> Path:
    return cache_directory() / f"livekit-server-{VERSION}"


def docker_answers() -> bool:
    """Whether a Docker client is there and its engine answers."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        command = [docker, "info", "--format", "{{.ServerVersion}}"]
        return subprocess.run(command, capture_output=True, timeout=_ENGINE_TIMEOUT).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def program_version(program: LiveKitProgram) -> str | None:
    """What the program says it is, as "1.13.5"; None if it does not say."""
    if program.source is Source.DOCKER:
        return VERSION
    try:
        command = [str(program.executable), "--version"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_TIMEOUT).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = answer.split()
    return words[-1] if words else None


def _find(docker: bool) -> LiveKitProgram | None:
    if found := shutil.which("livekit-server"):
        return LiveKitProgram(source=Source.PATH, executable=Path(found))
    if os.access(cached := cached_program(), os.X_OK):
        return LiveKitProgram(source=Source.CACHE, executable=cached)
    if (built := _in_go_workspace()) is not None:
        return LiveKitProgram(source=Source.GO_WORKSPACE, executable=built)
    if docker and docker_answers() and (client := shutil.which("docker")):
        return LiveKitProgram(source=Source.DOCKER, executable=Path(client))
    return None


def _in_go_workspace() -> Path | None:
    """What `go install` left there, under the name `server`: the file tells what it is without being run."""
    go = shutil.which("go")
    if go is None:
        return None
    places = [Path(answer) for answer in _ask(go, "env", "GOBIN").split(os.pathsep) if answer]
    places += [Path(answer) / "bin" for answer in _ask(go, "env", "GOPATH").split(os.pathsep) if answer]
    for candidate in (place / name for place in places for name in ("livekit-server", "server")):
        if os.access(candidate, os.X_OK) and _is_livekit(_ask(go, "version", "-m", str(candidate))):
            return candidate
    return None


def _is_livekit(build_information: str) -> bool:
    lines = [line.split() for line in build_information.splitlines()]
    return any(line[:2] == ["path", GO_PACKAGE] for line in lines)


def _ask(go: str, *arguments: str) -> str:
    try:
        answer = subprocess.run([go, *arguments], capture_output=True, text=True, timeout=_ASK_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _download(progress: Progress) -> LiveKitProgram | None:
    release = release_for_this_machine()
    if release is None:
        return None
    target = cached_program()
    try:
        download(release, target, progress)
    except DownloadFailed as failed:
        progress(str(failed))
        return None
    progress(f"livekit-server {VERSION} is ready: {target}")
    return LiveKitProgram(source=Source.RELEASE, executable=target)


def _build(go: Path, progress: Progress) -> LiveKitProgram:
    """Builds into a directory of its own and moves the result, so that an interrupted build leaves no half program."""
    target = cached_program()
    target.parent.mkdir(parents=True, exist_ok=True)
    progress(f"Building livekit-server {VERSION} with Go. This happens once and takes two to five minutes.")
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as directory:
        _install(go, Path(directory), progress)
        (Path(directory) / "server").replace(target)
    progress(f"livekit-server {VERSION} is ready: {target}")
    return LiveKitProgram(source=Source.BUILT, executable=target)


def _install(go: Path, directory: Path, progress: Progress) -> None:
    command = [str(go), "install", "-v", f"{GO_PACKAGE}@v{VERSION}"]
    environment = {**os.environ, "GOBIN": str(directory)}
    last: list[str] = []
    packages = 0
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as build:
        try:
            for line in build.stdout or ():
                last = [*last[-19:], line.rstrip()]
                packages += 1
                if packages % 50 == 0:
                    progress(f"Building livekit-server {VERSION}: {packages} steps done, now {line.strip()}")
        except BaseException:
            build.terminate()
            raise
    if build.returncode != 0:
        raise ComponentFailed(
            "go install", f"of livekit-server {VERSION} ended with status {build.returncode}", log="\n".join(last)
        )


def _remedy() -> str:
    lines = [
        "Do one of these:",
        f"  - install livekit-server and put it on the PATH ({_package_hint()})",
        "  - install Go (https://go.dev/dl); it is then built here, once, in a few minutes",
        "  - start Docker; the image is then run",
        "  - set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET to a server that runs already",
    ]
    if shutil.which("docker") and not docker_answers():
        lines.append("A Docker client is installed, but its engine does not answer: is it running?")
    return "\n".join(lines)


def _package_hint() -> str:
    if sys.platform == "darwin":
        return "brew install livekit"
    return "https://docs.livekit.io/home/self-hosting/local has the installer"


def _ignore(_: str) -> None:
    return

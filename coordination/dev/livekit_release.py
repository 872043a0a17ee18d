"""The release archives of livekit-server: which there are, and how one gets into the cache.

A download is used only if its SHA-256 is the pinned one; anything else is thrown away before it is unpacked. Platforms
without a pin here have no download: LiveKit publishes no archive for macOS, and the other ones are untried.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from coordination.dev.errors import DevError

VERSION = "1.13.5"
"""The release that Baton is tested with; also the one that is built with Go or run in Docker."""
_BASE = f"https://github.com/livekit/livekit/releases/download/v{VERSION}"
_MEMBER = "livekit-server"
_TIMEOUT = 30.0
_BLOCK = 256 * 1024
_LARGEST = 200 * 1024 * 1024
"""Of a program in an archive; the real one has about 50 MB."""


class DownloadFailed(DevError):
    """An archive could not be had, or is not the one that was published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One archive: where it is and what its bytes must hash to."""

    url: str
    sha256: str


# As in the release's checksums.txt.
RELEASES: Mapping[tuple[str, str], Release] = {
    ("linux", "x86_64"): Release(
        url=f"{_BASE}/livekit_{VERSION}_linux_amd64.tar.gz",
        sha256="c020fac437b7cc9b776eef1ad5ea8af77be9acfa07602eca20a3a44930dfbc70",
    ),
    ("linux", "aarch64"): Release(
        url=f"{_BASE}/livekit_{VERSION}_linux_arm64.tar.gz",
        sha256="332015305518765fe05bad74fc3a9d9583e635e7dd130de3c4fc563d69c550f3",
    ),
}


def release_for_this_machine() -> Release | None:
    """The archive for this platform, or None if none is pinned."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return RELEASES.get((sys.platform, machine))


def download(release: Release, target: Path, progress: Callable[[str], None]) -> None:
    """Puts the program of the archive at `target`, executable, whole or not at all.

    Raises `DownloadFailed` when the archive cannot be read or its checksum is another than the pinned one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    progress(f"Downloading {release.url}")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as directory:
        archive, program = Path(directory) / "archive.tar.gz", Path(directory) / _MEMBER
        found = _fetch(release.url, archive, progress)
        if found != release.sha256:
            raise DownloadFailed(
                f"{release.url} has the SHA-256 {found}, but {release.sha256} was published: it is not used. "
                "Something between here and there changes files; install livekit-server in another way."
            )
        _unpack(archive, program)
        program.chmod(0o755)
        program.replace(target)


def _fetch(url: str, file: Path, progress: Callable[[str], None]) -> str:
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, file.open("wb") as output:
            size, done, told = int(answer.headers.get("Content-Length") or 0), 0, 0
            while block := answer.read(_BLOCK):
                digest.update(block)
                output.write(block)
                done += len(block)
                if size and done * 4 // size > told:
                    told = done * 4 // size
                    progress(f"Downloading livekit-server: {done * 100 // size} % of {size // 2**20} MB")
    except (OSError, urllib.error.URLError) as error:
        raise DownloadFailed(f"{url} could not be downloaded: {error}.") from error
    return digest.hexdigest()


def _unpack(archive: Path, program: Path) -> None:
    try:
        with tarfile.open(archive, "r:gz") as content:
            member = next((each for each in content if each.isfile() and Path(each.name).name == _MEMBER), None)
            source = content.extractfile(member) if member is not None else None
            if member is None or source is None or member.size > _LARGEST:
                raise DownloadFailed(f"The archive of livekit-server holds no {_MEMBER}: it is not used.")
            _copy(source, program)
    except tarfile.TarError as error:
        raise DownloadFailed(f"The archive of livekit-server cannot be unpacked: {error}.") from error


def _copy(source: IO[bytes], program: Path) -> None:
    with source, program.open("wb") as output:
        while block := source.read(_BLOCK):
            output.write(block)

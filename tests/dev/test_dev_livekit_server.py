"""Where a livekit-server comes from, in which order, and that the one that is started listens on loopback only."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from coordination.dev import ComponentMissing, DevError, LiveKitServer, livekit_from_environment
from coordination.dev import __main__ as command
from coordination.dev import livekit_program as programs
from coordination.dev.livekit_program import LiveKitProgram, Source, find_program, provide_program
from coordination.dev.livekit_release import DownloadFailed, Release, download, release_for_this_machine
from tests.dev.conftest import is_alive

PROGRAM = b"#!/bin/sh\necho livekit-server version 0.0.0\n"
LIVEKIT_BUILD = f"path {programs.GO_PACKAGE}"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; no release can be downloaded unless the test says so."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(programs, "release_for_this_machine", lambda: None)
    return tmp_path / "cache" / "baton"


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Callable[[bytes], Release]]:
    """Factory of releases: an archive with these bytes as its program, on a web server of this test."""
    folder = tmp_path / "releases"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="releases")
        thread.start()

        def archive(content: bytes, name: str = "livekit-server") -> Release:
            file = folder / "archive.tar.gz"
            with tarfile.open(file, "w:gz") as tar:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            url = f"http://127.0.0.1:{server.server_address[1]}/archive.tar.gz"
            return Release(url=url, sha256=hashlib.sha256(file.read_bytes()).hexdigest())

        yield archive
        server.shutdown()
        thread.join()


async def answer_of(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


async def test_it_serves_on_loopback_only_and_comes_back_at_the_same_address() -> None:
    async with LiveKitServer() as server:
        pid = server.pid
        assert pid is not None
        assert await answer_of(server.http_url) == "OK"
        configuration = server.configuration()
        assert configuration["bind_addresses"] == ["127.0.0.1"]
        assert configuration["rtc"]["ips"] == {"includes": ["127.0.0.1/32"]}

        server.kill()
        await server.start()

        assert await answer_of(server.http_url) == "OK"
        second = server.pid

    assert second is not None
    assert second != pid
    assert not is_alive(second)


def test_the_path_comes_first_then_the_cache_then_the_go_workspace(
    on_path: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "go" / "bin"
    workspace.mkdir(parents=True)
    built = workspace / "server"
    built.write_bytes(PROGRAM)
    built.chmod(0o755)
    on_path("go", f'case "$1 $2" in "env GOPATH") echo {tmp_path}/go;; "version -m") echo "{LIVEKIT_BUILD}";; esac')
    assert find_program() == LiveKitProgram(source=Source.GO_WORKSPACE, executable=built)

    cache.mkdir(parents=True)
    programs.cached_program().write_bytes(PROGRAM)
    programs.cached_program().chmod(0o755)
    assert find_program().source is Source.CACHE

    program = on_path("livekit-server")
    assert find_program() == LiveKitProgram(source=Source.PATH, executable=program)


def test_another_program_called_server_in_the_go_workspace_is_not_taken_for_it(
    on_path: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "go" / "bin"
    workspace.mkdir(parents=True)
    (workspace / "server").write_bytes(b"#!/bin/sh\ntouch was-run\n")
    (workspace / "server").chmod(0o755)
    on_path("go", f'case "$1 $2" in "env GOPATH") echo {tmp_path}/go;; "version -m") echo "path example.org/x";; esac')

    with pytest.raises(ComponentMissing):
        find_program()


def test_docker_is_used_only_if_its_engine_answers(on_path: Callable[..., Path], cache: Path) -> None:
    docker = on_path("docker", "exit 1")
    with pytest.raises(ComponentMissing, match="engine does not answer"):
        find_program()

    on_path("docker", "exit 0")
    program = find_program()

    assert program == LiveKitProgram(source=Source.DOCKER, executable=docker)
    line = program.command(Path("/c.yaml"), 1, 2, 3)
    assert line[:3] == [str(docker), "run", "--rm"]
    assert program.removal(1) == [str(docker), "rm", "--force", "baton-livekit-1"]
    with pytest.raises(ComponentMissing):
        find_program(docker=False)


def test_with_nothing_at_hand_the_error_names_each_way_out(on_path: Callable[..., Path], cache: Path) -> None:
    with pytest.raises(ComponentMissing) as missing:
        provide_program()

    for word in ("livekit-server", "Go", "Docker", "LIVEKIT_URL"):
        assert word in str(missing.value)


def test_a_release_with_the_pinned_checksum_gets_into_the_cache(
    on_path: Callable[..., Path], cache: Path, publish: Callable[[bytes], Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = publish(PROGRAM)
    monkeypatch.setattr(programs, "release_for_this_machine", lambda: release)
    told: list[str] = []

    program = provide_program(told.append)

    assert program.source is Source.RELEASE
    assert program.executable.read_bytes() == PROGRAM
    assert [file.name for file in cache.iterdir()] == [program.executable.name]
    assert release.url in told[0]
    assert find_program().source is Source.CACHE


def test_a_release_with_another_checksum_is_thrown_away(cache: Path, publish: Callable[[bytes], Release]) -> None:
    forged = Release(url=publish(PROGRAM).url, sha256="0" * 64)

    with pytest.raises(DownloadFailed, match="it is not used"):
        download(forged, programs.cached_program(), lambda _: None)

    assert list(cache.iterdir()) == []


def test_a_release_without_the_program_is_refused(cache: Path, publish: Callable[..., Release]) -> None:
    with pytest.raises(DownloadFailed, match="holds no livekit-server"):
        download(publish(PROGRAM, "README"), programs.cached_program(), lambda _: None)


def test_a_release_that_cannot_be_downloaded_falls_back_to_go(
    on_path: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Release(url="http://127.0.0.1:9/archive.tar.gz", sha256="0" * 64)
    monkeypatch.setattr(programs, "release_for_this_machine", lambda: gone)
    on_path("go", 'if [ "$1" = install ]; then echo "compiling"; printf x > "$GOBIN/server"; fi')
    told: list[str] = []

    program = provide_program(told.append)

    assert program.source is Source.BUILT
    assert program.executable.read_bytes() == b"x"
    assert any("could not be downloaded" in sentence for sentence in told)


def test_a_build_that_fails_tells_the_last_words_of_go(on_path: Callable[..., Path], cache: Path) -> None:
    on_path("go", 'if [ "$1" = install ]; then echo "no space left"; exit 1; fi')

    with pytest.raises(DevError, match=r"(?s)status 1.*no space left"):
        provide_program()

    assert not programs.cached_program().exists()


def test_a_release_is_pinned_for_linux_on_both_common_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for machine in ("x86_64", "aarch64"):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        release = release_for_this_machine()
        assert release is not None
        assert len(release.sha256) == 64
    monkeypatch.setattr("sys.platform", "darwin")
    assert release_for_this_machine() is None


def test_a_server_that_is_named_without_its_key_is_refused_by_name() -> None:
    assert livekit_from_environment({}) is None
    with pytest.raises(DevError, match="LIVEKIT_API_KEY and LIVEKIT_API_SECRET"):
        livekit_from_environment({"LIVEKIT_URL": "ws://example.org"})


def test_the_command_prints_the_path_and_fails_with_what_to_install(
    on_path: Callable[..., Path], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["livekit-server"]) == 1
    assert "install" in capsys.readouterr().err

    program = on_path("livekit-server")
    assert command.main(["livekit-server", "--program-only"]) == 0
    assert capsys.readouterr().out == f"{program}\n"

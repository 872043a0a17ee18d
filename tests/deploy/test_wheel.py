"""The wheel alone, in an environment without this checkout, is what the README says it is."""

from __future__ import annotations

import runpy
import textwrap
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordination.dev.valkey import EmbeddedValkey
from tests.deploy.wheels import ROOT, environment, examples, run


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel, without any extra, and what it depends on."""
    return environment(tmp_path_factory.mktemp("environment"), str(wheel))


@pytest.fixture
async def redis_url() -> AsyncIterator[str]:
    async with EmbeddedValkey() as server:
        yield server.url


def test_it_holds_the_library_its_scripts_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"coordination"}
    assert "coordination/py.typed" in names
    scripts = {path.relative_to(ROOT).as_posix() for path in (ROOT / "coordination/store/lua").rglob("*.lua")}
    assert scripts
    assert scripts <= set(names)
    assert {name.rsplit("/", 1)[1] for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_the_example_of_the_readme_runs_without_any_extra(python: Path, redis_url: str, tmp_path: Path) -> None:
    (example,) = [code for code in examples("README.md") if "Coordinator.open" in code]
    body = textwrap.indent(example.replace("redis://localhost", redis_url), "    ")
    (tmp_path / "example.py").write_text(
        f"async def main():\n{body}\nimport asyncio\nasyncio.run(main())\nprint('ran')\n"
    )

    ran = run(python, "-W", "error", "example.py", cwd=tmp_path)

    assert (ran.returncode, ran.stdout) == (0, "ran\n"), ran.stderr


ALL_OF_IT = """
lease = await coordinator.acquire_lock("invoice:43")
assert await lease.release()
await coordinator.share_context("call-7", {"intent": "refund"})
snapshot = await coordinator.read_context("call-7")
assert (snapshot.data, snapshot.version > 0) == ({"intent": "refund"}, True)
user = coordinator.context("user:42", ttl=timedelta(days=1))
await user.update({"language": "de"})
room = coordinator.room("call-7", tenant="acme")
async with room.floor.hold(agent="billing-1", priority=0, timeout=timedelta(seconds=2)) as lease:
    await room.context.update({"invoice": 42}, lease=lease)
    assert (await room.floor.state()).holder == "billing-1"
try:
    await room.context.update({"invoice": 43}, lease=lease)
except StaleFence:
    pass
else:
    raise SystemExit("a write under an old fence was taken")
"""


def test_everything_that_needs_no_livekit_works_without_any_extra(python: Path, redis_url: str, tmp_path: Path) -> None:
    """The rest of the names that a program without LiveKit is promised."""
    (tmp_path / "example.py").write_text(
        "import asyncio\nfrom datetime import timedelta\nfrom coordination import Coordinator, StaleFence\n"
        f"async def main():\n    async with Coordinator.open({redis_url!r}) as coordinator:\n"
        f"{textwrap.indent(ALL_OF_IT, ' ' * 8)}\nasyncio.run(main())\nprint('ran')\n"
    )

    ran = run(python, "-W", "error", "example.py", cwd=tmp_path)

    assert (ran.returncode, ran.stdout) == (0, "ran\n"), ran.stderr


def test_the_command_line_works_without_any_extra(python: Path, tmp_path: Path) -> None:
    ran = run(python.parent / "baton", "--help", cwd=tmp_path)

    assert ran.returncode == 0, ran.stderr
    assert "doctor" in ran.stdout


def test_livekit_is_asked_for_by_name_when_it_is_missing(python: Path, tmp_path: Path) -> None:
    """The package can be imported, so that tools can look at it; using it says what to install."""
    ran = run(python, "-c", "import coordination.livekit as l; l.CoordinatedSession", cwd=tmp_path)

    assert ran.returncode != 0
    assert "livekit-baton[livekit]" in ran.stderr


@pytest.mark.parametrize(("document", "count"), [("README.md", 1), ("docs/tutorial.md", 2)])
def test_the_agents_of_the_documentation_are_workers(document: str, count: int, tmp_path: Path) -> None:
    """They can be loaded, and have a server that LiveKit's command line finds; talking to them takes keys."""
    agents = [code for code in examples(document) if "CoordinatedServer()" in code]
    assert len(agents) == count
    for number, code in enumerate(agents):
        file = tmp_path / f"agent{number}.py"
        file.write_text(code)

        loaded = runpy.run_path(str(file))

        assert type(loaded["server"]).__name__ == "CoordinatedServer"

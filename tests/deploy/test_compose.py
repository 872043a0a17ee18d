"""The compose file is valid, needs nothing beside it, and what it gives to the servers is what they accept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from redis.asyncio import Redis

from config import Role
from coordination.dev.livekit_program import DOCKER_IMAGE, provide_program
from coordination.dev.ports import free_tcp_ports, free_udp_port
from coordination.dev.valkey import EmbeddedValkey

ROLES = [role.value for role in Role]


def _seconds(duration: str) -> int:
    minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration).groups()  # type: ignore[union-attr]
    return int(minutes or 0) * 60 + int(seconds or 0)


def test_the_file_passes_the_schema_of_compose(root: Path) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    result = subprocess.run(check, cwd=root, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout


def test_every_role_runs_and_has_longer_to_end_than_the_worker_needs(compose: dict[str, Any], ending: float) -> None:
    for role in ROLES:
        service = compose["services"][role]

        assert service["command"] == ["start", role]
        assert _seconds(service["stop_grace_period"]) > ending


def test_it_needs_no_env_file(root: Path) -> None:
    text = (root / "docker-compose.yml").read_text()

    assert "env_file" not in text
    for reference in re.findall(r"\$\{[^}]*\}", text):
        assert ":-" in reference, f"{reference} has no default"


def test_workers_have_the_key_that_the_server_knows(compose: dict[str, Any], root: Path) -> None:
    keys = yaml.safe_load((root / "deploy/livekit/livekit.yaml").read_text())["keys"]
    for role in ROLES:
        environment = compose["services"][role]["environment"]
        key, secret = (re.sub(r"\$\{\w+:-(.*)\}", r"\1", environment[f"LIVEKIT_API_{it}"]) for it in ("KEY", "SECRET"))

        assert keys == {key: secret}
        assert len(secret) >= 32


def test_every_port_is_published_to_this_machine_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_published_media_ports_are_those_of_the_server(compose: dict[str, Any], root: Path) -> None:
    config = yaml.safe_load((root / "deploy/livekit/livekit.yaml").read_text())
    wanted = {f"{config['port']}", f"{config['rtc']['tcp_port']}", f"{config['rtc']['udp_port']}/udp"}

    assert {port.rsplit(":", 1)[1] for port in compose["services"]["livekit"]["ports"]} == wanted


def test_files_that_are_mounted_exist(compose: dict[str, Any], root: Path) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (root / source).is_file()


async def test_valkey_starts_with_these_arguments_and_never_evicts(compose: dict[str, Any]) -> None:
    program, *arguments = compose["services"]["valkey"]["command"]
    assert program == "valkey-server"

    async with EmbeddedValkey(arguments=arguments) as server, Redis.from_url(server.url) as client:
        policy = await client.config_get("maxmemory-policy")

    assert policy == {"maxmemory-policy": "noeviction"}


def test_kubernetes_starts_valkey_with_the_same_arguments(compose: dict[str, Any], root: Path) -> None:
    documents = yaml.safe_load_all((root / "deploy/k8s/single-valkey/valkey.yaml").read_text())
    (container,) = next(documents)["spec"]["template"]["spec"]["containers"]

    assert container["args"] == compose["services"]["valkey"]["command"]
    assert container["image"] == compose["services"]["valkey"]["image"]


def test_the_server_has_the_version_that_is_tested(compose: dict[str, Any]) -> None:
    assert compose["services"]["livekit"]["image"] == DOCKER_IMAGE


def test_livekit_server_starts_with_its_configuration(root: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((root / "deploy/livekit/livekit.yaml").read_text())
    config["port"], tcp_port = free_tcp_ports(2)
    config["rtc"] |= {"tcp_port": tcp_port, "udp_port": free_udp_port()}
    config["bind_addresses"] = ["127.0.0.1"]
    file = tmp_path / "livekit.yaml"
    file.write_text(json.dumps(config))
    command = [str(provide_program(docker=False).executable), "--config", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            answered = _answers(f"http://127.0.0.1:{config['port']}/", server)
        finally:
            server.kill()
            _, log = server.communicate()

    assert answered, log


def _answers(url: str, server: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                return response.status == 200
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    return False

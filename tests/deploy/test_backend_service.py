"""The backend starts as the manifests and the compose file ask for it, and is asked for its health where it answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.app import create_app
from backend.settings import BackendSettings
from backend.tokens import admit_token
from tests.deploy.conftest import render


@pytest.fixture
def container(root: Path) -> dict[str, Any]:
    documents = render(root / "deploy/k8s/backend")
    (deployment,) = [document for document in documents if document["kind"] == "Deployment"]
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return only


async def test_the_probes_ask_what_the_service_answers(container: dict[str, Any], tmp_path: Path) -> None:
    app = create_app(BackendSettings(database_url=f"{tmp_path}/x.db"))
    paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://backend") as client:
        answers = [await client.get(path) for path in sorted(paths)]
    await app.state.parts.database.close()

    assert container["livenessProbe"]["httpGet"]["path"] != container["readinessProbe"]["httpGet"]["path"]
    assert [answer.status_code for answer in answers] == [200, 200]


def test_kubernetes_and_compose_start_the_same_command(container: dict[str, Any], compose: dict[str, Any]) -> None:
    service = compose["services"]["backend"]

    assert container["command"] == service["entrypoint"] == ["python", "-m", "backend"]
    assert container["args"] == service["command"]
    assert f'"127.0.0.1:{container["ports"][0]["containerPort"]}' in f'"{service["ports"][0]}'


async def test_the_token_of_the_compose_file_is_one(compose: dict[str, Any], tmp_path: Path) -> None:
    from backend.database import Database
    from backend.migrations import upgrade

    given = compose["services"]["backend"]["environment"]["BACKEND_BOOTSTRAP_TOKEN"]
    database = Database(BackendSettings(database_url=f"{tmp_path}/x.db"))
    await upgrade(database)
    await admit_token(database, re.sub(r"\$\{\w+:-(.*)\}", r"\1", given))
    await database.close()

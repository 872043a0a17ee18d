"""What the deployment tests share: the manifests as `kubectl kustomize` would render them, and the container files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.wheels import ROOT, build

_CLUSTER_WIDE = {"Namespace"}


def _labelled(document: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    metadata = document["metadata"]
    metadata["labels"] = {**metadata.get("labels", {}), **labels}
    return document


def _with_image(document: dict[str, Any], image: dict[str, str]) -> dict[str, Any]:
    pod = document.get("spec", {}).get("template", {}).get("spec", {})
    for container in pod.get("containers", []):
        if container["image"] == image["name"]:
            container["image"] = f"{image['newName']}:{image['newTag']}"
    return document


def render(folder: Path) -> list[dict[str, Any]]:
    """Renders the few features of Kustomize that our kustomizations use; refuses any other."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    known = {"apiVersion", "kind", "namespace", "labels", "resources", "images"}
    assert set(kustomization) <= known, f"{folder.name}: render() does not know {set(kustomization) - known}"
    documents: list[dict[str, Any]] = []
    for resource in kustomization["resources"]:
        path = folder / resource
        documents += render(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for document in documents:
        for labels in kustomization.get("labels", []):
            _labelled(document, labels["pairs"])
        for image in kustomization.get("images", []):
            _with_image(document, image)
        if document["kind"] not in _CLUSTER_WIDE:
            document["metadata"]["namespace"] = kustomization["namespace"]
    return documents


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture(params=["base", "single-valkey", "backend"])
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return render(ROOT / "deploy/k8s" / request.param)


@pytest.fixture
def deployments() -> dict[str, dict[str, Any]]:
    documents = render(ROOT / "deploy/k8s/base")
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == "Deployment"}


@pytest.fixture
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture
def dockerfile() -> list[str]:
    """The instructions of the Dockerfile, comments gone and continued lines joined."""
    lines = (line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#"))
    joined = "\n".join(lines).replace("\\\n", " ")
    return [" ".join(line.split()) for line in joined.splitlines() if line.strip()]


@pytest.fixture
def ending() -> float:
    """What a worker may take to end, in seconds: its calls, the ends of sessions, the ends of processes."""
    from coordination.livekit import CoordinatedServer

    server = CoordinatedServer()
    return server._drain_timeout + server._session_end_timeout + server._shutdown_process_timeout

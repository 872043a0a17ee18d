"""The manifests are valid, agree with each other and with the image, and keep calls alive through a rollout."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate

from config import Role

ROLES = [role.value for role in Role]


def _pod(deployment: dict[str, Any]) -> dict[str, Any]:
    return deployment["spec"]["template"]["spec"]


def _worker(deployment: dict[str, Any]) -> dict[str, Any]:
    (container,) = _pod(deployment)["containers"]
    return container


def test_every_manifest_passes_the_strict_schema_of_kubernetes(manifests: list[dict[str, Any]]) -> None:
    version = kubernetes_validate.latest_version()

    for document in manifests:
        kubernetes_validate.validate(document, version, strict=True)


def test_no_two_manifests_have_the_same_name(manifests: list[dict[str, Any]]) -> None:
    names = [(d["kind"], d["metadata"]["name"]) for d in manifests]

    assert len(names) == len(set(names))


def test_every_role_has_a_deployment_and_they_differ_in_the_role_only(deployments: dict[str, dict[str, Any]]) -> None:
    def anonymous(role: str) -> str:
        return repr(copy.deepcopy(deployments[role])).replace(role, "ROLE")

    assert list(deployments) == ROLES
    assert len({anonymous(role) for role in ROLES}) == 1
    for role in ROLES:
        assert _worker(deployments[role])["args"] == ["start", role]


def test_a_pod_has_longer_to_end_than_the_worker_needs(deployments: dict[str, dict[str, Any]], ending: float) -> None:
    for deployment in deployments.values():
        assert _pod(deployment)["terminationGracePeriodSeconds"] > ending


def test_liveness_asks_the_worker_alone_and_readiness_asks_for_more(deployments: dict[str, dict[str, Any]]) -> None:
    for deployment in deployments.values():
        worker = _worker(deployment)
        liveness, readiness = worker["livenessProbe"]["httpGet"], worker["readinessProbe"]["httpGet"]

        assert liveness == {"path": "/", "port": "health"}
        assert worker["startupProbe"]["httpGet"] == liveness
        assert readiness["port"] != liveness["port"]
        assert {readiness["port"], liveness["port"]} <= {port["name"] for port in worker["ports"]}


def test_pods_run_without_root_rights_and_write_to_tmp_only(
    deployments: dict[str, dict[str, Any]], dockerfile: list[str]
) -> None:
    user = next(line.split()[1] for line in reversed(dockerfile) if line.startswith("USER "))
    for deployment in deployments.values():
        pod, worker = _pod(deployment), _worker(deployment)
        security = pod["securityContext"]

        assert security["runAsNonRoot"] is True
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert worker["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert [mount["mountPath"] for mount in worker["volumeMounts"]] == ["/tmp"]
        assert pod["automountServiceAccountToken"] is False


def test_memory_is_limited_and_cpu_is_not(deployments: dict[str, dict[str, Any]]) -> None:
    for deployment in deployments.values():
        resources = _worker(deployment)["resources"]

        assert set(resources["requests"]) == {"cpu", "memory"}
        assert set(resources["limits"]) == {"memory"}


def test_what_a_pod_refers_to_is_in_the_base(manifests: list[dict[str, Any]]) -> None:
    there = {(d["kind"], d["metadata"]["name"]) for d in manifests}

    for document in (d for d in manifests if d["kind"] == "Deployment"):
        assert ("ServiceAccount", _pod(document)["serviceAccountName"]) in there
        for source in _worker(document)["envFrom"]:
            kind = "ConfigMap" if "configMapRef" in source else "Secret"
            assert (kind, next(iter(source.values()))["name"]) in there


def test_a_rollout_starts_a_pod_before_it_ends_one(deployments: dict[str, dict[str, Any]]) -> None:
    for deployment in deployments.values():
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_image_has_the_version_of_the_project(deployments: dict[str, dict[str, Any]], root: Path) -> None:
    project = (root / "pyproject.toml").read_text()
    for deployment in deployments.values():
        name, _, tag = _worker(deployment)["image"].partition(":")

        assert name == "baton"
        assert f'version = "{tag}"' in project

"""`python -m backend`: the service as a process of its own, its tokens, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx

from coordination.dev.backend import BackendServer
from coordination.dev.process import eventually_now
from tests.backend.rig import key

ROOT = Path(__file__).parents[2]


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backend", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_tokens_are_made_listed_and_revoked(tmp_path: Path) -> None:
    url = {"BACKEND_DATABASE_URL": f"{tmp_path}/backend.db"}
    made = _run("token", "create", "acme", "--label", "ci", **url)
    token_id = made.stdout.split("_")[1]
    listed = _run("token", "list", **url)
    revoked = _run("token", "revoke", token_id, **url)
    unknown = _run("token", "revoke", "0" * 16, **url)

    assert made.returncode == 0, made.stderr
    assert listed.stdout.split() == [token_id, "acme", "ci", "valid"]
    assert (revoked.returncode, unknown.returncode) == (0, 4)
    assert _run("token", "list", **url).stdout.split()[-1] == "revoked"


def test_a_wrong_configuration_and_a_database_that_is_away_are_told_in_a_sentence() -> None:
    wrong = _run("migrate", BACKEND_DATABASE_URL="mysql://host/name")
    away = _run("migrate", BACKEND_DATABASE_URL="postgresql://u:p@127.0.0.1:1/name")

    assert (wrong.returncode, away.returncode) == (2, 3)
    assert "sqlite and postgresql" in wrong.stderr
    assert "BACKEND_DATABASE_URL" in away.stderr
    assert "Traceback" not in wrong.stderr + away.stderr


def test_what_was_answered_survives_a_kill_and_sigterm_ends_the_service(tmp_path: Path) -> None:
    with BackendServer(tenant="acme", database_url=f"sqlite:///{tmp_path}/backend.db") as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        url = f"{server.url}/v1/conversations/c1/messages"
        body = {"speaker": "caller", "text": "hello"}
        saved = httpx.post(url, json=body, headers=headers | key("k1"))
        server.kill()
        server.start_now()
        again = httpx.post(url, json=body, headers=headers | key("k1"))
        found = httpx.get(url, headers=headers).json()["items"]
        os.kill(server.pid or 0, signal.SIGTERM)
        ended = eventually_now(lambda: not server.running, timedelta(seconds=20))

    assert (saved.status_code, again.headers.get("idempotent-replayed")) == (201, "true")
    assert [message["text"] for message in found] == ["hello"]
    assert ended

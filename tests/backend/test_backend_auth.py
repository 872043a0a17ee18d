"""Who asks is told by the token alone, and a token that is not right is refused without a hint why."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest

from backend.errors import InvalidSettings
from backend.tokens import admit_token, create_token, list_tokens, revoke_token
from tests.backend.rig import Rig


async def _ask(client: httpx.AsyncClient, header: str | None) -> httpx.Response:
    headers = {} if header is None else {"Authorization": header}
    return await client.get("/v1/users", headers=headers)


async def test_missing_wrong_expired_and_revoked_tokens_are_refused_alike(rig: Rig) -> None:
    nobody = await rig.client(None)
    valid = await rig.token("acme")
    token_id, revoked = await create_token(rig.parts.database, "acme")
    await revoke_token(rig.parts.database, token_id)
    _, expired = await create_token(rig.parts.database, "acme", lifetime=timedelta(seconds=-1))
    other_secret = valid[:-1] + ("A" if valid[-1] != "A" else "B")
    wrong = (
        None,
        "",
        "Bearer",
        "Bearer nonsense",
        f"Basic {valid}",
        f"Bearer {other_secret}",
        f"Bearer bt_{'0' * 16}_{valid[20:]}",
        f"Bearer {revoked}",
        f"Bearer {expired}",
    )

    answers = [await _ask(nobody, header) for header in wrong]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert len({answer.text for answer in answers}) == 1
    assert (await _ask(nobody, f"Bearer {valid}")).status_code == 200


async def test_no_secret_is_stored(rig: Rig) -> None:
    token = await rig.token("acme")

    (row,) = await list_tokens(rig.parts.database)

    secret = token.split("_", 2)[2]  # may have the character in it
    assert secret.encode() not in row.digest
    assert all(secret not in str(getattr(row, column.key)) for column in row.__table__.columns)


async def test_a_token_from_outside_is_admitted_and_stays_revoked(rig: Rig) -> None:
    nobody = await rig.client(None)
    token = f"bt_{'ab' * 8}_{'x' * 43}"

    await admit_token(rig.parts.database, f"tenant:of:acme:{token}")
    admitted = await _ask(nobody, f"Bearer {token}")
    await revoke_token(rig.parts.database, "ab" * 8)
    await admit_token(rig.parts.database, f"tenant:of:acme:{token}")

    assert admitted.status_code == 200
    assert (await _ask(nobody, f"Bearer {token}")).status_code == 401


@pytest.mark.parametrize("given", ["", "acme", "acme:bt_1_2", f"bt_{'ab' * 8}_{'x' * 43}"])
async def test_what_is_no_token_is_not_admitted(rig: Rig, given: str) -> None:
    with pytest.raises(InvalidSettings, match="BACKEND_BOOTSTRAP_TOKEN"):
        await admit_token(rig.parts.database, given)


async def test_health_and_metrics_need_no_token_and_name_no_tenant(rig: Rig) -> None:
    nobody = await rig.client(None)
    acme = await rig.client("acme")
    await acme.put("/v1/users/user-of-acme", json={"name": "Ada"})

    live, ready = await nobody.get("/health/live"), await nobody.get("/health/ready")
    metrics = await nobody.get("/metrics")

    assert (live.status_code, ready.status_code, metrics.status_code) == (200, 200, 200)
    assert 'backend_requests_total{method="PUT",route="/v1/users/{user_id}",status="200"} 1.0' in metrics.text
    assert "acme" not in metrics.text

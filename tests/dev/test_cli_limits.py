"""`baton limits` and `baton config check`: an operator's hand on the limits, through the command and a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.dev import EmbeddedValkey
from coordination.errors import TenantBlocked
from coordination.limits.files import load_limits
from tests.dev.test_cli_commands import Answer, baton

LIMITS = """
calls: {limit: 10}
providers:
  openai:
    limits:
      requests: {unit: requests, limit: 100, period: 3600, burst: 100}
"""
TENANTS = """
plans:
  pro: {weight: 3, calls: 5}
tenants:
  acme: {plan: pro}
"""
FAULTY = """
providers:
  openai:
    limits:
      requests: {unit: apples, limit: 100, period: 60}
      tokens: {unit: tokens, limit: -1, period: 60}
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    limits, tenants = tmp_path / "limits.yaml", tmp_path / "tenants.yaml"
    limits.write_text(LIMITS)
    tenants.write_text(TENANTS)
    return limits, tenants


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with EmbeddedValkey() as valkey:
        yield valkey.url


@pytest.fixture
async def worker(url: str, files: tuple[Path, Path]) -> AsyncIterator[Coordinator]:
    """A process that has the limits while an operator acts."""
    async with Coordinator.open(url, limits=load_limits(*files)) as coordinator:
        yield coordinator


class Operator:
    def __init__(self, url: str, files: tuple[Path, Path]) -> None:
        limits, tenants = files
        self._environment = {
            "BATON_REDIS_URL": url,
            "BATON_LIMITS_FILE": str(limits),
            "BATON_TENANTS_FILE": str(tenants),
        }

    async def __call__(self, *arguments: str) -> Answer:
        return await baton("limits", *arguments, **self._environment)

    async def shown(self, *arguments: str) -> dict[str, Any]:
        answer = await self("show", *arguments, "--json")
        assert answer.status == 0, answer.complaint
        return json.loads(answer.output)


@pytest.fixture
def limits(url: str, files: tuple[Path, Path]) -> Operator:
    return Operator(url, files)


async def test_show_tells_what_is_left_and_who_used_it(worker: Coordinator, limits: Operator) -> None:
    for _ in range(3):
        await worker.limits.reserve("openai", tenant="acme", requests=10)
    await worker.limits.call("room-1", tenant="acme")
    for heartbeat in worker.limits._engine._heartbeats.values():
        await heartbeat.add_up()

    told, table = await asyncio.gather(limits.shown(), limits("show", "openai"))

    assert [each["provider"] for each in told["providers"]] == ["openai", "calls"]
    openai, calls = told["providers"]
    assert (openai["limits"][0]["size"], round(openai["limits"][0]["available"])) == (100, 70)
    assert (openai["tenants"][0]["tenant"], openai["tenants"][0]["admitted"]) == ("acme", 3)
    assert openai["tenants"][0]["units"] == {"requests": 30}
    assert (calls["limits"][0]["size"], calls["limits"][0]["unit"], calls["limits"][0]["available"]) == (10, "calls", 9)
    assert (table.status, "acme" in table.output, "100 requests per 3600 s" in table.output) == (0, True, True)


async def test_what_is_set_holds_for_running_workers_until_it_is_reset(worker: Coordinator, limits: Operator) -> None:
    answer = await limits("set", "openai", "requests", "40", "--burst", "4")

    told = await limits.shown("openai")
    assert (answer.status, "is 40 for all workers now" in answer.output) == (0, True)
    assert told["set"] == {"openai/requests": {"limit": 40, "burst": 4}}
    assert told["providers"][0]["limits"][0]["size"] == 40
    assert (await worker.limits.show("openai")).limits[0].size == 40

    assert (await limits("set", "openai", "requests", "--reset")).status == 0
    assert (await limits.shown("openai"))["set"] == {}
    assert (await worker.limits.show("openai")).limits[0].size == 100


async def test_a_limit_that_is_none_is_not_set(limits: Operator) -> None:
    unknown, senseless, neither = await asyncio.gather(
        limits("set", "openai", "apples", "40"),
        limits("set", "openai", "requests", "--", "-5"),
        limits("set", "openai", "requests"),
    )

    assert (unknown.status, "apples" in unknown.complaint) == (4, True)
    assert (senseless.status, "limit" in senseless.complaint) == (2, True)
    assert neither.status == 2


async def test_a_tenant_is_blocked_and_let_in_again(worker: Coordinator, limits: Operator) -> None:
    blocked = await limits("block", "acme", "--reason", "unpaid invoices")

    assert (blocked.status, blocked.output) == (0, "acme is blocked.\n")
    assert (await limits.shown())["blocked"] == {"acme": "unpaid invoices"}
    assert await worker.limits.blocked() == {"acme": "unpaid invoices"}
    with pytest.raises(TenantBlocked, match="unpaid invoices"):
        await worker.limits.reserve("openai", tenant="acme", requests=1)

    assert (await limits("unblock", "acme")).status == 0
    assert (await limits("unblock", "acme")).status == 1, "it was not blocked"
    assert await worker.limits.blocked() == {}
    await worker.limits.reserve("openai", tenant="acme", requests=1)


async def test_without_redis_or_limits_there_is_a_status_for_that(files: tuple[Path, Path]) -> None:
    away, unconfigured = await asyncio.gather(
        baton("limits", "show", "--limits", str(files[0]), "--redis-url", "redis://127.0.0.1:1"),
        baton("limits", "show", "--redis-url", "redis://127.0.0.1:1"),
    )

    assert (away.status, unconfigured.status) == (3, 3)
    assert "BATON_LIMITS_FILE" in unconfigured.complaint


async def test_config_check_finds_no_faults_or_lists_all(files: tuple[Path, Path]) -> None:
    limits, tenants = files
    checked = ("config", "check", "--limits", str(limits), "--tenants", str(tenants))
    fit, fit_told = await asyncio.gather(baton(*checked), baton(*checked, "--json"))
    limits.write_text(FAULTY)
    faulty, nothing, told = await asyncio.gather(
        baton("config", "check", BATON_LIMITS_FILE=str(limits), BATON_TENANTS_FILE=str(tenants)),
        baton("config", "check"),
        baton("config", "check", "--limits", str(limits), "--json"),
    )

    assert (fit.status, fit.output) == (0, "No faults: 1 providers, 1 limits, 1 plans, 1 tenants.\n")
    assert faulty.status == 1
    assert all(place in faulty.complaint for place in ("openai.limits.requests.unit", "openai.limits.tokens.limit"))
    assert nothing.status == 3
    fine = {"ok": True, "faults": [], "providers": 1, "limits": 1, "plans": 1, "tenants": 1}
    assert (fit_told.status, json.loads(fit_told.output)) == (0, fine)
    faults = json.loads(told.output)["faults"]
    assert (told.status, told.complaint, len(faults)) == (1, "", 2)
    assert faults[0].startswith("limits: providers.openai.limits.requests.unit: ")

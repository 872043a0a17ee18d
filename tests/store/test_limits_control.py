"""What operators decide at run time, configuration files that change, and who uses what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import InvalidSettings, LimitExceeded, TenantBlocked, UnknownProvider
from coordination.settings import CoordinatorSettings
from coordination.store import Store
from tests.store.limited import NOW, PROVIDER, configure, passes, rate, streams

LIMITS = {"requests": rate(limit=100, burst=50)}


async def eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.01)


async def test_a_blocked_tenant_is_refused_in_every_process_until_it_is_unblocked(
    coordinator: Coordinator, other: Coordinator
) -> None:
    configure(coordinator, other, limits=LIMITS)
    await other.limits.reserve(PROVIDER, tenant="acme", requests=1)

    assert await coordinator.limits.block("acme", reason="unpaid")
    await eventually(lambda: "acme" in other.limits._control.blocked)

    with pytest.raises(TenantBlocked, match="unpaid"):
        await other.limits.reserve(PROVIDER, tenant="acme", requests=1)
    with pytest.raises(TenantBlocked):
        await other.limits.call("room", tenant="acme")
    assert await coordinator.limits.unblock("acme")
    await eventually(lambda: "acme" not in other.limits._control.blocked)
    assert await passes(other, tenant="acme", requests=1)


async def test_a_process_that_starts_later_knows_of_the_block(coordinator: Coordinator, other: Coordinator) -> None:
    configure(coordinator, other, limits=LIMITS)
    await coordinator.limits.block("acme")

    with pytest.raises(TenantBlocked):
        await other.limits.reserve(PROVIDER, tenant="acme", requests=1)


async def test_a_block_ends_the_waits_of_the_tenant(coordinator: Coordinator, store: Store) -> None:
    configure(coordinator, limits={"open": streams(1)})
    await coordinator.limits.reserve(PROVIDER, streams=1, tenant="other")
    waiting = asyncio.ensure_future(coordinator.limits.reserve(PROVIDER, streams=1, tenant="acme", timeout=None))
    await asyncio.sleep(0.1)

    await coordinator.limits.block("acme")

    with pytest.raises(TenantBlocked):
        await asyncio.wait_for(waiting, 5)


async def test_a_limit_that_is_set_holds_for_all_until_it_is_reset(
    coordinator: Coordinator, other: Coordinator
) -> None:
    configure(coordinator, other, limits=LIMITS)
    await other.limits.reserve(PROVIDER, requests=1)

    assert await coordinator.limits.set(PROVIDER, "requests", {"limit": 2, "burst": 1})
    await eventually(lambda: other.limits.config.limits.providers[PROVIDER].limits["requests"].limit == 2)
    assert not await passes(other, requests=1)
    assert await coordinator.limits.set(PROVIDER, "requests", None)
    await eventually(lambda: other.limits.config.limits.providers[PROVIDER].limits["requests"].limit == 100)

    assert await passes(other, requests=1)


async def test_what_was_used_counts_as_the_same_part_of_a_limit_that_is_raised(coordinator: Coordinator) -> None:
    configure(coordinator, limits={"requests": rate(limit=100, burst=100)})
    await coordinator.limits.reserve(PROVIDER, requests=100)
    await coordinator.limits.set(PROVIDER, "requests", {"limit": 200, "burst": 200})

    with pytest.raises(LimitExceeded) as refused:
        await coordinator.limits.reserve(PROVIDER, requests=1, timeout=NOW)

    # The first of 200 an hour, not of 100.
    assert refused.value.retry_after == pytest.approx(18, abs=3)


async def test_what_is_no_limit_cannot_be_set(coordinator: Coordinator) -> None:
    configure(coordinator, limits=LIMITS)

    with pytest.raises(InvalidSettings):
        await coordinator.limits.set(PROVIDER, "requests", {"limit": 0})
    with pytest.raises(UnknownProvider):
        await coordinator.limits.set(PROVIDER, "apples", {"limit": 1})


async def test_decisions_are_the_only_keys_without_a_ttl(coordinator: Coordinator, store: Store) -> None:
    configure(coordinator, limits={**LIMITS, "open": streams(5)})
    await coordinator.limits.block("acme")
    await coordinator.limits.set(PROVIDER, "requests", {"limit": 9})
    async with coordinator.limits.reserve(PROVIDER, requests=1, streams=1):
        pass

    names = [name.decode() for name in await store.command("KEYS", "*")]
    eternal = {name for name in names if await store.command("PTTL", name) == -1}

    assert eternal == set(store.keys.limit_control.permanent)


async def test_who_uses_what_is_shown(coordinator: Coordinator, other: Coordinator) -> None:
    configure(coordinator, other, limits={**LIMITS, "tokens": rate("tokens", 10_000), "open": streams(5)})
    async with coordinator.limits.reserve(PROVIDER, tenant="acme", requests=1, tokens=100) as reservation:
        reservation.settle(tokens=40)
    held = await other.limits.reserve(PROVIDER, tenant="beta", requests=1, streams=1)
    assert await passes(other, tenant="beta", requests=40)
    assert not await passes(other, tenant="beta", requests=40)
    for process in (coordinator, other):
        await process.limits._engine.heartbeat(process._store.keys.limits(PROVIDER)).add_up()

    use = await coordinator.limits.show(PROVIDER)

    tenants = {each.tenant: each for each in use.tenants}
    assert tenants["acme"].units == {"requests": 1, "tokens": 40}
    assert (tenants["beta"].admitted, tenants["beta"].refused) == (2, 1)
    assert tenants["beta"].share == pytest.approx(2 / 3)
    left = {each.limit: int(each.available) for each in use.limits}
    assert left.pop("tokens") in range(960, 980)
    assert left == {"requests": 8, "open": 4}
    await held.close()


async def test_files_are_read_again_when_they_change_and_never_with_faults(
    valkey: EmbeddedValkey, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "limits.yaml"
    text = "providers: {p: {limits: {requests: {unit: requests, limit: %s, period: 3600}}}}"
    path.write_text(text % 10)
    async with Coordinator.open(valkey.url, settings=CoordinatorSettings(limits_file=path)) as opened:

        def size() -> int:
            return opened.limits.config.limits.providers["p"].limits["requests"].limit

        assert size() == 10
        path.write_text(text % "none")
        await asyncio.sleep(1.3)
        assert size() == 10
        path.write_text(text % 20)
        await eventually(lambda: size() == 20)


async def test_the_file_of_tenants_is_read_again_as_well(valkey: EmbeddedValkey, store: Store, tmp_path: Path) -> None:
    limits, tenants = tmp_path / "limits.yaml", tmp_path / "tenants.yaml"
    limits.write_text("providers: {p: {limits: {requests: {unit: requests, limit: 9, period: 3600}}}}")
    tenants.write_text("tenants: {acme: {weight: 1}}")
    settings = CoordinatorSettings(limits_file=limits, tenants_file=tenants)
    async with Coordinator.open(valkey.url, settings=settings) as opened:
        assert await passes(opened, tenant="acme", requests=1)
        tenants.write_text("tenants: {acme: {weight: 1, blocked: true}}")

        def blocked() -> bool:
            plan = opened.limits.config.plan("acme")
            return plan is not None and plan.blocked

        await eventually(blocked)
        with pytest.raises(TenantBlocked):
            await opened.limits.reserve(PROVIDER, tenant="acme", requests=1)


async def test_a_coordinator_does_not_start_with_faulty_files(
    valkey: EmbeddedValkey, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("providers: [")

    with pytest.raises(InvalidSettings, match=r"limits.yaml, line 1"):
        await Coordinator.open(valkey.url, settings=CoordinatorSettings(limits_file=path))


async def test_a_request_within_its_time_is_not_held_up_by_the_first_look_at_decisions(
    coordinator: Coordinator,
) -> None:
    configure(coordinator, limits=LIMITS)

    many = [coordinator.limits.reserve(PROVIDER, requests=1, timeout=NOW) for _ in range(20)]

    assert len(await asyncio.gather(*many)) == 20

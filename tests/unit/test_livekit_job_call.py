"""Whose call a job belongs to, and whether the call was admitted before: by what only a server can write."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from livekit.protocol import agent as agent_pb
from livekit.protocol import models

from coordination.limits.limits import Limits
from coordination.livekit import CallLimits
from coordination.livekit.envelope import MetadataError
from coordination.livekit.job_call import CallOf


def job(dispatch: dict[str, Any] | None = None, room: dict[str, Any] | None = None, role: str = "billing") -> Any:
    """A job as LiveKit offers it, with our part of the dispatch's and of the room's metadata."""
    dispatched, of_room = (json.dumps({"baton": {"v": 1, **ours}}) if ours else "" for ours in (dispatch, room))
    return agent_pb.Job(
        room=models.Room(sid="RM_1", name="call", metadata=of_room), metadata=dispatched, agent_name=role
    )


def test_a_first_job_is_a_new_call_of_the_tenant_that_it_was_dispatched_for() -> None:
    call = CallOf.read(job({"tenant": "acme"}, {"tenant": "another"}))

    assert (call.name, call.tenant, call.role, call.admitted) == ("RM_1", "acme", "billing", False)


def test_without_a_word_it_is_the_default_tenant_and_role() -> None:
    call = CallOf.read(job(role=""))

    assert (call.tenant, call.role, call.admitted) == ("default", "agent", False)


def test_a_worker_of_one_tenant_has_that_tenants_calls() -> None:
    assert CallOf.read(job({"tenant": "acme"}), tenant="only").tenant == "only"


@pytest.mark.parametrize(
    ("dispatch", "room"),
    [
        ({"handoff": "h1"}, None),
        ({"takeover": "job-1"}, None),
        ({"standby": True}, None),
        (None, {"role": "receptionist", "fence": 1700000000000000}),
    ],
    ids=["handoff", "takeover", "standby", "somebody has had the floor"],
)
def test_another_agent_of_a_call_is_no_new_call(dispatch: dict[str, Any] | None, room: dict[str, Any] | None) -> None:
    assert CallOf.read(job(dispatch, room)).admitted


@pytest.mark.parametrize("dispatch", [{"handoff": "h1"}, None])
def test_only_an_agent_of_an_admitted_call_may_use_what_is_kept_for_transfers(dispatch: dict[str, Any] | None) -> None:
    limits = CallLimits(limits=cast(Limits, object()), call=CallOf.read(job(dispatch)))

    assert limits.budget("deepgram").transfer is (dispatch is not None)


def test_a_call_keeps_its_name_when_a_restarted_server_gives_its_room_another() -> None:
    assert CallOf.read(job(room={"session": "RM_0", "fence": 17})).name == "RM_0"


def test_metadata_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(MetadataError, match="call"):
        CallOf.read(job({"tenant": 7}))

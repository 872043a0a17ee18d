"""Metadata shared with others: what is read, what is refused with a clear text, and what survives a write."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol import agent as agent_pb
from livekit.protocol import models

from coordination.errors import InvalidName
from coordination.ids import HandoffId, RoleName, Tenant
from coordination.livekit.dispatch import DispatchMetadata
from coordination.livekit.envelope import MetadataError, open_envelope
from coordination.livekit.identity import TenantSources, agent_identity, agent_of, resolve_tenant
from coordination.livekit.job_call import CallOf
from coordination.livekit.record import SessionRecord

ROOM = "call-7"

names = st.text(min_size=1, max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
foreign_keys = st.dictionaries(names.filter(lambda key: key != "baton"), values, max_size=4)


@settings(deadline=None, max_examples=50)
@given(foreign=foreign_keys, tenant=st.none() | names, handoff=st.none() | names, standby=st.booleans())
def test_dispatch_metadata_is_read_as_it_was_written(
    foreign: dict[str, object], tenant: str | None, handoff: str | None, standby: bool
) -> None:
    written = DispatchMetadata(
        tenant=Tenant(tenant) if tenant else None,
        handoff=HandoffId(handoff) if handoff else None,
        standby=standby,
        foreign=json.loads(json.dumps(foreign)),
    )

    assert DispatchMetadata.parse(written.format(), room=ROOM) == written


@settings(deadline=None, max_examples=50)
@given(foreign=foreign_keys)
def test_foreign_keys_of_room_metadata_survive_a_record(foreign: dict[str, object]) -> None:
    theirs = json.loads(json.dumps(foreign))
    record = SessionRecord(tenant=Tenant("acme"), fence=7, foreign=theirs)

    again = SessionRecord.parse(record.format(), room=ROOM)

    assert again == record
    assert {key: value for key, value in json.loads(record.format()).items() if key != "baton"} == theirs


@pytest.mark.parametrize("text", ["", "  ", "{}", '{"mine": 1}'])
def test_metadata_without_our_key_says_nothing_of_us(text: str) -> None:
    assert DispatchMetadata.parse(text, room=ROOM).tenant is None
    assert SessionRecord.parse(text, room=ROOM) is None


def test_a_foreign_escape_that_is_no_character_survives() -> None:
    theirs = r'{"half a pair":"\ud83d"}'

    written = SessionRecord(tenant=Tenant("acme"), foreign=json.loads(theirs)).format()

    assert json.loads(written.encode())["half a pair"] == "\ud83d"


def test_fields_that_a_later_release_added_are_ignored() -> None:
    text = '{"baton": {"v": 1, "tenant": "acme", "later": [1]}}'

    assert DispatchMetadata.parse(text, room=ROOM) == DispatchMetadata(tenant=Tenant("acme"))


GARBAGE = [
    ("premium customer", "it is not JSON"),
    ('{"baton": {"v": 1', "it is not JSON"),
    ("[1]", "it is a JSON list, not an object"),
    ('"text"', "it is a JSON str, not an object"),
    ("null", "it is a JSON NoneType, not an object"),
    ('{"score": NaN}', "NaN is not JSON"),
    ('{"score": 1e999}', "1e999 is larger than any number"),
    ('{"score": ' + "9" * 5000 + "}", "it is not JSON"),
    ("[" * 100_000, "it is not JSON"),
    ("x" * 600 * 1024, "it is not JSON"),
]
"""What is no JSON object, and what is wrong with it."""
OURS = [
    ('{"baton": "x"}', 'the value of "baton" is no object'),
    ('{"baton": {}}', "it is of format None, and this release knows 1"),
    ('{"baton": {"v": 2}}', "it is of format 2, and this release knows 1"),
    ('{"baton": {"v": true}}', "it is of format True, and this release knows 1"),
    ('{"baton": {"v": 1, "tenant": 5}}', "tenant: Input should be a valid string"),
]
"""What stands under our key and cannot be read."""


def dispatched(text: str, room: str) -> object:
    return DispatchMetadata.parse(text, room=room)


def recorded(text: str, room: str) -> object:
    return SessionRecord.parse(text, room=room)


def tenant_of(text: str, room: str) -> object:
    return resolve_tenant(TenantSources(room=room, dispatch_metadata=text, room_metadata=text))


def call_of(text: str, room: str) -> object:
    info = models.Room(sid="RM_1", name=room, metadata=text)
    return CallOf.read(agent_pb.Job(room=info, metadata=text, agent_name="billing"))


READERS = [dispatched, recorded, tenant_of, call_of]


@pytest.mark.parametrize(("text", "reason"), GARBAGE, ids=[reason for _, reason in GARBAGE])
@pytest.mark.parametrize("read", READERS)
def test_what_is_no_object_reads_as_if_nothing_stood_there_and_that_is_said_once(
    read: Callable[[str, str], object], text: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    room = f"{read.__name__} {len(text)} {text[:20]}"

    assert read(text, room) == read("", room)
    assert read(text, room) == read("", room)

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said)), "a job reads its metadata several times"
    assert all(repr(room) in each and reason in each for each in said)
    assert said


@pytest.mark.parametrize(("text", "reason"), OURS, ids=[reason for _, reason in OURS])
@pytest.mark.parametrize("read", READERS)
def test_ours_that_cannot_be_read_is_an_error_with_room_and_reason(
    read: Callable[[str, str], object], text: str, reason: str
) -> None:
    with pytest.raises(MetadataError) as refused:
        read(text, ROOM)

    assert refused.value.room == ROOM
    assert reason in refused.value.reason
    assert "'call-7'" in str(refused.value)


@pytest.mark.parametrize(("text", "reason"), GARBAGE, ids=[reason for _, reason in GARBAGE])
def test_whoever_writes_there_is_told_what_stands_in_the_way(text: str, reason: str) -> None:
    with pytest.raises(MetadataError) as refused:
        open_envelope(text, what="metadata", room=ROOM)

    assert (refused.value.room, reason in refused.value.reason) == (ROOM, True)


def test_the_dispatch_names_the_tenant_before_the_room_and_the_room_before_the_default() -> None:
    dispatched = DispatchMetadata(tenant=Tenant("from the dispatch")).format()
    recorded = SessionRecord(tenant=Tenant("from the room"), role=RoleName("billing")).format()

    def tenant(dispatch: str, metadata: str) -> str:
        return resolve_tenant(TenantSources(room=ROOM, dispatch_metadata=dispatch, room_metadata=metadata))

    assert tenant(dispatched, recorded) == "from the dispatch"
    assert tenant("", recorded) == "from the room"
    assert tenant('{"baton": {"v": 1}}', '{"other": 1}') == "default"
    with pytest.raises(InvalidName):
        tenant('{"baton": {"v": 1, "tenant": "{x}"}}', "")


def test_a_newer_record_fills_what_it_does_not_know_from_the_older_one() -> None:
    older = SessionRecord(tenant=Tenant("acme"), caller="+49", role=RoleName("receptionist"), fence=1)

    merged = SessionRecord(role=RoleName("billing"), fence=2).over(older)

    assert merged == SessionRecord(tenant=Tenant("acme"), caller="+49", role=RoleName("billing"), fence=2)


def test_an_agent_is_known_by_the_identity_of_its_job() -> None:
    job = agent_of("agent-AJ_1")
    assert job == "AJ_1"
    assert agent_identity(job) == "agent-AJ_1"
    assert agent_of("caller") is None
    assert agent_of("agent-") is None

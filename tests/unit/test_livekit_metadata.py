"""Metadata shared with others: what is read, what is refused with a clear text, and what survives a write."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordination.errors import InvalidName
from coordination.ids import HandoffId, RoleName, Tenant
from coordination.livekit.dispatch import DispatchMetadata
from coordination.livekit.envelope import MetadataError
from coordination.livekit.identity import TenantSources, agent_identity, agent_of, resolve_tenant
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
@given(foreign=foreign_keys, tenant=st.none() | names, handoff=st.none() | names)
def test_dispatch_metadata_is_read_as_it_was_written(
    foreign: dict[str, object], tenant: str | None, handoff: str | None
) -> None:
    written = DispatchMetadata(
        tenant=Tenant(tenant) if tenant else None,
        handoff=HandoffId(handoff) if handoff else None,
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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("premium customer", "it is not JSON"),
        ("[1]", "it is a JSON list, not an object"),
        ('"text"', "it is a JSON str, not an object"),
        ("null", "it is a JSON NoneType, not an object"),
        ('{"baton": "x"}', 'the value of "baton" is no object'),
        ('{"baton": {}}', "it is of format None, and this release knows 1"),
        ('{"baton": {"v": 2}}', "it is of format 2, and this release knows 1"),
        ('{"baton": {"v": true}}', "it is of format True, and this release knows 1"),
        ('{"baton": {"v": 1, "tenant": 5}}', "tenant: Input should be a valid string"),
        ('{"score": NaN}', "NaN is not JSON"),
        ('{"score": 1e999}', "1e999 is larger than any number"),
        ('{"score": ' + "9" * 5000 + "}", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_metadata_that_cannot_be_read_is_an_error_with_room_and_reason(text: str, reason: str) -> None:
    for read in (DispatchMetadata.parse, SessionRecord.parse):
        with pytest.raises(MetadataError) as refused:
            read(text, room=ROOM)

        assert refused.value.room == ROOM
        assert reason in refused.value.reason
        assert "'call-7'" in str(refused.value)


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

"""Announcements of the floor on the wire: what is written is read, and nothing else has a meaning."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordination.ids import MAX_NAME, AgentId, Fence, RoleName
from coordination.livekit.messages import MAX_BYTES, MAX_FENCE, FloorAnnouncement

agents = st.text(min_size=1, max_size=MAX_NAME)


@settings(deadline=None, max_examples=50)
@given(fence=st.integers(1, MAX_FENCE), agent=agents, role=st.none() | agents)
def test_an_announcement_is_read_as_it_was_written(fence: int, agent: str, role: str | None) -> None:
    written = FloorAnnouncement(fence=Fence(fence), agent=AgentId(agent), role=RoleName(role) if role else None)

    assert FloorAnnouncement.decode(written.encode()) == written


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_announcement_and_no_crash(data: bytes) -> None:
    assert FloorAnnouncement.decode(data) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"fence": 0},
        {"fence": -5},
        {"fence": "1"},
        {"fence": 1.5},
        {"fence": True},
        {"fence": 10**400},
        {"fence": None},
        {"agent": ""},
        {"agent": "x" * (MAX_NAME + 1)},
        {"agent": None},
        {"padding": "x" * MAX_BYTES},
    ],
)
def test_an_announcement_that_is_not_exactly_right_has_no_meaning(changes: dict[str, object]) -> None:
    right = {"v": 1, "fence": 5, "agent": "A"}
    assert FloorAnnouncement.decode(json.dumps(right).encode()) is not None

    assert FloorAnnouncement.decode(json.dumps(right | changes).encode()) is None

"""A session's share in the conversation, at changes of the floor that follow each other at once."""

from __future__ import annotations

import asyncio
import gc
from unittest.mock import MagicMock

from coordination.livekit.conversation import Conversation
from coordination.livekit.entry import Entry, EntryKind


async def test_a_floor_that_is_taken_back_in_the_moment_it_came_begins_nothing() -> None:
    """What was to begin is a coroutine: one that is made and never awaited is a warning, and so a fault here."""
    session = MagicMock()
    conversation = Conversation(session)

    conversation.enter(Entry(kind=EntryKind.HANDOFF), carried=None)
    conversation.leave()
    await asyncio.sleep(0)
    gc.collect()

    session.listen.assert_not_called()

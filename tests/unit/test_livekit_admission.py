"""How calls are admitted: what cannot be meant is refused when it is written down."""

from __future__ import annotations

import pytest
from livekit.agents import tts

from coordination.errors import InvalidArgument
from coordination.livekit import CallAdmission, WhenFull


def voice() -> tts.TTS[str]:
    raise AssertionError("nobody speaks here")


@pytest.mark.parametrize("policy", [WhenFull.ANNOUNCE, WhenFull.QUEUE])
def test_a_policy_that_speaks_needs_a_voice(policy: WhenFull) -> None:
    with pytest.raises(InvalidArgument, match="give a voice"):
        CallAdmission(when_full=policy)
    assert CallAdmission(when_full=policy, voice=voice).voice is voice


@pytest.mark.parametrize("sentence", ["You are {number}.", "You are {place", "{}"])
def test_the_place_is_the_one_thing_that_is_filled_in(sentence: str) -> None:
    with pytest.raises(InvalidArgument, match="other braces"):
        CallAdmission(place=sentence)

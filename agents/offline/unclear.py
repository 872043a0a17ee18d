"""How the offline recogniser says that it heard somebody and did not understand."""

from __future__ import annotations

import re

UNCLEAR = "[unclear]"
"""Stands in a transcript for an utterance, or a part of one, that is none of the domain's language."""

_UNCLEAR = re.compile(re.escape(UNCLEAR))


def clear_part(text: str) -> str:
    """What remains of a transcript without the parts that were not understood; may be empty."""
    return " ".join(_UNCLEAR.sub(" ", text).split())

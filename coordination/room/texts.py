"""How much can be said at once, by whatever way it comes: what turn log and backend take of it."""

from __future__ import annotations

from typing import Final

MAX_TEXT: Final = 16 * 1024
"""Bytes of one turn."""


def sayable(text: str) -> str:
    """The text as it can be logged and saved: cut where it is longer, and without what is no character.

    People type, and paste, what nobody would say; a turn is kept in part rather than not at all.
    """
    plain = text.replace("\x00", "\ufffd").encode(errors="replace")
    if len(plain) <= MAX_TEXT:
        return plain.decode()
    return plain[: MAX_TEXT - len("…".encode())].decode(errors="ignore") + "…"

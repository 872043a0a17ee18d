"""Whatever people type or paste can be logged and saved."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordination.room.texts import MAX_TEXT, sayable


@given(st.text(alphabet=st.characters(), max_size=50), st.integers(1, 2000))
def test_what_is_said_fits_is_unicode_and_is_cut_at_its_end_alone(text: str, times: int) -> None:
    kept = sayable(text * times)

    assert len(kept.encode()) <= MAX_TEXT
    assert "\x00" not in kept
    plain = (text * times).replace("\x00", "\ufffd").encode(errors="replace").decode()
    assert kept == plain or (kept.endswith("…") and plain.startswith(kept[:-1]) and len(kept.encode()) > MAX_TEXT - 4)

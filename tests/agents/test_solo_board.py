"""The assistant's notice board: bounded, the oldest leave first, and what others keep beside it is left alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.solo.noticeboard import LIMIT, Board, Notice

START = datetime(2026, 1, 1, tzinfo=UTC)


def board_of(*texts: str) -> Board:
    board = Board().joined("caller", START)
    for number, text in enumerate(texts):
        board = board.said(Notice(who="caller", text=text, at=START + timedelta(seconds=number)))
    return board


def texts_in(metadata: Mapping[str, object]) -> list[str]:
    return [message.text for message in Board.model_validate(metadata["solo"]).messages]


def test_the_oldest_messages_leave_first_and_the_participants_stay() -> None:
    texts = [f"{number}:" + "ü" * 500 for number in range(200)]

    kept = texts_in(written := board_of(*texts).within({"theirs": 1}))

    size = len(json.dumps(written, ensure_ascii=False, separators=(",", ":")).encode())
    assert LIMIT - 1200 < size <= LIMIT
    assert kept == texts[-len(kept) :]
    assert (written["theirs"], Board.model_validate(written["solo"]).participants) == (1, {"caller": START})


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(st.text(max_size=400), max_size=30), limit=st.integers(0, 4000), theirs=st.integers(0, 2000))
def test_it_is_never_too_large_by_its_messages(texts: list[str], limit: int, theirs: int) -> None:
    others = {"theirs": "x" * theirs}

    written = board_of(*texts).within({**others}, limit)

    empty = board_of().within({**others}, limit)
    size = len(json.dumps(written, ensure_ascii=False, separators=(",", ":")).encode())
    least = len(json.dumps(empty, ensure_ascii=False, separators=(",", ":")).encode())
    assert size <= max(limit, least)
    kept = texts_in(written)
    assert kept == texts[len(texts) - len(kept) :]


def test_somebody_who_comes_back_keeps_the_moment_of_the_first_time() -> None:
    board = Board().joined("ann", START).joined("ann", START + timedelta(minutes=5))

    assert board.participants == {"ann": START}


def test_a_room_of_many_is_bounded_by_those_who_joined_last() -> None:
    board = Board()
    for number in range(150):
        board = board.joined(f"p{number}", START + timedelta(seconds=number))

    assert next(iter(board.participants)) == "p50"
    assert len(board.participants) == 100

"""Metadata and attributes as the user's own models: what is read, what is refused, and with which words."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, ConfigDict, Field

from coordination.errors import InvalidArgument, StaleFence
from coordination.livekit.envelope import MetadataError, open_envelope
from coordination.livekit.state import attributes_of, read_attributes, read_metadata
from coordination.livekit.state.document import MetadataContended, transform
from coordination.livekit.state.updates import MAX_METADATA, check_fence, fitting, patch_of

ROOM = "call-7"


class Preferences(BaseModel):
    language: str = "en"
    volume: int = Field(default=5, ge=0, le=10)
    quiet: bool = False


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    plan: str


class TestReading:
    @pytest.mark.parametrize("text", ["", "  ", "{}", '{"baton": {"v": 1, "fence": 3}, "theirs": [1]}'])
    def test_what_is_not_there_has_the_defaults(self, text: str) -> None:
        assert read_metadata(Preferences, text, room=ROOM) == Preferences()

    def test_batons_own_key_is_no_part_of_the_users_model(self) -> None:
        text = '{"baton": {"v": 1}, "plan": "gold"}'

        assert read_metadata(Strict, text, room=ROOM) == Strict(plan="gold")
        assert read_metadata(Preferences, '{"app": {"volume": 7}}', room=ROOM, key="app").volume == 7

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("not json", "it is not JSON"),
            ('{"volume": NaN}', "it is not JSON"),
            ("[1, 2]", "a JSON list, not an object"),
            ('"text"', "a JSON str, not an object"),
            ('{"volume": 11, "quiet": "perhaps"}', r"volume: .*; quiet: "),
            (json.dumps({"x": "y" * 600 * 1024}), "524288 is the limit"),
        ],
    )
    def test_what_cannot_be_read_is_an_error_with_the_room_and_the_reason(self, text: str, reason: str) -> None:
        with pytest.raises(MetadataError, match=rf"metadata of room 'call-7' cannot be used: .*{reason}"):
            read_metadata(Preferences, text, room=ROOM)

    def test_a_part_that_is_no_object_is_named(self) -> None:
        with pytest.raises(MetadataError, match="'app' is a JSON list, not an object"):
            read_metadata(Preferences, '{"app": []}', room=ROOM, key="app")

    def test_an_error_does_not_show_the_value(self) -> None:
        with pytest.raises(MetadataError) as raised:
            read_metadata(Preferences, '{"volume": "hunter2"}', room=ROOM)

        assert "hunter2" not in str(raised.value)

    def test_attributes_become_what_the_fields_are_and_others_are_left_alone(self) -> None:
        attributes = {"app.volume": "7", "app.quiet": "true", "lk.agent.state": "speaking", "volume": "99"}

        found = read_attributes(Preferences, attributes, room=ROOM, prefix="app.")

        assert found == Preferences(volume=7, quiet=True)
        with pytest.raises(MetadataError, match=r"app\.volume"):
            read_attributes(Preferences, {"app.volume": "loud"}, room=ROOM, prefix="app.")

    def test_a_model_as_attributes_is_read_as_it_was_written(self) -> None:
        written = Preferences(language="de", volume=3, quiet=True)

        assert read_attributes(Preferences, attributes_of(written, prefix="x."), room=ROOM, prefix="x.") == written
        assert attributes_of(Optional()) == {"nickname": ""}
        with pytest.raises(InvalidArgument, match="'names' holds more than one value"):
            attributes_of(Many())


class Optional(BaseModel):
    nickname: str | None = None


class Many(BaseModel):
    names: list[str] = []


class TestWriting:
    def test_batons_own_key_is_refused(self) -> None:
        with pytest.raises(InvalidArgument, match="'baton'"):
            patch_of({"baton": None})

    def test_an_older_fence_is_refused_and_none_is_refused_where_agents_share_the_room(self) -> None:
        shared = open_envelope('{"baton": {"v": 1, "fence": 7}}', what="metadata", room=ROOM)
        alone = open_envelope('{"mine": 1}', what="metadata", room=ROOM)

        check_fence(shared, 7, server=False, room=ROOM)
        check_fence(shared, None, server=True, room=ROOM)
        check_fence(alone, None, server=False, room=ROOM)
        with pytest.raises(StaleFence):
            check_fence(shared, 6, server=False, room=ROOM)
        with pytest.raises(InvalidArgument, match="server=True"):
            check_fence(shared, None, server=False, room=ROOM)

    def test_64_kib_fit_and_one_byte_more_names_the_largest_keys(self) -> None:
        empty = len('{"small":1,"large":""}')
        fits = open_envelope(
            json.dumps({"small": 1, "large": "x" * (MAX_METADATA - empty)}), what="metadata", room=ROOM
        )
        more = open_envelope(
            json.dumps({"small": 1, "large": "x" * (MAX_METADATA - empty + 1)}), what="metadata", room=ROOM
        )

        assert len(fitting(fits, "", what="metadata", room=ROOM).encode()) == MAX_METADATA
        with pytest.raises(MetadataError, match=r"65537 bytes, and 65536 is the limit\. Keep less under 'large'"):
            fitting(more, "", what="metadata", room=ROOM)


class Slate:
    """A text somewhere, and what another program does to it between our write and our look at it."""

    def __init__(self, *others: str) -> None:
        self.name, self.text, self.others, self.writes = "metadata of a slate", "", list(others), 0

    async def read(self) -> str:
        return self.text

    async def write(self, text: str) -> None:
        self.writes += 1
        self.text = self.others.pop(0) if self.others else text


async def test_a_change_that_is_overwritten_is_made_again_on_top_of_the_other() -> None:
    slate = Slate('{"theirs": 1}')

    written = await transform(slate, lambda text: json.dumps({**json.loads(text or "{}"), "ours": 1}))

    assert json.loads(written) == {"theirs": 1, "ours": 1}
    assert slate.writes == 2


async def test_a_change_that_is_overwritten_for_ever_is_an_error() -> None:
    slate = Slate(*["{}"] * 20)

    with pytest.raises(MetadataContended, match="5 times in a row"):
        await transform(slate, lambda text: json.dumps({**json.loads(text or "{}"), "ours": 1}))


async def test_what_is_there_already_is_not_written_again() -> None:
    slate = Slate()

    await transform(slate, lambda _: "{}")
    await transform(slate, lambda _: "{}")

    assert slate.writes == 1


async def test_a_server_that_shows_the_old_text_for_a_moment_is_asked_again_before_it_is_built_on() -> None:
    """To build on what it shows would undo what others have written meanwhile."""
    slate = Slate()
    read, stale = slate.read, 3

    async def lagging() -> str:
        nonlocal stale
        if slate.writes and stale:
            stale -= 1
            return ""
        return await read()

    slate.read = lagging  # type: ignore[method-assign]

    await transform(slate, lambda text: json.dumps({**json.loads(text or "{}"), "ours": 1}))

    assert (slate.writes, json.loads(slate.text)) == (1, {"ours": 1})

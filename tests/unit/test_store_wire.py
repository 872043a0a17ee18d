"""Commands as bytes: a template that is filled in says the same as the command packed anew."""

from __future__ import annotations

import hiredis
import pytest

from coordination.store.wire import Hole, Template, pack


def read(data: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(data)
    command = reader.gets()
    assert reader.gets() is False, "nothing is left behind it"
    return command


@pytest.mark.parametrize("text", ["id", "", "100 %d %b %", "ä\r\n$5"])
@pytest.mark.parametrize("numbers", [(0, 1), (-5, 2**63 - 1), (-(2**63), 10**15)])
def test_a_template_is_the_command_with_its_text_and_numbers(text: str, numbers: tuple[int, int]) -> None:
    template = Template("EVALSHA", "50 %d\r\n", Hole.TEXT, "ü", Hole.NUMBER, Hole.NUMBER)

    told = read(template.filled(text, numbers))

    *names, first, second = read(pack(("EVALSHA", "50 %d\r\n", text, "ü", *numbers)))
    assert told[:-2] == names
    assert [int(each) for each in told[-2:]] == [int(first), int(second)] == list(numbers)

"""One metadata text at the server: read, changed, written back, and looked at again.

LiveKit replaces metadata as a whole and knows no compare-and-set. So writers of one process take turns, and each looks
at what stands there after its write: if another program has written the text it had read before, the change is made
again on top of that one. A change of ours is therefore never lost silently; one of another program that falls into the
milliseconds between our read and our write can be, which is why agents write under the fence of the floor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol
from weakref import WeakValueDictionary

from coordination.errors import CoordinationError

LOOK_AGAIN: Final = 0.02
LOOKS: Final = 10
"""The server lists rooms from a store that follows its writes by some milliseconds: what it shows right after a write
can be the text from before, and to build on that would undo what others have written since."""
ATTEMPTS: Final = 5
"""Writers that overwrite each other this often in a row have no agreement about who writes what."""

Change = Callable[[str], str]
"""From the text that stands there to the one that shall. Pure: it may run more than once. What it raises is raised."""


class MetadataContended(CoordinationError):
    """Another program kept overwriting what was written."""

    retryable = True


class Text(Protocol):
    """Where the text stands."""

    name: str
    """For messages and for taking turns: unique for each text in a process."""

    async def read(self) -> str: ...
    async def write(self, text: str) -> None: ...


_turns: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()
"""By event loop and text: a lock belongs to one loop."""


async def transform(text: Text, change: Change) -> str:
    """Makes `change` on the text and returns what stands there now.

    Raises what `change` raises, nothing written; what reading and writing raise; and `MetadataContended`.
    """
    key = (id(asyncio.get_running_loop()), text.name)
    lock = _turns.setdefault(key, asyncio.Lock())
    async with lock:
        found = await text.read()
        for _ in range(ATTEMPTS):
            wanted = change(found)
            if wanted == found:
                return found
            await text.write(wanted)
            found = await _look(text, before=found)
            if found == wanted or change(found) == found:
                return found
    raise MetadataContended(
        f"The {text.name} was overwritten by another program {ATTEMPTS} times in a row: nothing of this change may be "
        "left. Let one program write it, or give each a key of its own and fewer writes."
    )


async def _look(text: Text, *, before: str) -> str:
    """What stands there after a write; the text from before the write only if it stays that."""
    for _ in range(LOOKS):
        found = await text.read()
        if found != before:
            return found
        await asyncio.sleep(LOOK_AGAIN)
    return before

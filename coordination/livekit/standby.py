"""Who stands in front of the caller: the user's agent while it has the floor, a silent one otherwise.

A standby costs nothing and does nothing: it has no model, no voice, no ears. The user's agent is put in its place
when the floor is granted, so an agent's `on_enter` means "you have the floor", as in an in-process handoff.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from livekit.agents import Agent
from livekit.agents.voice.agent import AgentTask

logger = logging.getLogger(__name__)

INLINE_TASK_ENDS_WITHIN = 2.0
"""Seconds that a cancelled `AgentTask` gets to give the session back to the agent that awaited it."""


class StandbyAgent(Agent):
    """An agent that neither hears nor thinks nor speaks."""

    def __init__(self) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # the SDK's providers have open type parameters
            instructions="", id="baton_standby", llm=None, stt=None, tts=None, vad=None, turn_detection=None
        )


class Stage:
    """Puts the user's agent on and takes it off, one change at a time.

    Changes are wishes: `show` and `hide` return at once and may be called in any order; one task makes the session
    follow the latest of them. Swaps that are started without waiting for each other pile up in the framework.
    """

    def __init__(
        self,
        *,
        put: Callable[[Agent], Awaitable[None]],
        interrupt: Callable[[], None],
        current: Callable[[], Agent],
        front: Agent,
    ) -> None:
        self.standby = StandbyAgent()
        self.front = front
        """The agent that is put on with the floor; an in-process handoff changes it."""
        self._put, self._interrupt, self._current = put, interrupt, current
        self._wanted = False
        self._shown = False
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def shown(self) -> bool:
        return self._shown

    def show(self) -> None:
        """Puts the user's agent on; its `on_enter` runs as soon as it is there."""
        self._want(True)

    def hide(self) -> None:
        """Interrupts whatever is being said and puts the standby on."""
        self._want(False)

    async def settled(self) -> None:
        """Returns once the session has followed the latest wish."""
        await self._settled.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _want(self, shown: bool) -> None:
        self._wanted = shown
        if self._wanted == self._shown and self._settled.is_set():
            return
        self._settled.clear()
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="baton: put agents on and off")

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._wanted != self._shown:
                await self._change(shown=self._wanted)
            self._settled.set()

    async def _change(self, *, shown: bool) -> None:
        try:
            if shown:
                await self._put(self.front)
            else:
                self._interrupt()
                await self._end_inline_tasks()
                await self._put(self.standby)
        except Exception:
            logger.exception("the session could not follow the floor; its gate decides what is heard")
        self._shown = shown

    async def _end_inline_tasks(self) -> None:
        """Ends `AgentTask`s first: one that completes later would put its own agent on again."""
        deadline = asyncio.get_running_loop().time() + INLINE_TASK_ENDS_WITHIN
        while isinstance(task := self._current(), AgentTask):
            if not task.done():
                task.cancel()
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.01)

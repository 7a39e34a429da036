"""Who listens to a call's events, and the triage that is being made of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import contextmanager, suppress
from typing import Any

from pydantic import BaseModel

BEAT_S = 15.0  # of silence, then a comment keeps the connection open
MAX_UNREAD = 1000  # events that a listener may leave; then it is cut off and connects again
Happening = tuple[str, str]  # event name, JSON


class Feeds:
    """The listeners of each call, and at most one live triage a call. For one event loop."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Queue[Happening | None]]] = {}
        self._triages: dict[str, asyncio.Task[None]] = {}

    def is_heard(self, call_id: str) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners.get(call_id))

    def publish(self, call_id: str, name: str, data: BaseModel | str) -> None:
        """Tell all who listen to a call."""
        text = data if isinstance(data, str) else data.model_dump_json()
        for queue in list(self._listeners.get(call_id, ())):
            if queue.qsize() >= MAX_UNREAD:
                queue.put_nowait(None)
                self._listeners[call_id].discard(queue)
            else:
                queue.put_nowait((name, text))

    @contextmanager
    def listening(self, call_id: str) -> Any:
        """A queue of what happens from now on."""
        queue: asyncio.Queue[Happening | None] = asyncio.Queue()
        self._listeners.setdefault(call_id, set()).add(queue)
        try:
            yield queue
        finally:
            listeners = self._listeners.get(call_id, set())
            listeners.discard(queue)
            if not listeners:
                self._listeners.pop(call_id, None)

    def renew(self, call_id: str, work: Coroutine[Any, Any, None]) -> None:
        """Make this the call's live triage; an older one that still runs is cancelled."""
        self.stop(call_id)
        task = asyncio.create_task(work)
        self._triages[call_id] = task
        task.add_done_callback(lambda done: self._forget(call_id, done))

    def stop(self, call_id: str) -> None:
        """Cancel the call's live triage, if there is one."""
        if (task := self._triages.pop(call_id, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancel all, and let those who listen go."""
        tasks = list(self._triages.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        for queues in self._listeners.values():
            for queue in queues:
                queue.put_nowait(None)

    def _forget(self, call_id: str, task: asyncio.Task[None]) -> None:
        if self._triages.get(call_id) is task:
            del self._triages[call_id]
        if not task.cancelled():
            task.exception()  # it was published; asyncio need not complain


async def server_sent(queue: asyncio.Queue[Happening | None], first: Happening | None = None) -> AsyncIterator[str]:
    """Events as text, with a beat in silence; ends when the queue says so."""
    if first is not None:
        yield event_text(*first)
    while True:
        try:
            happening = await asyncio.wait_for(queue.get(), BEAT_S)
        except TimeoutError:
            yield ": beat\n\n"
            continue
        if happening is None:
            return
        yield event_text(*happening)


def event_text(name: str, data: str) -> str:
    """One event; JSON has no line breaks of its own."""
    return f"event: {name}\ndata: {data}\n\n"
